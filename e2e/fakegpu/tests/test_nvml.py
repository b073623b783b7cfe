"""What unmodified pynvml sees: cards, numbers, events."""

import json
import subprocess
import sys

NOT_SUPPORTED = 3
NOT_FOUND = 6
TIMEOUT = 10
GPU_IS_LOST = 15
INVALID_ARGUMENT = 2

FIRST = "n.nvmlDeviceGetHandleByIndex(0)"


def test_an_a100_node_says_what_its_cards_file_says(make_node):
    """Count, name, memory, capability, minor, PCI and driver come from the file."""
    node = make_node("a100.txt")
    assert node.nvml("n.nvmlDeviceGetCount()") == 4
    assert node.nvml(f"n.nvmlDeviceGetName({FIRST})") == "NVIDIA A100-SXM4-40GB"
    assert node.nvml(f"n.nvmlDeviceGetMemoryInfo({FIRST}).total") == 40960 << 20
    assert node.nvml(f"n.nvmlDeviceGetMemoryInfo({FIRST}, n.nvmlMemory_v2).free") == 40960 << 20
    assert node.nvml(f"n.nvmlDeviceGetCudaComputeCapability({FIRST})") == [8, 0]
    assert node.nvml("n.nvmlDeviceGetMinorNumber(n.nvmlDeviceGetHandleByIndex(3))") == 3
    assert node.nvml(f"n.nvmlDeviceGetPciInfo({FIRST}).busId") == "00000000:10:00.0"
    assert node.nvml("n.nvmlSystemGetDriverVersion()") == "550.90.07"
    assert node.nvml("n.nvmlSystemGetCudaDriverVersion_v2()") == 12040


def test_three_kinds_of_node_stand_side_by_side(make_node):
    """An A100, an H100 and a T4 node differ in model, memory and MIG."""
    a100, h100, t4 = (make_node(f"{name}.txt") for name in ("a100", "h100", "t4"))
    assert a100.nvml(f"n.nvmlDeviceGetMigMode({FIRST})") == [0, 0]
    assert h100.nvml(f"n.nvmlDeviceGetMemoryInfo({FIRST}).total") == 81559 << 20
    assert t4.nvml_error(f"n.nvmlDeviceGetMigMode({FIRST})") == NOT_SUPPORTED
    assert t4.nvml(f"n.nvmlDeviceGetMaxMigDeviceCount({FIRST})") == 0


def test_uuids_are_stable_and_differ_between_nodes_and_cards(make_node):
    """The same seed gives the same UUIDs again, another seed shares none of them."""
    ask = "[n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByIndex(i)) for i in range(4)]"
    first = make_node("a100.txt", seed="one").nvml(ask)
    again = make_node("a100.txt", seed="one").nvml(ask)
    other = make_node("a100.txt", seed="two").nvml(ask)
    assert first == again
    assert len(set(first + other)) == 8
    assert all(len(uuid) == 40 and uuid.startswith("GPU-") for uuid in first)


def test_cards_are_found_by_uuid_and_by_bus_id(node):
    """All three ways to a handle lead to the same card; unknown names are not found."""
    by_uuid = "n.nvmlDeviceGetHandleByUUID(n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByIndex(1)))"
    by_bus = "n.nvmlDeviceGetHandleByPciBusId('0000:18:00.0')"
    assert node.nvml(f"n.nvmlDeviceGetIndex({by_uuid})") == 1
    assert node.nvml(f"n.nvmlDeviceGetIndex({by_bus})") == 1
    assert node.nvml_error("n.nvmlDeviceGetHandleByUUID('GPU-nobody')") == NOT_FOUND
    assert node.nvml_error("n.nvmlDeviceGetHandleByIndex(2)") == INVALID_ARGUMENT


def test_cuda_and_nvml_name_the_same_cards(node):
    """Both cuDeviceGetUuid and nvmlDeviceGetUUID agree."""
    nvml = node.nvml(f"n.nvmlDeviceGetUUID({FIRST})")
    assert node.guest().ask("uuid") == [0, nvml.removeprefix("GPU-").replace("-", "")]


def test_topology_and_nvlink_follow_the_cards_file(make_node):
    """Cards of one NUMA node meet at the host bridge; NVLinks lead to every other card."""
    node = make_node("a100.txt")
    near = "n.nvmlDeviceGetTopologyCommonAncestor({}, n.nvmlDeviceGetHandleByIndex({}))"
    assert node.nvml(near.format(FIRST, 1)) == 30
    assert node.nvml(near.format(FIRST, 2)) == 50
    remote = f"[n.nvmlDeviceGetNvLinkRemotePciInfo({FIRST}, i).busId for i in (0, 4, 8)]"
    assert node.nvml(remote) == ["00000000:18:00.0", "00000000:20:00.0", "00000000:28:00.0"]
    assert node.nvml_error(f"n.nvmlDeviceGetNvLinkState({FIRST}, 12)") == INVALID_ARGUMENT


def test_a_node_without_nvlink_says_so(node):
    """A card without links does not support the question."""
    assert node.nvml_error(f"n.nvmlDeviceGetNvLinkState({FIRST}, 0)") == NOT_SUPPORTED


