"""Where the auditor's facts come from: programs that the caller names."""

import json
import shlex
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.audit.control import parse_archive
from e2e.audit.grants import parse_node, parse_pod
from e2e.audit.ledger import parse_ledger
from e2e.audit.model import NodeSide, Snapshot

CONTAINERS = "/usr/local/vgpu/containers"
# tar ends with 1 when a file changed or went while it was read: it has been left out, no more.
_TAR = f"[ -d {CONTAINERS} ] || exit 0; tar -c --exclude=usage -C {CONTAINERS} . || [ $? -eq 1 ]"
_TIMEOUT_S = 60


class SourceError(Exception):
    """A program that was to tell the facts failed; says which and what it said."""


Run = Callable[[list[str]], bytes]


def run(command: list[str]) -> bytes:
    """Run a program and return its standard output.

    Raises:
        SourceError: it cannot be started, fails or takes too long.
    """
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=True)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise SourceError(f"{shlex.join(command)}: exit {error.returncode}: {said}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(f"{shlex.join(command)}: {error}") from error
    return done.stdout


@dataclass(frozen=True)
class Sources:
    """The programs: each a command line, `{node}` and `{folder}` in it are filled in.

    `folders` maps a node to its folder on this machine; a node without one has no ledger. An
    empty `exec_` leaves the control files out.
    """

    kubectl: str
    exec_: str
    ledger: str
    folders: Mapping[str, str]
    proc: Path = Path("/proc")
    run: Run = run

    def snapshot(self) -> Snapshot:
        """Everything as it is now.

        Raises:
            SourceError: a program failed or said something that is not its format.
        """
        objects = self._get("nodes")
        # The nodes' side first: what the API says is the younger truth for what has just ended.
        sides = {
            name: self._side(name)
            for name in (node["metadata"]["name"] for node in objects)
            if self.exec_ or name in self.folders
        }
        pods = (parse_pod(obj) for obj in self._get("pods", "--all-namespaces"))
        return Snapshot(tuple(map(parse_node, objects)), tuple(pod for pod in pods if pod), sides)

    def _get(self, *what: str) -> list[Any]:
        out = self.run([*shlex.split(self.kubectl), "get", *what, "-o", "json"])
        return list(_json(out, f"kubectl get {what[0]}")["items"])

    def _side(self, node: str) -> NodeSide:
        controls = uses = real = None
        if self.exec_:
            archive = self.run([*_filled(self.exec_, node, ""), "sh", "-c", _TAR])
            controls = parse_archive(archive)
        if node in self.folders:
            out = self.run(_filled(self.ledger, node, self.folders[node]))
            real, uses = parse_ledger(_json(out, f"ledger of {node}"), self._cgroup)
        return NodeSide(controls, uses, real)

    def _cgroup(self, pid: int) -> str | None:
        try:
            return (self.proc / str(pid) / "cgroup").read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):
            return None


def _filled(command: str, node: str, folder: str) -> list[str]:
    parts = shlex.split(command)
    return [part.replace("{node}", node).replace("{folder}", folder) for part in parts]


def _json(data: bytes, what: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise SourceError(f"{what} is not JSON: {error}: {data[:200]!r}") from error
