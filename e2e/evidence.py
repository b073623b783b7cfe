"""What the cluster says when a test has failed: the only thing a reader of CI ever sees of it.

CI shows some 12,000 characters around the last failures, so the essential comes first and all of it
is short: the test's pods and events, our own pods, then what our programs complained of.
"""

import json
import re
import subprocess
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
    """Of what programs printed: the last complaints, then the last of the rest, each by time."""
    found = sorted(filter(None, map(_LINE.match, lines)), key=lambda line: line["at"])
    loud = [line for line in found if _LOUD.search(line["said"])][-limit:]
    rest = [line for line in found if not _LOUD.search(line["said"])]
    rest = rest[len(rest) - min(len(rest), limit - len(loud)) :]
    return [shown(line["who"], line["at"], line["said"]) for line in (*loud, *rest)]


def shown(who: str, at: str, said: str) -> str:
    """A line of a program's, cut: the second, who, and what it said without what that repeats."""
    if said.startswith("{"):
        fields = json.loads(said)
        first = [str(fields.pop(name, "")) for name in ("level", "event")]
        said = " ".join([*first, *(f"{k}={v}" for k, v in fields.items() if k != "timestamp")])
    return f"{at[11:19]} {who} {said}"[:WIDTH]


def tail(text: str, lines: int = 20) -> str:
    """The last lines, cut, without the spaces that align columns."""
    last = text.splitlines()[-lines:]
    return "\n".join(re.sub(r" {2,}", "  ", line.strip())[:WIDTH] for line in last)
