"""Memory that CUDA graphs allocate is charged when the driver takes it: by the card's ledger."""

import pytest

from hamikit.region import Kind

MIB = 1 << 20
OOM = 2
FORMS = ("", "_v2", "WithFlags", "WithParams", "WithParams_ptsz")


def graph_of(guest, *sizes: int, freed: bool = False) -> int:
    """A graph that allocates, each time before it frees again, if it does."""
    graph = guest.ask("graph")
    for size in sizes:
        result, pointer = guest.ask("graph_alloc", graph, size)
        assert result == 0
        if freed:
            assert guest.ask("graph_free", graph, pointer) == 0
    return graph


def executable_of(guest, *sizes: int, freed: bool = False, flags: int = 0) -> int:
    """The same, ready to be launched."""
    result, executable = guest.ask("instantiate", graph_of(guest, *sizes, freed=freed), flags)
    assert result == 0
    return executable


def exact(container, mib: int) -> bool:
    """The account, the card's ledger and the expected figure are one."""
    return container.used == container.data_bytes() == mib * MIB


@pytest.mark.parametrize("suffix", ["", "_ptsz"])
@pytest.mark.parametrize("form", FORMS)
def test_a_graph_is_charged_when_it_is_launched(container, form, suffix):
    """Nothing at instantiation, its memory at the first launch, and no more at the next."""
    guest = container.ready()
    graph = graph_of(guest, 300 * MIB, freed=True)
    result, executable = guest.ask("instantiate", graph, 0, form)
    assert result == 0
    assert exact(container, 0)
    for _ in range(3):
        assert guest.ask("launch", executable, suffix) == 0
        assert exact(container, 300)
    assert container.usage.processes[0].shares[0, Kind.GRAPH] == 300 * MIB


@pytest.mark.parametrize("suffix", ["", "_ptsz"])
@pytest.mark.parametrize("call", ["launch", "upload"])
def test_a_graph_that_does_not_fit_is_refused_and_takes_nothing(container, call, suffix):
    """Neither a launch nor an upload passes the limit; the refusal is counted."""
    guest = container.ready()
    assert guest.ask("alloc", 500 * MIB)[0] == 0
    executable = executable_of(guest, 502 * MIB)
    assert guest.ask(call, executable, suffix) == OOM
    assert exact(container, 500)
    assert container.usage.devices[0].refused == 1
    fitting = executable_of(guest, 500 * MIB)
    assert guest.ask(call, fitting, suffix) == 0
    assert exact(container, 1000)


@pytest.mark.parametrize("form", ["WithFlags", "WithParams"])
def test_an_upload_at_instantiation_is_held_to_the_limit(container, form):
    """With the upload flag the memory is taken at once, or the graph is not made."""
    upload = 2
    guest = container.ready()
    assert guest.ask("instantiate", graph_of(guest, 1002 * MIB), upload, form)[0] == OOM
    assert exact(container, 0)
    assert guest.ask("instantiate", graph_of(guest, 1000 * MIB), upload, form)[0] == 0
    assert exact(container, 1000)


def test_memory_that_nodes_share_counts_once(container):
    """Three times 400 MiB one after the other take 400 MiB: no false refusal."""
    guest = container.ready()
    executable = executable_of(guest, *[400 * MIB] * 3, freed=True)
    assert guest.ask("launch", executable) == 0
    assert exact(container, 400)


def test_idle_graph_memory_counts_until_it_is_trimmed(container):
    """The driver keeps a destroyed graph's memory for the process; a trim gives it back."""
    guest = container.ready()
    executable = executable_of(guest, 600 * MIB, freed=True)
    assert guest.ask("launch", executable) == 0
    assert guest.ask("exec_destroy", executable) == 0
    assert exact(container, 600)
    assert guest.ask("alloc", 600 * MIB)[0] == OOM
    second = executable_of(guest, 500 * MIB, freed=True)
    assert guest.ask("launch", second) == 0  # from the idle 600 MiB
    assert exact(container, 600)
    assert guest.ask("exec_destroy", second) == 0
    assert guest.ask("graph_trim") == 0
    assert exact(container, 0)


def test_a_trimmed_graph_takes_its_memory_again(container):
    """After a trim the next launch is held to the limit like the first."""
    guest = container.ready()
    executable = executable_of(guest, 600 * MIB, freed=True)
    assert guest.ask("launch", executable) == 0
    assert guest.ask("synchronize") == 0
    assert guest.ask("graph_trim") == 0
    assert exact(container, 0)
    pointer = guest.ask("alloc", 500 * MIB)[1]
    assert guest.ask("launch", executable) == OOM
    assert exact(container, 500)
    assert guest.ask("free", pointer) == 0
    assert guest.ask("launch", executable) == 0
    assert exact(container, 600)


