"""The process as a whole: an API server of this test, the simulated driver, and kill -9."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from mig_world import FAKE
from waiting_pods import pod

from hami_mig_manager.auto import decode_choices
from hami_mig_manager.journal import decode_journal
from hamikit import names
from hamikit.mig import decode_blocked, decode_mig_allocations

DEADLINE_S = 90
MODES = ("kill-before", "kill-inside", "kill-after")
CREATE = ("nvmlDeviceCreateGpuInstanceWithPlacement", "nvmlGpuInstanceCreateComputeInstance")
DESTROY = ("nvmlComputeInstanceDestroy", "nvmlGpuInstanceDestroy")
ALL = [
    (symbol, mode)
    for mode in MODES
    for pair in zip(CREATE, DESTROY, strict=True)
    for symbol in pair
]
FEW = [(CREATE[0], MODES[1]), (DESTROY[1], MODES[1]), (CREATE[1], MODES[1])]
KILLS = ALL if os.environ.get("MIG_KILLS") == "all" else FEW
"""Where it is killed, making and removing in turns; `make soak` has all."""


CLIENT = """
import json, pynvml as n
n.nvmlInit()
h = n.nvmlDeviceGetHandleByIndex(0)
def devices(h):
    for i in range(n.nvmlDeviceGetMaxMigDeviceCount(h)):
        try:
            yield n.nvmlDeviceGetMigDeviceHandleByIndex(h, i)
        except n.NVMLError_NotFound:
            pass
"""


DESTROY_ALL = (
    "for d in list(devices(h)):",
    "    g = n.nvmlDeviceGetGpuInstanceById(h, n.nvmlDeviceGetGpuInstanceId(d))",
    "    c = n.nvmlDeviceGetComputeInstanceId(d)",
    "    n.nvmlComputeInstanceDestroy(n.nvmlGpuInstanceGetComputeInstanceById(g, c))",
    "    n.nvmlGpuInstanceDestroy(g)",
)


class Handler(BaseHTTPRequestHandler):
    """One node, its pods, merge patches of annotations, evictions and events.

    Requests by the method and the kind of object that `server.cut` names have no answer; with
    `lost` they are carried out all the same.
    """

    def cut(self):
        kind = "pods" if "/pods" in self.path else "nodes"
        if "watch=" in self.path or self.server.cut != (self.command, kind):
            return False
        self.server.cuts.release()
        return True

    def do_GET(self):
        if self.cut():
            return
        url = urlsplit(self.path)
        objects = self.server.objects
        if "watch" in parse_qs(url.query):
            self.send_response(200)
            self.end_headers()
            self.server.closing.wait(DEADLINE_S)
        elif "/leases/" in url.path and url.path not in objects:
            self.answer({"reason": "NotFound"}, 404)
        elif url.path in objects:
            self.answer(objects[url.path])
        else:
            items = [o for path, o in objects.items() if "/pods/" in path]
            self.answer({"metadata": {"resourceVersion": "1"}, "items": items})

    def do_PATCH(self):
        found = self.server.objects[self.path]["metadata"]
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["metadata"]
        cut = self.cut()
        if cut and not self.server.lost:
            return
        if given.get("resourceVersion") != found["resourceVersion"]:
            self.answer({"reason": "Conflict"}, 409)
            return
        annotations = found["annotations"] | given["annotations"]
        found["annotations"] = {k: v for k, v in annotations.items() if v is not None}
        found["resourceVersion"] += "'"
        if not cut:
            self.answer(self.server.objects[self.path])
        if "/pods/" in self.path:
            self.server.recorded.set()

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append(self.path)
        self.answer({}, 201)

    def answer(self, body, status=200):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Quiet."""


