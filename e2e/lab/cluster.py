"""The kind cluster: created when it is not there as wanted, repaired where it lost something."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import Template

from e2e.lab.config import Config
from e2e.lab.engine import Engine
from e2e.lab.programs import Programs, ask

CARDS = 8
"""Device nodes /dev/nvidia0.. on each node; a node's driver shows as many cards as it likes."""

NULL_DEVICE = ("c", "1", "3")
DEVICES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", *(f"nvidia{n}" for n in range(CARDS)))


def render(template: str, config: Config) -> str:
    """Kind's configuration of the cluster."""
    return Template(template).substitute(nodes=config.state / "nodes", cluster=config.cluster)


@dataclass(frozen=True, slots=True)
class Cluster:
    """One kind cluster on a Docker engine.

    Attributes:
        config: its names and folders.
        engine: the Docker it runs on.
        image: the node image.
        made_from: what decides the image: a part's key or a pulled name.
        programs: runs kind, kubectl and docker.
    """

    config: Config
    engine: Engine
    image: str
    made_from: str
    programs: Programs

    @property
    def _marker(self) -> Path:
        return self.config.state / "cluster.json"

    @property
    def env(self) -> dict[str, str]:
        return {**self.engine.env, "KUBECONFIG": str(self.config.kubeconfig)}

    def _rendered(self) -> str:
        template = self.config.checkout / "e2e" / "kind" / "cluster.yaml"
        return render(template.read_text(), self.config)

    def differs(self) -> bool:
        """Whether a cluster created now would not be like the one that is there."""
        made: object = json.loads(self._marker.read_text())
        return made != self._identity()

    def _identity(self) -> dict[str, str]:
        configuration = hashlib.sha256(self._rendered().encode()).hexdigest()
        return {"image": self.made_from, "configuration": configuration}

    def is_up(self) -> bool:
        """Whether the cluster was created to its end, its nodes run, its API server is ready."""
        return self._marker.exists() and not self._stopped() and self._is_ready()

    def revive(
        self,
        patience_s: float = 60,
        now: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> bool:
        """Starts stopped nodes and waits for the API server; whether the cluster is up then.

        A test may just have killed either, and that is no reason to make the cluster anew.
        """
        if not self._marker.exists():
            return False
        for node in self._stopped():
            if self.engine.ask("start", node) is None:
                return False
        deadline = now() + patience_s
        while not self._is_ready():
            if now() > deadline:
                return False
            pause(0.5)
        return True

    def _stopped(self) -> list[str]:
        running = (self.engine.ask("ps", "--format", "{{.Names}}") or "").split()
        return [node for node in self.config.nodes if node not in running]

    def _is_ready(self) -> bool:
        kubectl = str(self.config.bin / "kubectl")
        return ask(kubectl, "get", "--raw", "/readyz", env=self.env) == "ok"

    def create(self) -> None:
        """Creates the cluster anew; the marker is written last, so half a cluster is none."""
        self.delete()
        for node in self.config.nodes:
            for folder in ("driver", "cdi"):
                (self.config.state / "nodes" / node / folder).mkdir(parents=True, exist_ok=True)
        file = self.config.state / "cluster.yaml"
        file.write_text(self._rendered())
        self._kind(
            "create", "cluster", "--config", str(file), "--image", self.image, "--wait", "180s"
        )
        # Both nodes are GPU nodes.
        taint = "node-role.kubernetes.io/control-plane-"
        self.kubectl("taint", "nodes", self.config.nodes[0], taint)
        self.kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=120s")
        self._marker.write_text(json.dumps(self._identity()))

    def delete(self) -> None:
        self._marker.unlink(missing_ok=True)
        self._kind("delete", "cluster")

    def ensure_devices(self) -> None:
        """Makes the device files that a driver would; they are gone when a node restarts."""
        make = "cd /dev; for name; do [ -e $name ] || mknod -m 666 $name " + " ".join(NULL_DEVICE)
        for node in self.config.nodes:
            self._docker("exec", node, "sh", "-ec", f"{make}; done", "sh", *DEVICES)

    def load(self, *images: str) -> None:
        """Copies images of the engine into every node."""
        self._kind("load", "docker-image", *images)

    def kubectl(self, *args: str) -> None:
        self.programs.run(str(self.config.bin / "kubectl"), *args, env=self.env)

    def _kind(self, *args: str) -> None:
        kind = str(self.config.bin / "kind")
        self.programs.run(kind, *args, "--name", self.config.cluster, env=self.env)

    def _docker(self, *args: str) -> None:
        self.programs.run("docker", *args, env=self.env)


def place_programs(folder: Path, programs: dict[str, Path]) -> None:
    """Copies programs to fixed names: a cluster needs them whatever becomes of the cache."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in programs.items():
        draft = folder / f".{name}"
        shutil.copy2(source, draft)
        os.rename(draft, folder / name)  # one of that name may be running