def test_an_allocation_that_outlives_its_graph_stays_charged(container):
    """What a graph leaves is freed like any other memory, and given back by a trim."""
    guest = container.ready()
    graph = guest.ask("graph")
    pointer = guest.ask("graph_alloc", graph, 100 * MIB)[1]
    executable = guest.ask("instantiate", graph)[1]
    assert guest.ask("launch", executable) == 0
    assert guest.ask("exec_destroy", executable) == 0
    assert guest.ask("graph_trim") == 0
    assert exact(container, 100)
    assert guest.ask("free_async", pointer) == 0
    assert guest.ask("graph_trim") == 0
    assert exact(container, 0)


def test_a_child_graphs_memory_counts(container):
    """Nodes are found at any depth."""
    guest = container.ready()
    middle, outer = guest.ask("graph"), guest.ask("graph")
    assert guest.ask("graph_child", middle, graph_of(guest, 700 * MIB, freed=True)) == 0
    assert guest.ask("graph_child", outer, middle) == 0
    executable = guest.ask("instantiate", outer)[1]
    assert guest.ask("launch", executable) == 0
    assert exact(container, 700)
    assert guest.ask("alloc", 302 * MIB)[0] == OOM


@pytest.mark.parametrize("suffix", ["", "_ptsz"])
def test_allocations_in_a_captured_stream_become_nodes(container, suffix):
    """While a stream is captured nothing is charged or refused; the launch is."""
    guest = container.ready()
    stream = guest.ask("stream")
    assert guest.ask("alloc", 700 * MIB)[0] == 0
    assert guest.ask("capture", stream) == 0
    result, pointer = guest.ask("alloc_async", 400 * MIB, suffix, stream)
    assert result == 0
    assert guest.ask("free_async", pointer, suffix, stream) == 0
    result, graph = guest.ask("captured", stream)
    assert result == 0
    assert exact(container, 700)
    executable = guest.ask("instantiate", graph)[1]
    assert guest.ask("launch", executable) == OOM
    assert exact(container, 700)


def test_a_graph_without_memory_nodes_is_none_of_our_business(container):
    """It runs where not a byte is left, and in a capture it is a node like any other."""
    guest = container.ready()
    assert guest.ask("alloc", 1000 * MIB)[0] == 0
    executable = executable_of(guest)
    stream = guest.ask("stream")
    assert guest.ask("launch", executable) == 0
    assert guest.ask("capture", stream) == 0
    assert guest.ask("launch", executable, "", stream) == 0
    assert guest.ask("captured", stream)[0] == 0
    assert exact(container, 1000)


def test_a_launch_into_a_captured_stream_takes_nothing(container):
    """An upload there would break the capture."""
    guest = container.ready()
    executable = executable_of(guest, 300 * MIB, freed=True)
    stream = guest.ask("stream")
    assert guest.ask("capture", stream) == 0
    guest.ask("launch", executable, "", stream)
    assert exact(container, 0)


def test_a_device_that_was_not_granted_gives_graphs_nothing(container):
    """Whatever card a node names, and whichever is current."""
    guest = container.ready()
    graph = guest.ask("graph")
    assert guest.ask("graph_alloc", graph, 2 * MIB, 1)[0] == 0
    executable = guest.ask("instantiate", graph)[1]
    assert guest.ask("launch", executable) == OOM
    assert container.data_bytes(1) == 0


def test_a_killed_process_leaves_no_graph_memory(container):
    """Its neighbour gets all of it."""
    guest, neighbour = container.ready(), container.ready()
    assert guest.ask("launch", executable_of(guest, 900 * MIB)) == 0
    assert neighbour.ask("launch", executable_of(neighbour, 200 * MIB)) == OOM
    guest.kill()
    assert neighbour.ask("launch", executable_of(neighbour, 1000 * MIB)) == 0
    assert exact(container, 1000)


def test_the_end_of_the_primary_context_gives_graph_memory_back(container):
    """With the context goes all that its graphs held, and what its pools did."""
    guest = container.ready()
    assert guest.ask("launch", executable_of(guest, 200 * MIB)) == 0
    assert guest.ask("alloc_async", 100 * MIB)[0] == 0
    assert container.used == container.data_bytes() >= 300 * MIB
    assert guest.ask("release") == 0
    assert exact(container, 0)
