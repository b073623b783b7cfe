"""Cards that can be cut into MIG instances, as unmodified pynvml finds them."""

import pytest

from e2e.fakegpu.tests.mig import ask, holder

INVALID_ARGUMENT, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND = 2, 3, 4, 6
RESET_REQUIRED, IN_USE, INSUFFICIENT_RESOURCES = 16, 19, 23

EIGHTHS = {
    0: ([0, 1, 2, 3, 4, 5, 6], 1),
    7: ([0, 1, 2, 3, 4, 5, 6], 1),
    9: ([0, 2, 4, 6], 2),
    1: ([0, 2, 4], 2),
    2: ([0, 4], 4),
    3: ([0], 4),
    4: ([0], 8),
}
QUARTERS = {0: ([0, 1, 2, 3], 1), 1: ([0, 2], 2), 3: ([0], 4)}

# File, profile number -> (name, id, slices, multiprocessors, MiB, most): NVIDIA's MIG user guide.
KINDS = {
    "a30.txt": {
        0: ("1g.6gb", 14, 1, 14, 5952, 4),
        1: ("2g.12gb", 5, 2, 28, 11968, 2),
        3: ("4g.24gb", 0, 4, 56, 24000, 1),
    },
    "a100.txt": {
        0: ("1g.5gb", 19, 1, 14, 4864, 7),
        7: ("1g.5gb+me", 20, 1, 14, 4864, 1),
        9: ("1g.10gb", 15, 1, 14, 9984, 4),
        1: ("2g.10gb", 14, 2, 28, 9984, 3),
        2: ("3g.20gb", 9, 3, 42, 20096, 2),
        3: ("4g.20gb", 5, 4, 56, 20096, 1),
        4: ("7g.40gb", 0, 7, 98, 40448, 1),
    },
    "a100-80.txt": {
        0: ("1g.10gb", 19, 1, 14, 9728, 7),
        1: ("2g.20gb", 14, 2, 28, 19968, 3),
        2: ("3g.40gb", 9, 3, 42, 40192, 2),
        4: ("7g.80gb", 0, 7, 98, 80640, 1),
    },
    "h100.txt": {
        0: ("1g.10gb", 19, 1, 16, 9984, 7),
        9: ("1g.20gb", 15, 1, 26, 20096, 4),
        2: ("3g.40gb", 9, 3, 60, 40448, 2),
        4: ("7g.80gb", 0, 7, 132, 81152, 1),
    },
    "h200.txt": {0: ("1g.18gb", 19, 1, 16, 16384, 7), 4: ("7g.141gb", 0, 7, 132, 143360, 1)},
    "b200.txt": {0: ("1g.23gb", 19, 1, 18, 22016, 7), 2: ("3g.90gb", 9, 3, 70, 89600, 2)},
    "rtx-pro-6000.txt": {
        0: ("1g.24gb", 14, 1, 46, 24192, 4),
        1: ("2g.48gb", 5, 2, 94, 48512, 2),
        3: ("4g.96gb", 0, 4, 188, 97280, 1),
    },
}


@pytest.fixture
def a100(make_node):
    """A node of A100 with MIG on, on its first card."""
    node = make_node("a100.txt")
    assert ask(node, "on()") == 0
    return node


@pytest.mark.parametrize("cards", KINDS)
def test_every_card_offers_its_real_profiles_and_places(make_node, cards):
    """Names, ids, sizes and placement tables are those that NVIDIA documents."""
    node = make_node(cards)
    numbers = sorted(KINDS[cards])
    found = ask(
        node,
        "on()",
        f"infos = [profile(number) for number in {numbers}]",
        "[[i.name, i.id, i.sliceCount, i.multiprocessorCount, i.memorySizeMB,"
        " i.instanceCount, places(i.id)] for i in infos]",
    )
    tables = EIGHTHS if "7g" in str(KINDS[cards]) or cards == "b200.txt" else QUARTERS
    for number, row in zip(numbers, found, strict=True):
        name, *rest = KINDS[cards][number]
        starts, size = tables[number]
        assert row == [f"MIG {name}", *rest, [[start, size] for start in starts]]