WAITER = """
import json, sys, pynvml as n
n.nvmlInit()
events = n.nvmlEventSetCreate()
for i in range(n.nvmlDeviceGetCount()):
    card = n.nvmlDeviceGetHandleByIndex(i)
    n.nvmlDeviceRegisterEvents(card, n.nvmlEventTypeXidCriticalError, events)
print("ready", flush=True)
for line in sys.stdin:
    try:
        e = n.nvmlEventSetWait_v2(events, int(line))
        print(json.dumps([n.nvmlDeviceGetUUID(e.device), e.eventType, e.eventData]), flush=True)
    except n.NVMLError as error:
        print(json.dumps(error.value), flush=True)
"""


class Waiter:
    """A process with an event set on all cards."""

    def __init__(self, node):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WAITER],
            env=node.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def start(self, timeout_ms):
        print(timeout_ms, file=self.process.stdin, flush=True)

    def answer(self):
        return json.loads(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def test_an_xid_wakes_every_waiter(node):
    """Two processes that wait each get the XID, with the card and the number."""
    uuid = node.ledger()[1]["uuid"]
    with Waiter(node) as first, Waiter(node) as second:
        first.start(60000)
        second.start(60000)
        node.cli("xid", "1", "48")
        assert first.answer() == [uuid, 8, 48]
        assert second.answer() == [uuid, 8, 48]


def test_events_wait_in_the_set_until_they_are_fetched(node):
    """Events sent between two waits are delivered in order; then the wait times out."""
    with Waiter(node) as waiter:
        node.cli("xid", "0", "13")
        node.cli("xid", "0", "79")
        got = []
        for timeout in (60000, 60000, 1):
            waiter.start(timeout)
            got.append(waiter.answer())
        assert [got[0][2], got[1][2], got[2]] == [13, 79, TIMEOUT]


def test_events_of_before_the_registration_are_not_delivered(node):
    """An event set starts at the present."""
    node.cli("xid", "0", "48")
    with Waiter(node) as waiter:
        waiter.start(1)
        assert waiter.answer() == TIMEOUT


def test_an_error_of_the_card_asks_for_a_reset_until_it_is_restored(node):
    """NVML's recovery action; a program's error asks for none, a memory error does."""
    asked = f"n.nvmlDeviceGetFieldValues({FIRST}, [230])[0]"
    node.cli("xid", "0", "31")
    assert node.nvml(f"({asked}.nvmlReturn, {asked}.value.uiVal)") == [0, 0]
    for fault in (("xid", "0", "48"), ("ecc", "0")):
        node.cli(*fault)
        assert node.nvml(f"{asked}.value.uiVal") == 1
        node.cli("restore", "0")
        assert node.nvml(f"{asked}.value.uiVal") == 0
    assert node.nvml(f"n.nvmlDeviceGetFieldValues({FIRST}, [83])[0].nvmlReturn") == 3


def test_a_lost_card_answers_gpu_is_lost_until_it_is_restored(node):
    """`lose` makes NVML and CUDA fail on that card alone, `restore` brings it back."""
    guest = node.guest()
    node.cli("lose", "0")
    assert node.nvml_error(f"n.nvmlDeviceGetMemoryInfo({FIRST})") == GPU_IS_LOST
    assert node.nvml("n.nvmlDeviceGetIndex(n.nvmlDeviceGetHandleByIndex(1))") == 1
    assert guest.ask("alloc", 512)[0] == 999
    node.cli("restore", node.ledger()[0]["uuid"])
    assert node.nvml(f"n.nvmlDeviceGetMemoryInfo({FIRST}).total") == 64 << 20
    assert guest.ask("alloc", 512)[0] == 0


def test_a_reader_never_opens_the_state_for_writing(node):
    """NVML holds the file read-only, so a read-only mount is enough for a daemon."""
    modes = (
        "[open(f'/proc/self/fdinfo/{fd}').read().split()[3]"
        " for fd in os.listdir('/proc/self/fd')"
        f" if os.path.realpath(f'/proc/self/fd/{{fd}}') == {str(node.state)!r}]"
    )
    (flags,) = node.nvml(f"(lambda os: {modes})(__import__('os'))")
    assert int(flags, 8) & 0o3 == 0


def test_nvidia_smi_lists_cards_and_processes(node):
    """-L, the query and the overview agree with the ledger."""
    guest = node.guest()
    guest.ask("alloc", 6 << 20)
    cards = node.ledger()
    lines = [f"GPU {c['index']}: Small (UUID: {c['uuid']})" for c in cards]
    assert node.smi("-L").splitlines() == lines
    query = "--query-gpu=uuid,name,memory.total,memory.used,index"
    rows = node.smi(query, "--format=csv,noheader,nounits").splitlines()
    assert rows == [f"{cards[0]['uuid']}, Small, 64, 10, 0", f"{cards[1]['uuid']}, Small, 64, 0, 1"]
    overview = node.smi().splitlines()
    assert len({len(line) for line in overview}) == 1
    assert any(str(guest.pid) in line and "10MiB" in line for line in overview)


def test_nvidia_smi_refuses_an_unknown_field(node):
    """A misspelt field is an error, not an empty column."""
    assert node.smi("--query-gpu=memry", "--format=csv,noheader") == ""
