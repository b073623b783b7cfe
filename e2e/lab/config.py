"""What the lab is told by its environment: names, folders, the Kubernetes version."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from e2e.lab.errors import LabError
from e2e.lab.releases import Release, choose

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Config:
    """One cluster on this machine.

    Attributes:
        cluster: kind's name of it; names the bridge, the cgroup and the state folder too.
        release: the Kubernetes version.
        cache: built parts, shared by all clusters; `down` keeps it.
        state: everything of this cluster; `down` removes it.
        checkout: the root of the repository.
    """

    cluster: str
    release: Release
    cache: Path
    state: Path
    checkout: Path = CHECKOUT

    @property
    def recipes(self) -> Path:
        return self.checkout / "e2e" / "node-image"

    @property
    def nodes(self) -> tuple[str, ...]:
        return (f"{self.cluster}-control-plane", f"{self.cluster}-worker")

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def bin(self) -> Path:
        return self.state / "bin"


def load(environ: Mapping[str, str] = os.environ) -> Config:
    """Reads KUBE, HAMI_LAB_CLUSTER and the XDG folders."""
    cluster = environ.get("HAMI_LAB_CLUSTER", "hami")
    # A bridge's name has 15 characters at most; ours is "lab-" and the cluster's name.
    if not re.fullmatch(r"[a-z][a-z0-9]{0,10}", cluster):
        raise LabError(
            f"HAMI_LAB_CLUSTER={cluster!r}: a cluster's name is a letter and "
            "up to 10 more lower-case letters or digits."
        )
    home = Path(environ.get("HOME", "/root"))
    cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    state = Path(environ.get("XDG_STATE_HOME") or home / ".local" / "state")
    return Config(
        cluster=cluster,
        release=choose(environ.get("KUBE") or "1.34"),
        cache=cache / "hami-lab",
        state=state / "hami-lab" / cluster,
    )