def test_profiles_are_told_while_mig_is_on_and_places_always(make_node):
    """As the real library: what cannot be made is not told of, the table is."""
    node = make_node("a100.txt")
    assert ask(node, "error(profile, 0)") == NOT_SUPPORTED
    assert ask(node, "len(places(19))") == 7
    assert ask(node, "error(cut, 19)") == NOT_SUPPORTED
    assert ask(node, "n.nvmlDeviceGetMaxMigDeviceCount(card())") == 0
    assert ask(node, "on()", "n.nvmlDeviceGetMaxMigDeviceCount(card())") == 7


def test_a_card_without_mig_knows_none_of_it(make_node):
    """A T4 does not support the mode, nor the questions about it."""
    node = make_node("t4.txt")
    assert ask(node, "error(on)") == NOT_SUPPORTED
    assert ask(node, "error(places, 19)") == NOT_SUPPORTED
    first = "error(n.nvmlDeviceGetMigDeviceHandleByIndex, card(), 0)"
    assert ask(node, first) == NOT_SUPPORTED


def test_a_mode_waits_until_nobody_has_the_card_open(make_node):
    """On an A100 another NVML client keeps it pending; asked for again it comes into force."""
    node = make_node("a100.txt")
    mode = "n.nvmlDeviceGetMigMode(card())"
    with holder(node) as other:
        assert ask(node, "on()") == IN_USE
        assert ask(node, mode) == [0, 1]
        other.communicate("\n")
    assert ask(node, mode) == [0, 1]
    assert ask(node, "on()") == 0
    assert ask(node, mode) == [1, 1]


def test_a_client_that_died_or_shut_nvml_down_is_none(make_node):
    """The kernel forgets a killed client; nvmlShutdown lets go too."""
    node = make_node("a100.txt")
    with holder(node) as other:
        other.kill()
    assert ask(node, "n.nvmlShutdown(); n.nvmlInit()", "on()") == 0


def test_a_hopper_card_switches_beside_other_clients(make_node):
    """Its card file says that the mode needs no reset."""
    node = make_node("h100.txt")
    with holder(node) as other:
        assert ask(node, "on()") == 0
        other.communicate("\n")


def test_a_pending_mode_comes_into_force_by_a_reset(make_node):
    """A machine that cannot reset its cards itself says so; the reset does the rest."""
    text = (make_node("a100.txt").build.parent / "cards/a100.txt").read_text()
    node = make_node(text.replace("when-idle", "reset"))
    assert ask(node, "on()") == RESET_REQUIRED
    assert ask(node, "error(cut, 19)") == NOT_SUPPORTED
    node.cli("reset", "0")
    assert ask(node, "n.nvmlDeviceGetMigMode(card())") == [1, 1]


def test_a_reset_takes_all_instances_away(a100):
    """And no card is reset that somebody has open."""
    ask(a100, "device(19)")
    with holder(a100) as other:
        with pytest.raises(Exception, match="returned non-zero"):
            a100.cli("reset", "0")
        other.communicate("\n")
    a100.cli("reset", "0")
    assert ask(a100, "[instances(), n.nvmlDeviceGetMigMode(card())]") == [[], [1, 1]]


def test_mig_cannot_be_turned_off_under_instances(a100):
    """The wish is taken down, and in force once they are gone."""
    ask(a100, "device(19, 0)")
    assert ask(a100, "off()") == IN_USE
    assert ask(a100, "n.nvmlDeviceGetMigMode(card())") == [1, 0]
    gone = "n.nvmlComputeInstanceDestroy(ci(7)); n.nvmlGpuInstanceDestroy(by_id(7))"
    assert ask(a100, gone, "off()") == 0
    assert ask(a100, "n.nvmlDeviceGetMigMode(card())") == [0, 0]


def test_instances_are_told_as_they_were_made(a100):
    """Id, profile, place; the same to every later process."""
    ask(a100, "cut(9, 4, 4); cut(14, 0, 2); cut(19, 2); cut(19, 3)", "0")
    assert ask(a100, "instances()") == [[2, 9, 4, 4], [3, 14, 0, 2], [9, 19, 2, 1], [10, 19, 3, 1]]
    assert ask(a100, "error(by_id, 7)") == NOT_FOUND


def test_what_overlaps_is_refused(a100):
    """A free card and a possible place are both needed; a stranger's place is no place at all."""
    ask(a100, "cut(9, 0, 4)", "0")
    assert ask(a100, "error(cut, 19, 3)") == INSUFFICIENT_RESOURCES
    assert ask(a100, "error(cut, 5, 0, 4)") == INSUFFICIENT_RESOURCES
    assert ask(a100, "error(cut, 0)") == INSUFFICIENT_RESOURCES
    assert ask(a100, "error(cut, 9, 1, 4)") == INVALID_ARGUMENT
    assert ask(a100, "error(cut, 9, 4, 2)") == INVALID_ARGUMENT
    assert ask(a100, "error(cut, 77)") == INVALID_ARGUMENT
    assert ask(a100, "[error(cut, 19, i) for i in (4, 5, 6)]") == [0, 0, 0]


