"""What the cluster says when a test has failed: the only thing a reader of CI ever sees of it."""

from e2e.kube import Kube

LINES = 12
PROGRAMS = ("hami-scheduler", "hami-device-plugin", "hami-webhook")


def evidence(kube: Kube, namespace: str) -> str:
    """The pods, the last events of the test's namespace and the last log lines of our programs."""
    told = ["-o=custom-columns=O:.involvedObject.name,R:.reason,M:.message", "--no-headers"]
    events = ("get", "events", "-n", namespace, "--sort-by=.metadata.creationTimestamp", *told)
    parts = [
        kube.kubectl("get", "pods", "-n", namespace, "-o", "wide", check=False),
        tail(kube.kubectl(*events, check=False)),
        kube.kubectl("get", "pods", "-n", "hami-system", "--no-headers", check=False),
    ]
    for name in PROGRAMS:
        where = ("-n", "hami-system", "-l", f"app.kubernetes.io/name={name}", "--prefix")
        log = kube.kubectl("logs", *where, "--all-containers", f"--tail={LINES}", check=False)
        parts.append(tail(log))
    return "\n".join(part.rstrip() for part in parts)


def tail(text: str, lines: int = LINES) -> str:
    """The last lines, cut to what a terminal shows."""
    return "\n".join(line[:400] for line in text.splitlines()[-lines:])
