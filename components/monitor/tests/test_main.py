"""The process as a whole, against an API server of this test."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

DEADLINE_S = 60


class ApiHandler(BaseHTTPRequestHandler):
    """Lists one pod and holds a watch until the server is closed."""

    def do_GET(self):
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        self.server.asked.append((url.path, query))
        watch = "watch" in query
        body = b"" if watch else json.dumps(self.server.pods).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        if not watch:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if watch:
            self.server.closing.wait(DEADLINE_S)

    def log_message(self, *_args):
        """Tests are quiet."""


@pytest.fixture
def api(tmp_path):
    """An API server with one pod, and the kubeconfig that leads to it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), ApiHandler)
    server.daemon_threads = True
    server.asked, server.closing = [], threading.Event()
    pod = {
        "metadata": {"name": "pod", "namespace": "ns", "uid": "uid-a", "resourceVersion": "7"},
        "spec": {"nodeName": "node-1", "containers": [{"name": "main"}]},
    }
    server.pods = {"metadata": {"resourceVersion": "7"}, "items": [pod]}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [
            {"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        ],
        "users": [{"name": "test", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join(DEADLINE_S)
    server.server_close()


def environment(tmp_path):
    """What a DaemonSet would set."""
    return {
        **os.environ,
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "NODE_NAME": "node-1",
        "HOOK_PATH": str(tmp_path),
        "DRIVER_ROOT": str(tmp_path / "no-driver"),
    }


def command(*arguments):
    """The monitor's command line."""
    return [sys.executable, "-m", "hami_monitor", *arguments]


def test_once_prints_the_metrics_and_ends(api, granted, root, tmp_path):
    """All pods of this node are asked for; the container is seen; NVML is not there."""
    granted("uid-a_main", ("GPU-a", 3000, 30))
    (tmp_path / "vgpu").mkdir()
    root.rename(tmp_path / "vgpu/containers")
    done = subprocess.run(
        command("--once"),
        env=environment(tmp_path),
        capture_output=True,
        check=False,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    assert 'hami_vgpu_memory_limit_bytes{container="main"' in done.stdout
    assert 'hami_monitor_nvml_up{node="node-1",zone="vGPU"} 0.0' in done.stdout
    path, query = api.asked[0]
    assert path == "/api/v1/pods"
    assert "labelSelector" not in query
    assert query["fieldSelector"] == ["spec.nodeName=node-1"]


def test_serves_until_sigterm(api, tmp_path):
    """Ready without NVML and without any container; ends with code 0."""
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        command(f"--metrics-bind-address={address}"),
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert any('"serving"' in line for line in process.stderr)
        assert answer(f"http://{address}/healthz") == (200, "ok\n")
        status, text = answer(f"http://{address}/metrics")
        assert status == 200
        assert "hami_build_info" in text
        wait_ready(f"http://{address}/readyz")
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.stderr.close()
        process.wait()


HANGS = """
#include <stdio.h>
#include <unistd.h>
#define COUNT(call) int call(unsigned *n) { (void)n; for (;;) pause(); }
int nvmlInitWithFlags(unsigned flags) { (void)flags; return 0; }
COUNT(nvmlDeviceGetCount_v2)
"""
"""A driver that begins well and then waits for its hardware for ever."""


@pytest.fixture
def serving(api, tmp_path):
    """Starts the monitor with more variables; the address that it serves on."""
    started = []

    def start(**extra):
        address = f"127.0.0.1:{free_port()}"
        process = subprocess.Popen(
            command(f"--metrics-bind-address={address}"),
            env={**environment(tmp_path), **extra},
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert any('"serving"' in line for line in process.stderr)
        wait_ready(f"http://{address}/readyz")
        return process, f"http://{address}"

    yield start
    for process in started:
        process.kill()
        process.stderr.close()
        process.wait()


def wait_shown(address, line):
    """Scrape until a scrape has the line; each is answered, whatever hangs."""
    pause, end = threading.Event(), time.monotonic() + DEADLINE_S
    while True:
        status, text = answer(f"{address}/metrics")
        assert status == 200, text
        if line in text:
            return text
        assert time.monotonic() < end, f"no {line!r} in {text}"
        pause.wait(0.05)


def test_a_driver_that_hangs_holds_up_nothing_else(serving, granted, root, tmp_path):
    """Not a scrape, not the containers' own accounts, not the end; and it is told."""
    library = tmp_path / "driver/usr/lib64/libnvidia-ml.so.1"
    library.parent.mkdir(parents=True)
    compiler = ("cc", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-x", "c", "-")
    subprocess.run([*compiler, "-o", library], input=HANGS, text=True, check=True)
    granted("uid-a_main", ("GPU-a", 3000, 30))
    (tmp_path / "vgpu").mkdir()
    root.rename(tmp_path / "vgpu/containers")
    process, address = serving(DRIVER_ROOT=str(tmp_path / "driver"), NVML_DEADLINE="0.1")
    text = wait_shown(address, 'hami_monitor_nvml_last_error_timestamp_seconds{error="timeout"')
    assert 'hami_monitor_nvml_up{node="node-1",zone="vGPU"} 0.0' in text
    assert 'hami_vgpu_memory_limit_bytes{container="main"' in text
    assert "hami_host_gpu_" not in "".join(x for x in text.splitlines() if x[0] != "#")
    assert answer(f"{address}/healthz")[0] == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == 0


def test_without_the_api_server_what_is_known_is_shown(serving, api, granted, root, tmp_path):
    """Containers keep their names and limits while it is away."""
    granted("uid-a_main", ("GPU-a", 3000, 30))
    (tmp_path / "vgpu").mkdir()
    root.rename(tmp_path / "vgpu/containers")
    _process, address = serving()
    line = 'hami_vgpu_memory_limit_bytes{container="main"'
    wait_shown(address, line)
    api.closing.set()
    api.shutdown()
    api.server_close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", api.server_port), DEADLINE_S)
    # Long enough for a list that fails to be taken in, if anybody did.
    for _ in range(20):
        assert line in answer(f"{address}/metrics")[1]


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_ready(url):
    """Ask until the answer is 200."""
    pause, end = threading.Event(), time.monotonic() + DEADLINE_S
    while (last := answer(url))[0] != 200:
        assert time.monotonic() < end, last
        pause.wait(0.05)


def answer(url):
    """Status and text of a GET."""
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"NODE_NAME": ""}, "node's name is missing"),
        ({"KUBECONFIG": "/nonexistent"}, "no way to the Kubernetes API"),
    ],
)
def test_a_bad_configuration_is_one_line_and_code_2(extra, says, tmp_path):
    """No traceback."""
    done = subprocess.run(
        command(),
        env={**environment(tmp_path), **extra},
        capture_output=True,
        check=False,
        text=True,
        timeout=90,
    )
    complaint = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert (done.returncode, len(complaint)) == (2, 1)
    assert says in complaint[0]
