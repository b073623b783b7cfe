"""The cluster as a test or a demo sees it: kubectl, waiting for a condition, commands on a node."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]
POLL_S = 0.4


class Deadline(AssertionError):
    """A condition that did not come true in time; the text says what was still missing."""


def wait_until(missing: Callable[[], str | None], seconds: float) -> None:
    """Ask until nothing is missing any more.

    A command that fails meanwhile (an API server that starts anew, a pod that is being replaced) is
    something that is missing, too.

    Args:
        missing: returns what is missing, or None.
        seconds: how long to go on.

    Raises:
        Deadline: with the last answer.
    """
    pause, end = threading.Event(), time.monotonic() + seconds
    while (what := _asked(missing)) is not None:
        if time.monotonic() > end:
            raise Deadline(f"after {seconds:.0f} s still missing: {what}")
        pause.wait(POLL_S)


def _asked(missing: Callable[[], str | None]) -> str | None:
    try:
        return missing()
    except subprocess.SubprocessError as error:
        return f"an answer in place of: {error}"


@dataclass(frozen=True)
class Kube:
    """One cluster; `environment` has what kubectl and docker need to find it."""

    environment: dict[str, str]
    binary: str = "kubectl"
    nodes: tuple[str, ...] = field(default=())

    def run(self, *command: str, stdin: str | None = None, check: bool = True) -> str:
        """Run a program against the cluster and return its standard output."""
        done = subprocess.run(
            command,
            check=False,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, **self.environment},
        )
        if check and done.returncode != 0:
            said = f"{done.stdout}\n{done.stderr}".strip()
            raise subprocess.SubprocessError(f"{' '.join(command)}: {said}")
        return done.stdout

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl."""
        return self.run(self.binary, *arguments, stdin=stdin, check=check)

    def get(self, *arguments: str) -> Object:
        """`kubectl get -o json`."""
        found: Object = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found

    def apply(self, *objects: Object) -> None:
        """Create or change objects."""
        self.kubectl("apply", "-f", "-", stdin=listed(objects))

    def create(self, *objects: Object) -> None:
        """Create objects; one that is there already is an error."""
        self.kubectl("create", "-f", "-", stdin=listed(objects))

    def refusal(self, obj: Object, *options: str) -> str:
        """Try to create an object that must be refused and return what the API server says."""
        done = subprocess.run(
            [self.binary, *options, "create", "-f", "-"],
            check=False,
            input=json.dumps(obj),
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, **self.environment},
        )
        if done.returncode == 0:
            raise AssertionError(f"was accepted: {obj['metadata']['name']}")
        return done.stderr

    def pods(self, namespace: str) -> list[Object]:
        """All pods of a namespace."""
        return list(self.get("pods", "-n", namespace)["items"])

    def wait_pods(
        self, namespace: str, missing: Callable[[list[Object]], str | None], seconds: float
    ) -> None:
        """Wait until nothing is missing about the pods of a namespace."""
        wait_until(lambda: missing(self.pods(namespace)), seconds)

    def wait_running(self, namespace: str, *names: str, seconds: float = 180) -> None:
        """Wait until pods run.

        Raises:
            Deadline: with what the cluster said last about each pod that does not; at once for one
                that has failed, as it never will.
        """
        try:
            self.wait_pods(namespace, lambda pods: not_running(pods, names), seconds)
        except Deadline as error:
            waiting = [p["metadata"]["name"] for p in self.pods(namespace) if phase(p) != "Running"]
            said = {name: self.events(namespace, name)[-4:] for name in waiting if name in names}
            raise Deadline(f"{error}; events: {json.dumps(said)}") from None

    def wait_log(self, namespace: str, pod: str, text: str, seconds: float = 60) -> str:
        """Wait until a pod has printed a text, and return all it printed.

        A pod runs some time before what it prints first can be read.
        """
        said = ""

        def missing() -> str | None:
            nonlocal said
            said = self.kubectl("logs", "-n", namespace, pod)
            return None if text in said else f"{text!r} in what {pod} printed: {said!r}"

        wait_until(missing, seconds)
        return said

    def exec(self, namespace: str, pod: str, *command: str, check: bool = True) -> str:
        """Run a command in a pod's first container."""
        return self.kubectl("exec", "-n", namespace, pod, "--", *command, check=check)

    def node(self, node: str, *command: str, check: bool = True) -> str:
        """Run a command on a node."""
        return self.run("docker", "exec", node, *command, check=check)

    def events(self, namespace: str, name: str) -> list[str]:
        """The messages of all events about one object."""
        query = f"--field-selector=involvedObject.name={name}"
        return [e.get("message", "") for e in self.get("events", "-n", namespace, query)["items"]]

    def said(self, namespace: str, pod: str) -> str:
        """What all events about a pod say, and its condition why it is not placed.

        kube-scheduler's events keep the first of its reasons for minutes; the condition has the
        last.
        """
        found = self.get("pod", "-n", namespace, pod)["status"].get("conditions") or []
        return " ".join([*self.events(namespace, pod), *(c.get("message", "") for c in found)])


def listed(objects: Iterable[Object]) -> str:
    """Objects as one List."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


def not_running(pods: list[Object], names: Collection[str]) -> str | None:
    """Which of the named pods do not run, and why; None when all do.

    Raises:
        Deadline: one of them has failed.
    """
    by_name = {pod["metadata"]["name"]: pod for pod in pods}
    failed = {
        name: by_name[name]["status"] for name in names if phase(by_name.get(name)) == "Failed"
    }
    if failed:
        told = {name: (s.get("reason"), s.get("message")) for name, s in failed.items()}
        raise Deadline(f"pods that run: these have failed: {told}")
    waiting = [name for name in names if phase(by_name.get(name)) != "Running"]
    if not waiting:
        return None
    return ", ".join(f"{name} is {phase(by_name.get(name))}" for name in waiting[:5])


def phase(pod: Object | None) -> str:
    """A pod's phase; `absent` when there is no pod; Running only when all containers do."""
    if pod is None:
        return "absent"
    status = pod["status"]
    value = str(status.get("phase"))
    containers = status.get("containerStatuses") or []
    if value == "Running" and not all(c.get("state", {}).get("running") for c in containers):
        return "not all running"
    return value