class Site:
    """A node with one A100 in MIG mode, and what the API server has of it."""

    def __init__(self, fake, place):
        self.fake, self.place, self.state = fake, place, place / "state"
        cards = (FAKE / "cards/a100.txt").read_text()
        cards = cards.replace("count = 4", "count = 1").replace("numa = 0,0,1,1", "numa = 0")
        (place / "cards.txt").write_text(cards)
        self.tool("init", "--cards", place / "cards.txt")
        libraries = place / "driver/usr/lib64"
        libraries.mkdir(parents=True)
        (libraries / "libnvidia-ml.so.1").symlink_to(fake / "libnvidia-ml.so.1")
        (place / "cgroup/memory").mkdir(parents=True)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.closing, self.server.posted = threading.Event(), []
        self.server.cut, self.server.lost = None, False
        self.server.cuts, self.server.recorded = threading.Semaphore(0), threading.Event()
        self.node = "/api/v1/nodes/n"
        meta = {"name": "n", "uid": "uid-n", "resourceVersion": "1", "annotations": {}}
        self.server.objects = {self.node: {"metadata": meta}}
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        self.kubeconfig()
        (self.card,) = self.nvml("[n.nvmlDeviceGetUUID(h)]", "n.nvmlDeviceSetMigMode(h, 1)")

    @property
    def env(self):
        """What the DaemonSet and the driver's place set."""
        return {
            **os.environ,
            "FAKEGPU_STATE": str(self.state),
            "FAKEGPU_DEV": "all",
            "LD_LIBRARY_PATH": str(self.fake),
            "KUBECONFIG": str(self.place / "kubeconfig"),
            "NODE_NAME": "n",
            "DRIVER_ROOT": str(self.place / "driver"),
            "CGROUP_ROOT": str(self.place / "cgroup"),
            "GRACE": "0",
        }

    def kubeconfig(self):
        """Leads to our server."""
        address = f"http://127.0.0.1:{self.server.server_port}"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": address}}],
            "users": [{"name": "test", "user": {}}],
        }
        (self.place / "kubeconfig").write_text(json.dumps(config))

    def tool(self, verb, *words):
        """The simulated driver's command."""
        command = [self.fake / "fakegpu", verb, "--state", self.state, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def nvml(self, ask, *first):
        """What a fresh client of the driver is told; `h` is the card."""
        code = "\n".join([CLIENT, *first, f"print(json.dumps({ask}))"])
        done = subprocess.run(
            [sys.executable, "-c", code], env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def instances(self):
        """UUIDs of the MIG devices that there are."""
        return set(self.nvml("[n.nvmlDeviceGetUUID(d) for d in devices(h)]"))

    def bind(self, name, profile, start, size):
        """A pod comes to the node with a reservation."""
        place = {"start": start, "size": size}
        record = {"containerIndex": 0, "deviceIndex": 0, "gpuUUID": self.card, "profile": profile}
        meta = {
            "name": name,
            "namespace": "ns",
            "uid": f"uid-{name}",
            "resourceVersion": "1",
            "annotations": {
                names.POD_MIG_ALLOCATIONS: json.dumps([{**record, "placement": place}])
            },
        }
        self.server.objects[f"/api/v1/namespaces/ns/pods/{name}"] = {"metadata": meta}

    def delete(self, name):
        """A pod is gone."""
        del self.server.objects[f"/api/v1/namespaces/ns/pods/{name}"]

    def uuid(self, name):
        """What stands on a pod."""
        meta = self.server.objects[f"/api/v1/namespaces/ns/pods/{name}"]["metadata"]
        (one,) = decode_mig_allocations(meta["annotations"][names.POD_MIG_ALLOCATIONS])
        return one.mig_uuid

    def inside(self, name):
        """MiB of each card that a program of a pod sees."""
        done = subprocess.run(
            [self.fake / "cuprobe", "info"],
            env={**self.env, "CUDA_VISIBLE_DEVICES": self.uuid(name)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [card["total"] >> 20 for card in json.loads(done.stdout.splitlines()[0])["cards"]]

    def annotations(self):
        """Of the node."""
        return self.server.objects[self.node]["metadata"]["annotations"]

    def run(self, *arguments):
        """The manager; how it ended and what it said."""
        command = [sys.executable, "-m", "hami_mig_manager", "--once", *arguments]
        done = subprocess.run(
            command, env=self.env, capture_output=True, text=True, check=False, timeout=DEADLINE_S
        )
        return done.returncode, done.stderr

    def close(self):
        """No more requests."""
        self.server.closing.set()
        self.server.shutdown()
        self.thread.join(DEADLINE_S)
        self.server.server_close()


@pytest.fixture
def site(fake, tmp_path):
    """A node."""
    made = Site(fake, tmp_path)
    yield made
    made.close()


def test_killed_at_every_change_it_takes_up_where_it_was(site):
    """A pod in use keeps its instance, one made by hand stays, the others come and go."""
    site.tool("cut", site.card, "1g.5gb", "3")
    (by_hand,) = site.instances()
    site.bind("stays", "1g.5gb", 6, 1)
    assert site.run()[0] == 0
    stays = site.uuid("stays")
    for number, (symbol, mode) in enumerate(KILLS):
        site.tool("fail", symbol, "1", mode)
        making = number % 2 == 0
        if making:
            site.bind("goes", "2g.10gb", 0, 2)
        else:
            site.delete("goes")
        code, said = site.run()
        assert code == -9, f"{symbol} {mode}: {code} {said}"
        code, said = site.run()
        assert code == 0, f"{symbol} {mode}: {said}"
        expected = {by_hand, stays} | ({site.uuid("goes")} if making else set())
        assert site.instances() == expected, f"{symbol} {mode}: {said}"
        assert site.uuid("stays") == stays
        assert site.inside("stays") == [4864]
        assert not making or site.inside("goes") == [9984]
    assert site.server.posted == []
    entries = decode_journal(site.annotations()[names.NODE_MIG_JOURNAL])
    journalled = {entry.mig_uuid: entry.pod_uid for entry in entries}
    assert journalled.keys() == expected - {by_hand}
    assert journalled[stays] == "uid-stays"
    (blocked,) = decode_blocked(site.annotations()[names.NODE_MIG_BLOCKED])
    assert (blocked.reason, blocked.placement.start) == ("MadeByHand", 3)


def test_a_process_keeps_its_instance_when_its_pod_is_gone(site):
    """The kernel's truth counts, not the API server's."""
    site.bind("a", "1g.5gb", 6, 1)
    assert site.run()[0] == 0
    uuid = site.uuid("a")
    environment = {**site.env, "CUDA_VISIBLE_DEVICES": uuid}
    holder = subprocess.Popen(
        [site.fake / "cuprobe", "hold", "16", "forever"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline()
        site.delete("a")
        assert site.run()[0] == 0
        assert site.instances() == {uuid}
    finally:
        holder.kill()
        holder.communicate()
    assert site.run()[0] == 0
    assert site.instances() == set()


def test_an_api_server_that_is_cut_off_during_a_creation(site):
    """Before the journal, with its answer lost, before the record: it goes on with one instance."""
    site.tool("cut", site.card, "1g.5gb", "3")
    (by_hand,) = site.instances()
    site.bind("a", "1g.5gb", 6, 1)
    server = site.server
    server.cut = ("GET", "nodes")
    command = [sys.executable, "-m", "hami_mig_manager", "--metrics-bind-address", "127.0.0.1:0"]
    program = subprocess.Popen(command, env=site.env, stderr=subprocess.PIPE, text=True)
    try:
        for following, lost in (
            (("PATCH", "nodes"), False),
            (("PATCH", "nodes"), True),
            (("PATCH", "pods"), False),
            (None, False),
        ):
            assert server.cuts.acquire(timeout=DEADLINE_S), f"nobody has tried to {server.cut}"
            server.cut, server.lost = following, lost
        assert server.recorded.wait(DEADLINE_S), "the instance was never recorded on its pod"
        assert program.poll() is None
        assert site.instances() == {by_hand, site.uuid("a")}
        assert server.posted == []
    finally:
        program.terminate()
        said = program.communicate(timeout=DEADLINE_S)[1]
    assert "Traceback" not in said
    assert "nothing can be done" in said


def reboot(site, *then):
    """The driver comes up without instances; cards newer than an A100 forget their mode, too."""
    site.nvml("0", *DESTROY_ALL, *then)


def test_after_a_reboot_of_the_node_nothing_is_lost(site):
    """Pods have their instances again at their places; where MIG is off, too, they go elsewhere."""
    site.tool("cut", site.card, "1g.5gb", "3")
    site.bind("a", "1g.5gb", 6, 1)
    site.bind("b", "2g.10gb", 0, 2)
    assert site.run()[0] == 0
    reboot(site)
    assert site.run()[0] == 0
    assert site.instances() == {site.uuid("a"), site.uuid("b")}
    entries = decode_journal(site.annotations()[names.NODE_MIG_JOURNAL])
    assert {entry.mig_uuid for entry in entries} == site.instances()
    assert names.NODE_MIG_BLOCKED not in site.annotations()
    assert site.server.posted == []

    site.delete("b")
    reboot(site, "n.nvmlDeviceSetMigMode(h, 0)")
    code, said = site.run()
    assert code == 0, said
    posted = sorted(path.rsplit("/", 1)[1] for path in site.server.posted)
    assert posted == ["events", "eviction"]
    assert "Traceback" not in said


def test_a_card_changes_its_mode_for_a_pod_that_waits(site, tmp_path):
    """Step by step through the driver, with plugin and monitor letting go of it in between."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"nodeconfig": [{"name": "n", "operatingmode": "auto"}]}))
    waiting = pod(mode="hami-core", since="2026-11-24T01:00:00Z")
    path = "/api/v1/namespaces/ns/pods/waits"
    site.server.objects[path] = json.loads(msgspec.json.encode(waiting))
    noted = site.annotations()

    def announce(mode):
        cards = [{"id": site.card, "type": "NVIDIA-A100", "devmem": 40960, "mode": mode}]
        noted[names.NODE_REGISTER] = json.dumps(cards)

    def run():
        code, said = site.run(f"--node-config-file={config}")
        assert code == 0, said
        return site.annotations()

    announce("mig")
    noted = run()
    (chosen,) = decode_choices(noted[names.NODE_MIG_AUTO]).items()
    assert (chosen[0], chosen[1].mode, chosen[1].pod) == (site.card, "hami-core", "uid-p")
    assert noted[names.NODE_CORDON] == site.card
    assert [path.rsplit("/", 1)[1] for path in site.server.posted] == ["leases"]
    del site.server.objects[path]
    switch = json.loads(noted[names.NODE_MIG_SWITCH])
    noted[names.NODE_MIG_SWITCH] = json.dumps({**switch, "since": switch["since"] - 60})
    noted = run()
    token = json.loads(noted[names.NODE_MIG_PAUSE])["token"]
    noted |= {names.NODE_MIG_PAUSE_PLUGIN: token, names.NODE_MIG_PAUSE_MONITOR: token}
    noted = run()
    assert site.nvml("n.nvmlDeviceGetMigMode(h)") == [0, 0]
    announce("hami-core")
    noted = run()
    left = {names.NODE_MIG_SWITCH, names.NODE_MIG_PAUSE, names.NODE_CORDON}
    assert not left & noted.keys()
    assert names.NODE_MIG_AUTO in noted


def test_a_bad_configuration_is_one_line(site):
    """No traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "hami_mig_manager"],
        env={**site.env, "KUBECONFIG": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    complaint = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert (done.returncode, len(complaint)) == (2, 1)
    assert "no way to the Kubernetes API" in complaint[0]