def test_a_profile_ends_at_its_number(a100):
    """Only one instance of a card has the media engines."""
    assert ask(a100, "[error(cut, 20, 0), error(cut, 20, 1)]") == [0, INSUFFICIENT_RESOURCES]


def test_the_remaining_capacity_follows(a100):
    """What can still be made, of each profile."""
    capacity = "[n.nvmlDeviceGetGpuInstanceRemainingCapacity(card(), i) for i in (19, 14, 9, 0)]"
    assert ask(a100, capacity) == [7, 3, 2, 1]
    assert ask(a100, "cut(14, 2, 2)", capacity) == [5, 2, 1, 0]


def test_a_driver_that_may_choose_fills_the_card(a100):
    """Seven times the smallest, without a place asked for."""
    ids = "sorted(n.nvmlGpuInstanceGetInfo(cut(19)).id for _ in range(7))"
    assert ask(a100, ids) == [7, 8, 9, 10, 11, 12, 13]
    assert ask(a100, "error(cut, 19)") == INSUFFICIENT_RESOURCES


def test_a_gpu_instance_is_a_device_once_it_has_a_compute_instance(a100):
    """Handle, ids, UUID, name, memory and share of the multiprocessors."""
    assert ask(a100, "cut(14, 2, 2)", "len(migs())") == 0
    ask(a100, "compute(by_id(4), 1)", "0")
    told = ask(
        a100,
        "(mig,) = migs()",
        "attributes = n.nvmlDeviceGetAttributes(mig)",
        "parent = n.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig)",
        "[n.nvmlDeviceIsMigDeviceHandle(mig).value, n.nvmlDeviceGetGpuInstanceId(mig),"
        " n.nvmlDeviceGetComputeInstanceId(mig), n.nvmlDeviceGetName(mig),"
        " n.nvmlDeviceGetMemoryInfo(mig).total >> 20, n.nvmlDeviceGetUUID(parent),"
        " attributes.multiprocessorCount, attributes.memorySizeMB,"
        " attributes.gpuInstanceSliceCount, n.nvmlDeviceGetIndex(mig)]",
    )
    name, uuid = "NVIDIA A100-SXM4-40GB MIG 2g.10gb", a100.ledger()[0]["uuid"]
    assert told == [1, 4, 0, name, 9984, uuid, 28, 9984, 2, 0]


def test_a_mig_device_is_found_by_its_uuid(a100):
    """UUIDs differ, follow from the place, and lead back to the instance."""
    uuids = "[n.nvmlDeviceGetUUID(m) for m in migs()]"
    first = ask(a100, "device(19, 0); device(19, 1)", uuids)
    assert len(set(first)) == 2
    assert all(uuid.startswith("MIG-") and len(uuid) == 40 for uuid in first)
    back = f"n.nvmlDeviceGetGpuInstanceId(n.nvmlDeviceGetHandleByUUID({first[1]!r}))"
    assert ask(a100, back) == 8
    gone = "n.nvmlComputeInstanceDestroy(ci(7)); n.nvmlGpuInstanceDestroy(by_id(7))"
    assert ask(a100, gone, uuids) == first[1:]
    assert ask(a100, f"error(n.nvmlDeviceGetHandleByUUID, {first[0]!r})") == NOT_FOUND
    assert ask(a100, "device(19, 0)", uuids) == first


def test_a_gpu_instance_can_be_shared_by_compute_instances(a100):
    """Three of one slice in a 3g; then it is full; each is a device, and holds the instance up."""
    ask(a100, "cut(9, 0, 4)", "0")
    info = "n.nvmlGpuInstanceGetComputeInstanceProfileInfo(by_id(1), 0, 0)"
    assert ask(a100, f"{info}.name") == "MIG 1c.3g.20gb"
    assert ask(a100, f"[{info}.instanceCount, {info}.multiprocessorCount]") == [3, 14]
    room = "n.nvmlGpuInstanceGetComputeInstanceRemainingCapacity(by_id(1), 0)"
    assert ask(a100, "compute(by_id(1))", room) == 2
    assert ask(a100, "[error(compute, by_id(1)) for _ in range(3)]") == [0, 0, 23]
    told = "[[i.id, i.profileId, i.placement.start] for i in infos]"
    infos = "infos = [n.nvmlComputeInstanceGetInfo(ci(1, i)) for i in range(3)]"
    assert ask(a100, infos, told) == [[0, 0, 0], [1, 0, 1], [2, 0, 2]]
    assert ask(a100, "error(n.nvmlGpuInstanceDestroy, by_id(1))") == IN_USE
    assert ask(a100, "len(migs())") == 3


