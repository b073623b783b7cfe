"""Behaviour of hami-webhook as a process: start, readiness, end."""

import json
import os
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from datetime import UTC, datetime
from importlib.metadata import version

import pytest

from hami_webhook.installer import write_files
from hami_webhook.issuer import issue

HOST = "hami-webhook.hami-system.svc"
DEADLINE_S = 120


def free_port():
    """A port that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Process:
    """A running hami-webhook and the events of its log."""

    def __init__(self, *arguments, **environ):
        self.status_port = free_port()
        self.child = subprocess.Popen(
            [sys.executable, "-m", "hami_webhook", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "STATUS_ADDRESS": f"127.0.0.1:{self.status_port}", **environ},
        )
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self):
        for line in self.child.stderr:
            self.lines.put(line)

    def event(self, name):
        """Wait for this event in the log."""
        while True:
            line = self.lines.get(timeout=DEADLINE_S)
            if line.startswith("{") and (found := json.loads(line))["event"] == name:
                return found

    def ready(self):
        """Status and text of /readyz."""
        try:
            url = f"http://127.0.0.1:{self.status_port}/readyz"
            with urllib.request.urlopen(url, timeout=DEADLINE_S) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def end(self):
        """SIGTERM, and the exit code."""
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(DEADLINE_S)


@pytest.fixture
def start(tmp_path):
    """Start processes in the test's folder; none outlives the test."""
    started = []

    def begin(*arguments, **environ):
        folders = {"RUN_DIR": str(tmp_path), "CERTIFICATE_DIR": str(tmp_path / "tls")}
        started.append(Process(*arguments, ADDRESS="127.0.0.1:0", **folders, **environ))
        return started[-1]

    yield begin
    for process in started:
        process.child.kill()
        process.child.wait()
        process.reader.join()
        process.child.stderr.close()


def test_it_waits_for_a_certificate_serves_and_ends_in_order(start, tmp_path):
    """Ready only while TLS is spoken; at SIGTERM readiness goes first, and the exit code is 0."""
    process = start(DRAIN_SECONDS="0.3")
    assert process.event("starting")["version"] == version("hami-webhook")
    process.event("waiting for a certificate")
    status, text = process.ready()
    assert status == 503
    assert "certificate: no usable certificate" in text
    bundle = issue(HOST, datetime.now(UTC))
    write_files(str(tmp_path / "tls"), bundle)
    port = process.event("serving")["port"]
    assert process.ready() == (200, "ok\n")
    context = ssl.create_default_context(cadata=bundle.authorities.decode())
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as client,
    ):
        process.child.send_signal(signal.SIGTERM)
        process.event("stopping")
        client.sendall(
            b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2\r\n\r\n{}"
        )
        assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")
    assert process.child.wait(DEADLINE_S) == 0
    assert list(tmp_path.iterdir()) == [tmp_path / "tls"]


def test_what_a_killed_process_left_is_no_hindrance(start, tmp_path):
    """Its folder and socket outlive it, because a pod's emptyDir outlives a container."""
    write_files(str(tmp_path / "tls"), issue(HOST, datetime.now(UTC)))
    for _ in range(2):
        process = start()
        process.event("serving")
        assert process.ready() == (200, "ok\n")
        process.child.kill()
        process.child.wait()
        assert {path.name for path in tmp_path.iterdir()} == {"tls", "webhook"}


def test_it_ends_while_it_waits_for_a_certificate(start):
    """A pod that never became ready must not hang either."""
    process = start()
    process.event("waiting for a certificate")
    assert process.end() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--device-config-file", "/absent"], 2, "give a readable device-config.yaml"),
        (["--drain-seconds", "x"], 2, "is no number of seconds"),
        (["--run-dir", "/absent"], 1, "No such file"),
        (["certificates"], 2, "kube"),
    ],
)
def test_a_bad_configuration_ends_with_a_line(start, arguments, code, says):
    """And no traceback."""
    process = start(*arguments, KUBECONFIG="/absent")
    assert process.child.wait(DEADLINE_S) == code
    process.reader.join()
    text = "".join(process.lines.queue)
    assert says in text
    assert "Traceback" not in text


def test_a_broken_configuration_changes_nothing_but_the_report(start, tmp_path):
    """It goes on as before, says so in /readyz, and takes the mended file without a restart."""
    path = tmp_path / "device-config.yaml"
    path.write_text("nvidia: {}\n")
    write_files(str(tmp_path / "tls"), issue(HOST, datetime.now(UTC)))
    process = start("--device-config-file", str(path), KUBECONFIG="/absent")
    process.event("serving")
    path.write_text("nvidia:\n  defaultCores: 101\n")
    process.event("device configuration refused, the last good holds")
    status, text = process.ready()
    assert status == 200
    assert text.startswith("ok\ndevice configuration: ")
    assert "line 2: nvidia.defaultCores: 101" in text
    path.write_text("nvidia:\n  defaultCores: 10\n")
    process.event("device configuration loaded")
    assert process.ready() == (200, "ok\n")


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("nvidia: {}\n", 0, ""),
        ("nvidia:\n  defaultCore: 3\n", 0, "line 2: nvidia.defaultCore: no such setting"),
        ("nvidia:\n  defaultCores: 101\n", 2, "line 2: nvidia.defaultCores: 101"),
    ],
)
def test_a_file_can_be_checked_before_it_is_applied(tmp_path, text, code, says):
    """In a pipeline, say."""
    path = tmp_path / "c.yaml"
    path.write_text(text)
    command = [sys.executable, "-m", "hami_webhook", "check", str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == code
    assert says in done.stdout
    assert bool(done.stdout) == bool(says)


def test_match_conditions_are_printed():
    """For the manifest, which is checked against it."""
    said = subprocess.run(
        [sys.executable, "-m", "hami_webhook", "matchconditions"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert said.stdout.startswith("(object.spec.?containers")
    assert said.stdout.count("\n") == 1
