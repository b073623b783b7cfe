"""A cluster of its own is killed at any step; `down` leaves nothing, `up` brings it back."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.lab import config, host
from e2e.lab.owned import owned

CLUSTER = "killed"
LAB = (sys.executable, "-m", "e2e.lab")
WATCHED = ("/run", "/etc", "/lib", "/var/lib", "/dev")
SHARED = "/dev/shm"
STEP_S = 300
ROUNDS = int(os.environ.get("KILL_ROUNDS", "1"))
UP_S = 60

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(STEP_S * (1 + ROUNDS))]


@pytest.fixture
def lab():
    """The second cluster's configuration; nothing is left of it afterwards."""
    found = config.load({**os.environ, "HAMI_LAB_CLUSTER": CLUSTER})
    yield found
    run("down")


def start(verb):
    """Starts a verb of the lab on the second cluster, in a session of its own."""
    environment = {**os.environ, "HAMI_LAB_CLUSTER": CLUSTER}
    # A shell that was told about the first cluster must not lead us to its Docker.
    environment.pop("DOCKER_HOST", None)
    return subprocess.Popen(
        [*LAB, verb],
        cwd=config.CHECKOUT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(verb):
    """Runs a verb to its end; what it printed."""
    process = start(verb)
    output, _ = process.communicate(timeout=STEP_S)
    assert process.returncode == 0, output
    return output


def machine():
    """What the machine has that a cluster could leave behind."""
    firewall = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True)
    files = {
        os.path.join(folder, name)
        for top in WATCHED
        for folder, folders, names in os.walk(top)
        # Other programs of the machine work there; the lab does not.
        if not folder.startswith(SHARED)
        for name in (*folders, *names)
    }
    return {
        "links": sorted(os.listdir("/sys/class/net")),
        "rules of ours": host.deletions(firewall.stdout, host.comment(CLUSTER)),
        "cgroups of ours": [str(p) for p in host.CGROUPS.glob(f"**/{host.cgroup(CLUSTER)}")],
        "files": files,
        "mounts": sorted(line.split()[4] for line in Path("/proc/self/mountinfo").open()),
        "forwarding": host.FORWARD.read_text(),
    }


def new_things(before, after):
    """What is there after that was not before; programs beside us may remove things."""
    found = {name: after[name] for name in after if after[name] != before[name]}
    found["files"] = sorted(after["files"] - before["files"])
    return {name: value for name, value in found.items() if value}


def daemon(lab):
    """The ids of the second cluster's dockerd."""
    for pid in owned(lab.state):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if words[0] == b"dockerd":
            yield pid


def kill_docker(lab):
    """Ends the second cluster's Docker without warning."""
    victims = list(daemon(lab))
    assert victims
    for pid in victims:
        os.kill(pid, signal.SIGKILL)


def check_gone(lab, before):
    """Nothing is left of the second cluster."""
    assert not lab.state.exists()
    assert list(owned(lab.state)) == []
    assert new_things(before, machine()) == {}


def test_killed_docker(lab):
    """With dockerd killed, `up` makes the cluster anew and `down` leaves nothing."""
    before = machine()
    run("up")
    kill_docker(lab)
    run("up")
    assert run("up").splitlines() == [f"cluster killed is up: {lab.kubeconfig}"]
    kill_docker(lab)
    run("down")
    check_gone(lab, before)


@pytest.mark.parametrize("seed", [int(os.environ.get("KILL_SEED") or random.randrange(10**6))])
def test_killed_up(lab, seed):
    """`up` killed at a random moment: `down` leaves nothing behind, and so does a second kill."""
    print(f"KILL_SEED={seed}")
    before = machine()
    chance = random.Random(seed)
    for _ in range(ROUNDS):
        process = start("up")
        try:
            process.communicate(timeout=chance.uniform(0, UP_S / 2))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        killed = start("down")
        try:
            killed.communicate(timeout=chance.uniform(0, 2))
        except subprocess.TimeoutExpired:
            killed.kill()
            killed.communicate()
        run("down")
        check_gone(lab, before)
