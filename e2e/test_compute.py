"""Two pods share the time of one card as they were granted it, or one waits for the other."""

import json
import subprocess

import pytest

from e2e.cards import STATE_IN_ROOT, build_folder
from e2e.kube import wait_until
from e2e.lab import config as lab_config
from e2e.pods import container, pod, slice_of

pytestmark = pytest.mark.cluster
NODE = "hami-worker"
WINDOW_MS = 4000


def busy_percent(uuid):
    """What each process took of a card's time over a while, by the card's own ledger."""
    state = lab_config.load().state / "nodes" / NODE / "driver" / STATE_IN_ROOT
    command = [build_folder() / "fakegpu", "busy", "--state", state, uuid, str(WINDOW_MS), "2"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    before, after = (json.loads(line) for line in answer.splitlines())
    passed = after["at_ns"] - before["at_ns"]
    return sorted(
        100 * (busy - before["processes"].get(pid, 0)) / passed
        for pid, busy in after["processes"].items()
    )


def spinning(name, namespace, card, limits, at_once=1):
    """A pod that launches on this card as fast as it may, and waits for every so many."""
    work = container("c", limits, command=f"exec cuprobe spin 600 {at_once}")
    return pod(name, namespace, work, annotations={"nvidia.com/use-gpuuuid": card})


def test_a_low_priority_waits_while_a_high_one_computes(kube, namespace, cards):
    """The monitor says so in the control file; it computes again when the other has gone."""
    card = cards[NODE][3]["id"]
    for name, priority in (("high", "0"), ("low", "1")):
        asked = {**slice_of(memory=1000), "nvidia.com/priority": priority}
        kube.create(spinning(name, namespace, card, asked))
    kube.wait_running(namespace, "high", "low")

    def shared():
        shares = busy_percent(card)
        alone = len(shares) == 2 and shares[0] < 1 and shares[1] > 50
        return None if alone else f"busy shares {shares}: the low one is to have nothing"

    wait_until(shared, 60)
    kube.kubectl("delete", "pod", "high", "-n", namespace, "--now")

    def waiting():
        shares = busy_percent(card)
        return None if shares and shares[0] > 50 else f"busy shares {shares}: it still waits"

    wait_until(waiting, 60)


def test_thirty_and_seventy_percent_of_one_card(kube, namespace, cards):
    """Both launch as fast as they may; neither ever has more, and soon each has its own."""
    card = cards[NODE][3]["id"]
    for name, cores in (("small", 30), ("large", 70)):
        kube.create(spinning(name, namespace, card, slice_of(memory=1000, cores=cores), 1000))
    kube.wait_running(namespace, "small", "large")

    def uneven():
        shares = busy_percent(card)
        assert all(share < 75 for share in shares), shares
        near = len(shares) == 2 and abs(shares[0] - 30) <= 5 and abs(shares[1] - 70) <= 5
        return None if near else f"busy shares {shares}"

    wait_until(uneven, 120)
