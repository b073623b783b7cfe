"""Memory that several processes see is paid for once, by who allocated it."""

import pytest

MIB = 1 << 20
OOM = 2
HOST, HOST_NUMA, DEVICE_PART = 2, 3, 6


def exact(container, mib: int) -> bool:
    """The account, the card's ledger and the expected figure are one."""
    return container.used == container.data_bytes() == mib * MIB


@pytest.mark.parametrize("suffix", ["", "_v2"])
def test_opening_an_ipc_handle_costs_nothing(container, suffix):
    """As NCCL does: one process allocates, its neighbour opens and closes."""
    owner, neighbour = container.ready(), container.ready()
    pointer = owner.ask("alloc", 800 * MIB)[1]
    result, handle = owner.ask("ipc_handle", pointer)
    assert result == 0
    result, opened = neighbour.ask("ipc_open", handle, suffix)
    assert result == 0
    assert exact(container, 800)
    assert neighbour.ask("alloc", 201 * MIB)[0] == OOM
    assert neighbour.ask("ipc_close", opened) == 0
    assert exact(container, 800)
    assert owner.ask("free", pointer) == 0
    assert exact(container, 0)


def test_importing_a_physical_allocation_costs_nothing(container, tmp_path):
    """A descriptor goes to a neighbour, who maps it: the exporter alone has paid."""
    owner, neighbour = container.ready(), container.ready()
    size = 600 * MIB
    path = str(tmp_path / "socket")
    neighbour.ask("listen", path)
    handle = owner.ask("create", size)[1]
    assert owner.ask("export", handle, path) == 0
    result, imported = neighbour.ask("imported")
    assert result == 0
    address = neighbour.ask("reserve", size)[1]
    assert neighbour.ask("map", address, size, imported) == 0
    assert exact(container, 600)
    assert neighbour.ask("unmap", address, size) == 0
    assert neighbour.ask("release_handle", imported) == 0
    assert exact(container, 600)
    assert owner.ask("release_handle", handle) == 0
    assert exact(container, 0)


def test_external_memory_costs_nothing(container):
    """Who made it pays; freeing what was mapped, and ending it, moves no account."""
    guest = container.ready()
    assert guest.ask("alloc", 1000 * MIB)[0] == 0
    result, pointer, external = guest.ask("external", 500 * MIB)
    assert result == 0
    assert exact(container, 1000)
    assert guest.ask("free", pointer) == 0
    assert guest.ask("external_end", external) == 0
    assert exact(container, 1000)


@pytest.mark.parametrize("location", [HOST, HOST_NUMA])
@pytest.mark.parametrize("driver", ["12.4", "13.0"])
def test_memory_of_the_host_is_not_charged(container, driver, location):
    """Physical memory and pools of the host pass where the card's limit is used up."""
    container.use_driver(driver)
    guest = container.ready()
    assert guest.ask("alloc", 1000 * MIB)[0] == 0
    assert guest.ask("create", 500 * MIB, 0, location)[0] == 0
    result, pool = guest.ask("pool", 0, location)
    assert result == 0
    result, pointer = guest.ask("alloc_from", pool, 500 * MIB)
    assert result == 0
    assert exact(container, 1000)
    assert guest.ask("free_async", pointer) == 0
    assert guest.ask("pool_destroy", pool) == 0
    assert exact(container, 1000)


def test_a_part_of_a_device_is_charged_to_the_device(container):
    """CUDA 13.5 can name a locality domain: that is this card's memory too."""
    guest = container.ready()
    assert guest.ask("create", 1002 * MIB, 0x100, DEVICE_PART)[0] == OOM
    handle = guest.ask("create", 600 * MIB, 0x100, DEVICE_PART)[1]
    assert exact(container, 600)
    pool = guest.ask("pool", 0x100, DEVICE_PART)[1]
    assert guest.ask("alloc_from", pool, 500 * MIB)[0] == OOM
    assert guest.ask("release_handle", handle) == 0
    assert guest.ask("alloc_from", pool, 512 * MIB)[0] == 0
    assert exact(container, 512)


def test_a_kind_of_place_that_nobody_knows_is_charged(container):
    """What is newer than the library costs the current device rather than nothing."""
    guest = container.ready()
    assert guest.ask("create", 1002 * MIB, 0, 99)[0] == OOM
    handle = guest.ask("create", 100 * MIB, 0, 99)[1]
    assert container.used == 100 * MIB
    assert guest.ask("release_handle", handle) == 0
    assert container.used == 0
