"""A Kubernetes without kubelets: etcd, API server and kube-scheduler, for nodes that are only said.

The programs are those of the local cluster, from its cache of built parts.
"""

import contextlib
import json
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from processes import cpu_s, free_port
from ruamel.yaml import YAML

from e2e.lab import config as lab_config
from e2e.lab import gobuild
from e2e.lab.console import Console
from e2e.lab.lab import Lab
from hamikit.cluster import Api, ApiError, Unreachable

TOKEN = "bench"
READY_S = 120.0
SCHEDULER_CONFIG = Path("deploy/base/scheduler/config.yaml")
WRITES = ("POST", "PUT", "PATCH", "DELETE")
ALL_NODES = 100
"""The shipped percentageOfNodesToScore."""


@contextlib.contextmanager
def program(log: Path, *argv: str, env: Mapping[str, str] | None = None) -> Iterator[int]:
    """Run a program, its output in a file; its process id. It dies with this process."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *argv], stdout=out, stderr=out, env=env
        )
        try:
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                # An API server takes 16 s to give up etcd.
                process.kill()
                process.wait()


def until(what: str, ready: Callable[[], bool], seconds: float = READY_S) -> None:
    """Wait for something that only asking can tell."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not there after {seconds:.0f} s")
        time.sleep(0.05)


def answers(url: str) -> bool:
    """Whether somebody says 200 there."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


class ControlPlane:
    """A running etcd and API server; `api` talks to it, `folder` holds its files and logs."""

    def __init__(self, folder: Path, port: int, programs: Mapping[str, Path]) -> None:
        self.folder, self._port, self._programs = folder, port, programs
        self.pids: dict[str, int] = {}
        self.kubeconfig = folder / "kubeconfig"
        # The API server makes its certificate when it starts, and each client reads it just once.
        certificate = folder / "certificates" / "apiserver.crt"
        until("the API server's certificate", certificate.exists)
        self.kubeconfig.write_text(json.dumps(_kubeconfig(port, certificate)))
        configuration = kubernetes.client.Configuration()
        kubernetes.config.load_kube_config(str(self.kubeconfig), client_configuration=configuration)
        self.api = Api(configuration, timeout=60, connections=32)

    def ready(self) -> bool:
        """Whether pods can be created."""
        try:
            self.api.request("GET", "/readyz")
            self.api.request("GET", "/api/v1/namespaces/default")
        except (ApiError, Unreachable):
            return False
        return True

    def cpu_s(self) -> float:
        """Seconds of CPU that all its programs have used that run now."""
        return sum(map(cpu_s, self.pids.values()))

    def writes(self) -> dict[str, int]:
        """Write requests that the API server has taken, by `verb resource/subresource`."""
        found: dict[str, int] = {}
        for line in self.api.request("GET", "/metrics").decode().splitlines():
            if line.startswith("apiserver_request_total{"):
                labels, _, value = line.partition("{")[2].rpartition("} ")
                said = dict(part.split("=", 1) for part in labels.replace('"', "").split(","))
                # The API server renews a lease of its own.
                if said["verb"] in WRITES and said["resource"] != "leases":
                    what = f"{said['verb']} {said['resource']}/{said['subresource']}".rstrip("/")
                    found[what] = found.get(what, 0) + int(float(value))
        return found

    @contextlib.contextmanager
    def scheduler(
        self, extender: int, *, percentage: int = ALL_NODES, weight: int | None = None
    ) -> Iterator[int]:
        """kube-scheduler as it is shipped, asking the extender on a port; the port it is on.

        A percentage of 0 is kube-scheduler's own default.
        """
        shipped = YAML(typ="safe").load(SCHEDULER_CONFIG.read_text())["data"]["config.yaml"]
        settings: dict[str, Any] = YAML(typ="safe").load(shipped)
        settings["leaderElection"] = {"leaderElect": False}
        settings["clientConnection"] = {"kubeconfig": str(self.kubeconfig)}
        settings["percentageOfNodesToScore"] = percentage
        for one in settings["extenders"]:
            one["urlPrefix"] = f"http://127.0.0.1:{extender}"
            one["weight"] = weight or one["weight"]
        path, port = self.folder / "scheduler.yaml", free_port()
        path.write_text(json.dumps(settings))
        flags = (f"--config={path}", "--bind-address=127.0.0.1", f"--secure-port={port}")
        flags += ("--authorization-always-allow-paths=/healthz,/readyz,/metrics",)
        log = self.folder / "kube-scheduler.log"
        with program(log, str(self._programs["kube-scheduler"]), *flags) as pid:
            self.pids["kube-scheduler"] = pid
            try:
                yield port
            finally:
                del self.pids["kube-scheduler"]


def _kubeconfig(port: int, certificate: Path) -> dict[str, object]:
    server = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(certificate)}
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": server}],
        "users": [{"name": "u", "user": {"token": TOKEN}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip


def _programs() -> dict[str, Path]:
    lab = Lab(lab_config.load(), Console())
    parts = gobuild.go_parts(lab.config, gobuild.find_go())
    kubernetes_ = lab.cache.get(parts.kubernetes)
    return {
        "etcd": lab.cache.get(parts.etcd) / "etcd",
        "kube-apiserver": kubernetes_ / "kube-apiserver",
        "kube-scheduler": kubernetes_ / "kube-scheduler",
    }


def _write_key(path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )


@contextlib.contextmanager
def control_plane() -> Iterator[ControlPlane]:
    """Start etcd and an API server; nothing of them stays behind."""
    programs, port, client, peer = _programs(), free_port(), free_port(), free_port()
    # In memory: what is measured is no disk.
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="hami-bench-") as name:
        folder = Path(name)
        key, tokens = folder / "key.pem", folder / "tokens.csv"
        _write_key(key)
        tokens.write_text(f"{TOKEN},admin,admin,system:masters\n")
        store, own = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        etcd = (
            f"--data-dir={folder}/etcd", "--unsafe-no-fsync", "--quota-backend-bytes=4294967296",
            f"--listen-client-urls={store}", f"--advertise-client-urls={store}",
            f"--listen-peer-urls={own}", f"--initial-advertise-peer-urls={own}",
            f"--initial-cluster=default={own}",
        )  # fmt: skip
        server = (
            f"--etcd-servers={store}", f"--secure-port={port}", "--bind-address=127.0.0.1",
            f"--cert-dir={folder}/certificates", f"--token-auth-file={tokens}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
            # No controller manager runs: nobody would make accounts or take the taint off.
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
            "--service-cluster-ip-range=10.96.0.0/16", "--delete-collection-workers=8",
        )  # fmt: skip
        with (
            program(folder / "etcd.log", str(programs["etcd"]), *etcd) as store_pid,
            program(
                folder / "kube-apiserver.log", str(programs["kube-apiserver"]), *server
            ) as server_pid,
        ):
            plane = ControlPlane(folder, port, programs)
            plane.pids |= {"etcd": store_pid, "kube-apiserver": server_pid}
            until("API server", plane.ready)
            yield plane
