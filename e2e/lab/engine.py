"""The Docker that runs the nodes: the machine's own where one answers, else one of ours."""

import json
import os
import select
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from e2e.lab import host
from e2e.lab.config import Config
from e2e.lab.errors import CommandError
from e2e.lab.owned import end_all
from e2e.lab.programs import Programs, ask

NETWORK = "kind"
SYS_RESOURCE = 24  # CAP_SYS_RESOURCE, linux/capability.h
PATIENCE_S = 60


@dataclass(frozen=True, slots=True)
class Engine:
    """A Docker daemon.

    Attributes:
        address: its DOCKER_HOST; empty for the machine's own.
    """

    address: str = ""

    @property
    def env(self) -> dict[str, str]:
        # BuildKit needs a plugin that Debian does not have; the old builder does all we ask.
        own = {"DOCKER_HOST": self.address} if self.address else {}
        return {**own, "DOCKER_BUILDKIT": "0"}

    def answers(self) -> bool:
        # `docker version` fails where only the client answers
        return ask("docker", "version", "-f", "{{.Server.Version}}", env=self.env) is not None

    def ask(self, *argv: str) -> str | None:
        return ask("docker", *argv, env=self.env)

    def has_image(self, name: str) -> bool:
        return self.ask("image", "inspect", "-f", "{{.Id}}", name) is not None


def own_engine(state: Path) -> Engine:
    """Ours, whether it runs or not."""
    return Engine(f"unix://{state}/docker.sock")


def lacks_sys_resource(status: str) -> bool:
    """Whether a process with this /proc/PID/status may not have CAP_SYS_RESOURCE."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return not int(line.split()[1], 16) >> SYS_RESOURCE & 1
    return False


def settings(config: Config, wrapper: Path | None) -> dict[str, object]:
    """The configuration of our daemon; a wrapper stands in for runc where it is needed."""
    state = config.state
    runtime: dict[str, object] = {}
    if wrapper:
        path = {"path": str(wrapper)}
        runtime = {"default-runtime": "nosysres", "runtimes": {"nosysres": path}}
    return {
        **runtime,
        "hosts": [f"unix://{state}/docker.sock"],
        "data-root": f"{state}/docker",
        "exec-root": f"{state}/run",
        "pidfile": f"{state}/run/docker.pid",
        "deprecated-key-path": f"{state}/docker-key.json",
        "cgroup-parent": f"/{host.cgroup(config.cluster)}",
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        # The few firewall rules that are needed are ours, see host.rules.
        "bridge": "none",
        "iptables": False,
        "ip6tables": False,
        "log-level": "warn",
    }


# A process namespace: when its first process ends, the kernel ends Docker, the shims and all
# nodes. A mount namespace: their mounts go with it. docker-init reaps what the shims leave.
_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
# Sockets, the pid file and the shims' sockets, which have a fixed place on the machine, are on
# file systems that go too; else the next start would trust the numbers in a dead namespace.
_SCRIPT = """
for folder in /run/containerd "$1/run"; do
  mkdir -p "$folder"
  mount -t tmpfs none "$folder"
done
exec docker-init -- dockerd --config-file "$1/daemon.json"
"""


def start(
    config: Config, wrapper: Path | None, now: Callable[[], float] = time.monotonic
) -> Engine:
    """Starts our daemon and waits until it answers; one that does not answer is ended first."""
    end_all(config.state)
    host.remember(host.record(config.state))
    log = config.state / "logs" / "dockerd.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    file = config.state / "daemon.json"
    file.write_text(json.dumps(settings(config, wrapper), indent=1))
    programs = Programs(owner=config.state, log=log)
    argv = (*_NAMESPACES, "sh", "-ec", _SCRIPT, "sh", str(config.state))
    with log.open("a") as output:
        daemon = subprocess.Popen(
            argv,
            env=programs.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    engine = own_engine(config.state)
    deadline = now() + PATIENCE_S
    ended = select.poll()
    ended.register(os.pidfd_open(daemon.pid), select.POLLIN)
    while not engine.answers():
        if ended.poll(200) or now() > deadline:
            raise CommandError(("dockerd",), daemon.poll() or 1, log)
    return engine


def ensure_network(config: Config, engine: Engine, programs: Programs) -> None:
    """The network that kind uses, with a bridge that `down` knows by name."""
    if engine.ask("network", "inspect", NETWORK) is None:
        name = f"com.docker.network.bridge.name={host.bridge(config.cluster)}"
        programs.run("docker", "network", "create", "-d", "bridge", "-o", name, NETWORK)
    subnet = engine.ask("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", NETWORK)
    host.open_firewall(config.cluster, (subnet or "").strip(), programs)