def test_stale_handles_name_nothing(a100):
    """Not even where another instance has taken the place."""
    stale = ask(
        a100,
        "gi = cut(19, 0)",
        "made = compute(gi)",
        "mig = migs()[0]",
        "n.nvmlComputeInstanceDestroy(made)",
        "n.nvmlGpuInstanceDestroy(gi)",
        "old = n.c_nvmlGpuInstance_t.from_buffer_copy(gi)",
        "[error(n.nvmlGpuInstanceGetInfo, old), error(n.nvmlComputeInstanceDestroy, made),"
        " error(n.nvmlDeviceGetUUID, mig), error(n.nvmlGpuInstanceDestroy, old)]",
    )
    assert stale == [INVALID_ARGUMENT] * 4


def test_cards_are_cut_each_for_itself(a100):
    """The second card is off and empty while the first is full."""
    ask(a100, "[device(19) for _ in range(7)]")
    assert ask(a100, "n.nvmlDeviceGetMigMode(card(1))") == [0, 0]
    assert ask(a100, "on(1)", "cut(19, 0, 1, 1)", "instances(1)") == [[7, 19, 0, 1]]


def test_who_may_not_write_has_no_permission(a100, monkeypatch):
    """A daemon with a read-only driver root, and a container without the capability's node."""
    dev = a100.state.parent / "dev"
    (dev / "nvidia-caps").mkdir(parents=True)
    for name in ("nvidiactl", "nvidia0"):
        (dev / name).touch()
    monkeypatch.setattr(a100, "dev", str(dev))
    assert ask(a100, "[error(on), error(cut, 19)]") == [NO_PERMISSION, NO_PERMISSION]
    (dev / "nvidia-caps/nvidia-cap1").touch()
    assert ask(a100, "[error(on), error(cut, 19)]") == [0, 0]


def test_a_container_sees_the_instances_whose_nodes_it_has(a100, monkeypatch):
    """One capability for the GPU instance and one for the compute instance."""
    ask(a100, "device(19, 0); device(19, 1)", "0")
    dev = a100.state.parent / "dev"
    (dev / "nvidia-caps").mkdir(parents=True)
    for name in ("nvidiactl", "nvidia0", "nvidia-caps/nvidia-cap75"):
        (dev / name).touch()
    monkeypatch.setattr(a100, "dev", str(dev))
    assert ask(a100, "len(migs())") == 0
    (dev / "nvidia-caps/nvidia-cap76").touch()
    assert ask(a100, "[n.nvmlDeviceGetGpuInstanceId(m) for m in migs()]") == [8]


def test_an_administrator_switches_by_hand(make_node):
    """`fakegpu mig CARD on`, which fails while somebody has the card open."""
    node = make_node("a100.txt")
    with holder(node) as other:
        with pytest.raises(Exception, match="returned non-zero"):
            node.cli("mig", "1", "on")
        other.communicate("\n")
    node.cli("mig", "1", "on")
    mode = "n.nvmlDeviceGetMigMode(card({}))"
    assert [ask(node, mode.format(i)) for i in (0, 1)] == [[0, 0], [1, 1]]
    node.cli("mig", "1", "off")
    assert ask(node, mode.format(1)) == [0, 0]


def test_nvidia_smi_lists_instances_under_their_card(a100):
    """As `nvidia-smi -L` does."""
    uuid = a100.cli("cut", "0", "1g.5gb", "3").strip()
    assert ask(a100, "[n.nvmlDeviceGetUUID(m) for m in migs()]") == [uuid]
    lines = a100.smi("-L").splitlines()
    assert lines[1] == f"  MIG 1g.5gb      Device  0: (UUID: {uuid})"
    assert a100.ledger()[0]["mig"]["instances"][0]["devices"] == [{"id": 0, "uuid": uuid}]
