"""The whole extender over HTTP, between a caller like kube-scheduler and a fake API server."""

import contextlib
import io
import json
import socket
import tempfile
import threading
import urllib.error
import urllib.request
from contextlib import redirect_stdout

import msgspec
import pytest
from extender_kit import device, node_object
from extender_server import Server

from hami_extender.__main__ import run
from hami_extender.ask import ask
from hami_extender.config import Config
from hami_extender.snapshot import Snapshot
from hamikit.cluster import ApiError
from hamikit.devices import NVIDIA
from hamikit.service import Lifecycle
from hamikit.testing import LOSE_AFTER, LOSE_BEFORE


def free_port():
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Extender:
    """One running extender, asked as kube-scheduler asks."""

    def __init__(self, server, *flags):
        self.server, self.lifecycle = server, Lifecycle()
        self.verbs, self.status, self.people = free_port(), free_port(), free_port()
        argv = [f"--bind-address=127.0.0.1:{self.verbs}", "--start-delay=0", *flags]
        argv.append(f"--explain-port={self.people}")
        argv.append(f"--status-address=127.0.0.1:{self.status}")
        self.snapshot = Snapshot(NVIDIA)
        arguments = (Config.parse(argv, {}), self.snapshot, server.api(), self.lifecycle)
        self.thread = threading.Thread(target=run, args=arguments)

    def __enter__(self):
        self.thread.start()
        # No sleep: the stop event is the clock, and it does not come.
        for _ in range(500):
            if self.ready():
                return self
            self.lifecycle.stopping.wait(0.02)
        raise AssertionError("not ready within ten seconds")

    def __exit__(self, *_):
        self.lifecycle.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()

    def ready(self):
        """What a probe sees."""
        with contextlib.suppress(urllib.error.URLError):
            return self.get("readyz") == "ok\n"
        return False

    def get(self, page):
        """A page of the status listener."""
        url = f"http://127.0.0.1:{self.status}/{page}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()

    def explain(self, pod, token="good"):
        """What `hami-explain` prints."""
        with tempfile.NamedTemporaryFile("w") as file, redirect_stdout(io.StringIO()) as out:
            file.write(token)
            file.flush()
            status = ask([pod, f"--port={self.people}"], file.name)
        return out.getvalue() if status == 0 else status

    def ask(self, verb, **body):
        """One question of kube-scheduler."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.verbs}/{verb}", json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def filter(self, pod):
        """Filter over all nodes."""
        names = [node["metadata"]["name"] for node in self.server.nodes]
        return self.ask("filter", Pod=msgspec.to_builtins(pod), NodeNames=names)

    def bind(self, pod, node="n"):
        """Bind; the error text."""
        meta = pod.metadata
        body = {"PodName": meta.name, "PodNamespace": meta.namespace, "PodUID": meta.uid}
        return self.ask("bind", **body, Node=node)["Error"]

    def seen(self, pod):
        """Wait until the watch has shown the pod."""
        self.until(f"the watch shows {pod.key}", lambda view: pod.metadata.uid in view.pods)

    def until(self, what, holds):
        """Wait until something holds of the view."""
        for _ in range(500):
            with self.snapshot.lock:
                if holds(self.snapshot):
                    return
            self.lifecycle.stopping.wait(0.02)
        raise AssertionError(f"not within ten seconds: {what}")


pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture
def server():
    """A cluster with one node of one card."""
    with Server(node_object("n", device("GPU-a", devmem=1500))) as running:
        yield running


def test_the_life_of_two_pods(server):
    """Placed and bound; the second waits with an event; the first ends and the second fits."""
    with Extender(server) as extender:
        first, second = server.add("first"), server.add("second")
        assert extender.filter(first)["NodeNames"] == ["n"]
        scores = extender.ask("prioritize", Pod=msgspec.to_builtins(first), NodeNames=["n"])
        assert scores == [{"Host": "n", "Score": 10}]
        assert extender.bind(first) == ""
        answer = extender.filter(second)
        assert answer["NodeNames"] == []
        assert answer["FailedNodes"] == {"n": "1/1 CardInsufficientMemory"}
        server.wait_for(lambda: server.events)
        assert "free 500 of 1500 MiB" in server.events[0]["message"]
        assert "default/second: waiting" in extender.explain("default/second")
        assert "default/first: placed" in extender.explain("default/first")
        assert 'hami_gpu_shared_count{device_index="0"' in extender.get("metrics")
        server.delete("first")
        for _ in range(500):
            if extender.filter(second)["NodeNames"]:
                break
            extender.lifecycle.stopping.wait(0.02)
        assert extender.bind(second) == ""


def test_a_bind_that_waits_holds_up_no_other_pod(server):
    """Filter is answered by the thread that reads; a bind that waits for its write is not."""
    with Extender(server) as extender:
        first, second = server.add("first"), server.add("second")
        extender.seen(first)
        with server.changed:  # the API server answers nobody
            binding = threading.Thread(target=extender.bind, args=(first,))
            binding.start()
            extender.until(
                "the bind is under way", lambda view: first.metadata.uid in view.ledger.holdings
            )
            assert extender.filter(second)["FailedNodes"] == {"n": "1/1 CardInsufficientMemory"}
        binding.join(20)
        assert not binding.is_alive()


def test_a_restart_keeps_every_grant(server):
    """The next extender reads from the API server what the last one wrote."""
    first, second = server.add("first"), server.add("second")
    with Extender(server) as extender:
        assert extender.bind(first) == ""
    with Extender(server) as extender:
        assert "CardInsufficientMemory" in extender.bind(second)


def test_people_need_a_token(server, capsys):
    """The API server says whose it is; without it, or without an extender, one line on stderr."""
    with Extender(server) as extender:
        assert extender.explain("default/p", token="bad") == 1
        assert "does not know this token" in capsys.readouterr().err
        assert extender.explain("default/p") == 1
        assert "there is no pod default/p" in capsys.readouterr().err
    extender.people = free_port()
    assert extender.explain("default/p") == 1
    assert "run it in the extender's container" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "said", "granted"),
    [
        (LOSE_AFTER, "", True),
        (LOSE_BEFORE, "was not written", False),
        (ApiError(409, "Conflict", "object has been modified"), "was not written", False),
        (ApiError(404, "NotFound", "pods not found"), "404 NotFound", False),
        (ApiError(410, "Gone", "gone"), "410 Gone", False),
    ],
    ids=["lost after the write", "lost before the write", "409", "404", "410"],
)
def test_bind_outcomes(server, fault, said, granted):
    """However the answer gets lost, the account ends up as the API server's."""
    with Extender(server) as extender:
        pod = server.add("p")
        extender.seen(pod)
        server.faults.append(fault)
        error = extender.bind(pod)
        assert said in error
        assert bool(error) is not granted
        other = extender.filter(server.add("other"))
        assert other["NodeNames"] == ([] if granted else ["n"])


def test_a_watch_that_dies_ends_the_process(server):
    """A view that stands still is worse than none: the container starts afresh."""
    snapshot = Snapshot(NVIDIA)

    def crash(_change):
        raise RuntimeError("nobody thought of this")

    snapshot.on_node = crash
    argv = [f"--bind-address=127.0.0.1:{free_port()}", "--start-delay=0", "--explain-port=0"]
    argv.append(f"--status-address=127.0.0.1:{free_port()}")
    with pytest.raises(SystemExit, match="a watch ended"):
        run(Config.parse(argv, {}), snapshot, server.api(), Lifecycle())
