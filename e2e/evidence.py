"""What the cluster says when a test has failed: the only thing a reader of CI ever sees of it.

CI shows some 12,000 characters around the last failures, so the essential comes first and all of it
is short: the test's pods and events, our own pods, then what our programs complained of.
"""

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable

from e2e.kube import Kube

EVENTS, LINES, WIDTH = 12, 25, 300
SINCE = "--since=150s"
POD = "C:.metadata.name,PHASE:.status.phase,WHY:.status.reason,NODE:.spec.nodeName,"
POD += "STATE:.status.containerStatuses[*].state,AGAIN:.status.containerStatuses[*].restartCount"
EVENT = "O:.involvedObject.name,R:.reason,N:.count,M:.message"
PLAIN = ("--no-headers",)
OURS = ("-n", "hami-system")
# [pod/<pod>/<container>] <time> <what it said>
_LINE = re.compile(r"^\[pod/(?P<who>\S+)\] (?P<at>\S+) (?P<said>.*)$")
# Where in kube-scheduler's sources a line of its comes from.
_PLACE = re.compile(r"\w+\.go:\d+")
_LOUD = re.compile(r'"level": "(warning|error|critical)"|^[WEF]\d{4} |Traceback|Error:')


def evidence(kube: Kube, namespace: str | None) -> str:
    """The pods and events of the test's namespace, ours, and what our programs complained of."""
    try:
        parts = list(_of_test(kube, namespace)) if namespace else []
        return "\n".join([*parts, *_of_ours(kube)])
    except (subprocess.SubprocessError, OSError) as error:
        return f"the cluster says nothing: {error}"


def _of_test(kube: Kube, namespace: str) -> Iterable[str]:
    where = ("-n", namespace)
    yield tail(kube.kubectl("get", "pods", *where, "-o", f"custom-columns={POD}", check=False))
    yield events(kube, *where, lines=EVENTS)


def _of_ours(kube: Kube) -> Iterable[str]:
    yield tail(kube.kubectl("get", "pods", *OURS, *PLAIN, check=False))
    yield events(kube, *OURS, "--field-selector=type=Warning", lines=4)
    logs = ("logs", *OURS, "-l", "app.kubernetes.io/part-of=hami", "--all-containers", "--prefix")
    more = ("--timestamps", SINCE, "--max-log-requests=40", "--tail=300")
    yield "\n".join(chosen(kube.kubectl(*logs, *more, check=False).splitlines()))


def events(kube: Kube, *where: str, lines: int) -> str:
    """The last events."""
    how = ("--sort-by=.metadata.creationTimestamp", "-o", f"custom-columns={EVENT}", *PLAIN)
    return tail(kube.kubectl("get", "events", *where, *how, check=False), lines)


def chosen(lines: Iterable[str], limit: int = LINES) -> list[str]:
    """Of what programs printed: the last complaints, then the last of the rest, each by time.

    Of what a program says again and again the last, with how often.
    """
    found = sorted(filter(None, map(_LINE.match, lines)), key=lambda line: line["at"])
    loud = last_of_each(line for line in found if _LOUD.search(line["said"]))[-limit:]
    rest = last_of_each(line for line in found if not _LOUD.search(line["said"]))
    return loud + rest[len(rest) - min(len(rest), limit - len(loud)) :]


def last_of_each(lines: Iterable[re.Match[str]]) -> list[str]:
    """Lines as they are shown, one for each thing that is said."""
    last: dict[tuple[str, str], str] = {}
    count: Counter[tuple[str, str]] = Counter()
    for line in lines:
        what, text = told(line["said"])
        count[line["who"], what] += 1
        times = f" ({count[line['who'], what]} times)" if count[line["who"], what] > 1 else ""
        last.pop((line["who"], what), None)  # so that it comes after what was said before
        last[line["who"], what] = f"{line['at'][11:19]} {line['who']}{times} {text}"[:WIDTH]
    return list(last.values())


def told(said: str) -> tuple[str, str]:
    """What a line is about, and the line without what is shown beside it."""
    if said.startswith("{"):
        fields = json.loads(said)
        level, event = (str(fields.pop(name, "")) for name in ("level", "event"))
        more = (f"{name}={value}" for name, value in fields.items() if name != "timestamp")
        return event, " ".join([level, event, *more])
    place = _PLACE.search(said)
    return place[0] if place else said[:40], said


def tail(text: str, lines: int = 20) -> str:
    """The last lines, cut, without the spaces that align columns."""
    last = text.splitlines()[-lines:]
    return "\n".join(re.sub(r" {2,}", "  ", line.strip())[:WIDTH] for line in last)
