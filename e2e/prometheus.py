"""A real Prometheus beside the cluster, from Debian's package or the machine's own."""

import base64
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

from ruamel.yaml import YAML

from e2e.kube import Kube, wait_until
from e2e.lab import config as lab_config
from e2e.lab.errors import LabError

# Of each ServiceMonitor: the port that its Service names.
PORTS = {
    "hami-webhook": "9396",
    "hami-scheduler": "9395",
    "hami-device-plugin": "9397",
    "hami-monitor": "9394",
}


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`.

    Raises:
        LabError: it is not installed, and Debian's package cannot be had.
    """
    if found := shutil.which(name):
        return found
    folder = lab_config.load().cache / "prometheus"
    if not (folder / "usr/bin" / name).exists():
        _fetch(folder)
    return str(folder / "usr/bin" / name)


def _fetch(folder: Path) -> None:
    parcel = folder.with_suffix(f".{os.getpid()}")
    shutil.rmtree(parcel, ignore_errors=True)
    parcel.mkdir(parents=True)
    script = (
        "apt-get -q download prometheus || { apt-get -q update && apt-get -q download prometheus; }"
        " && dpkg -x prometheus_*.deb . && rm prometheus_*.deb"
    )
    done = subprocess.run(
        ["sh", "-c", script], cwd=parcel, check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        shutil.rmtree(parcel)
        raise LabError(
            f"promtool is missing; install Prometheus, or let apt-get fetch it:\n{done.stderr}"
        )
    shutil.rmtree(folder, ignore_errors=True)
    parcel.rename(folder)


class Prometheus:
    """One that runs; answers queries."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, path: str, **query: str) -> Any:
        """What its API says.

        Raises:
            HTTPError: it refuses the query.
        """
        with urlopen(f"http://{self._address}/api/v1/{path}?{urlencode(query)}", timeout=30) as got:
            return json.load(got)["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series of this moment."""
        found = self.ask("query", query=expression)["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]

    def missing(self) -> str | None:
        """What is not scraped yet; None when every target is up."""
        try:
            targets = self.ask("targets", state="active")["activeTargets"]
        except (OSError, HTTPError) as error:
            return f"Prometheus: {error}"
        silent = [f"{t['scrapeUrl']}: {t['lastError']}" for t in targets if t["health"] != "up"]
        jobs = {t["labels"]["job"] for t in targets}
        silent += [f"a target of {job}" for job in sorted(PORTS.keys() - jobs)]
        return "; ".join(silent) or None


def configuration(kube: Kube, folder: Path) -> dict[str, Any]:
    """What the Prometheus operator makes of our ServiceMonitors, through the API server's proxy.

    Debian's Prometheus cannot ask Kubernetes for targets, so they are the pods of this moment.
    """
    config = YAML(typ="safe").load(lab_config.load().kubeconfig)
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    keys = {
        "ca_file": cluster["certificate-authority-data"],
        "cert_file": user["client-certificate-data"],
        "key_file": user["client-key-data"],
    }
    for name, data in keys.items():
        (folder / name).write_bytes(base64.b64decode(data))
        (folder / name).chmod(0o600)
    common = {"scheme": "https", "tls_config": {name: str(folder / name) for name in keys}}
    server = urlsplit(cluster["server"]).netloc
    jobs = [{**common, **_job(kube, name, server)} for name in PORTS]
    return {"global": {"scrape_interval": "2s"}, "scrape_configs": jobs}


def _job(kube: Kube, name: str, server: str) -> dict[str, Any]:
    monitors = YAML(typ="safe").load_all(
        lab_config.CHECKOUT / "deploy/features/monitoring/service-monitors.yaml"
    )
    (endpoint,) = next(m for m in monitors if m["metadata"]["name"] == name)["spec"]["endpoints"]
    pods = kube.get("pods", "-n", "hami-system", "-l", f"app.kubernetes.io/name={name}")["items"]
    targets = [
        {
            "targets": [server],
            "labels": {
                "namespace": "hami-system",
                "pod": pod["metadata"]["name"],
                "container": "app",
                "instance": f"{pod['status']['podIP']}:{PORTS[name]}",
                "__metrics_path__": "/api/v1/namespaces/hami-system/pods/"
                f"{pod['metadata']['name']}:{PORTS[name]}/proxy{endpoint['path']}",
            },
        }
        for pod in pods
    ]
    honor = endpoint.get("honorLabels", False)
    return {"job_name": name, "honor_labels": honor, "static_configs": targets}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def _silent(process: subprocess.Popen[bytes], folder: Path) -> None:
    if process.poll() is not None:
        raise AssertionError(f"Prometheus has ended: {(folder / 'log').read_text()[-1000:]}")


@contextmanager
def running(kube: Kube, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the lab's cluster; gone with the block."""
    made = configuration(kube, folder)
    (folder / "prometheus.json").write_text(json.dumps(made))
    address = f"127.0.0.1:{_free_port()}"
    command = [program("prometheus"), f"--config.file={folder}/prometheus.json"]
    command += [f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}"]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            server = Prometheus(address)
            wait_until(lambda: _silent(process, folder) or server.missing(), 60)
            yield server
        finally:
            process.terminate()
