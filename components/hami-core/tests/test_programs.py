"""Programs as users write them, none of which knows of us: all are limited, and see one slice."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
MIB = 1 << 20
WAYS = {
    "linked with -lcuda": ("-DLINKED",),
    "dlopen and dlsym": ("-DBY_NAME",),
    "cuGetProcAddress only": ("-DBY_PROC_ADDRESS",),
    "linked, per-thread default streams": ("-DLINKED", "-DPER_THREAD"),
    "cuGetProcAddress, per-thread default streams": ("-DBY_PROC_ADDRESS", "-DPER_THREAD"),
}


@pytest.fixture
def program(container, tmp_path):
    """Compiles one of the programs, runs it in the container, and gives what it printed."""

    def run(name: str, *options: str) -> str:
        binary = tmp_path / name
        command = ["gcc", "-O1", "-Wall", "-Werror", *options, PROGRAMS / f"{name}.c"]
        libraries = [f"-L{container.fake.folder}", "-Wl,--as-needed", "-l:libcuda.so.1", "-ldl"]
        subprocess.run([*command, *libraries, "-o", binary], check=True)
        result = container.run(str(binary))
        assert (result.returncode, result.stderr) == (0, ""), result.stdout
        return result.stdout

    return run


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_the_driver_meets_the_same_slice(container, program, way):
    """Total, free, refusals and charged launches do not depend on how the driver is found."""
    container.limit(1000, cores=50)
    assert program("slice", *WAYS[way]) == "1000 1000 1000 0\n1000\n"
    card = container.usage.devices[0]
    assert card.launches > 0
    assert card.charged_ns > 0
    assert card.peak_bytes == 1000 * MIB
    assert card.used_bytes == 0


def test_pynvml_as_it_comes_sees_that_slice(container):
    """The package nvidia-ml-py, both versions of the call."""
    container.ready().ask("alloc", 100 * MIB)
    script = """
import pynvml
pynvml.nvmlInit()
card = pynvml.nvmlDeviceGetHandleByIndex(0)
for version in (None, pynvml.nvmlMemory_v2):
    memory = pynvml.nvmlDeviceGetMemoryInfo(card, version)
    print(memory.total >> 20, memory.free >> 20, memory.used >> 20)
print(len(pynvml.nvmlDeviceGetComputeRunningProcesses(card)))
"""
    assert container.run(sys.executable, "-c", script).stdout == "1000 900 100\n" * 2 + "1\n"


@pytest.mark.parametrize("way", WAYS)
def test_expandable_segments_and_sleep_mode(container, program, way):
    """PyTorch grows to the limit and no further; after vLLM's sleep the same memory is back."""
    assert program("expandable", *WAYS[way]) == "1000 0\nasleep 1000\nawake 0\n"
    assert container.used == 0


@pytest.mark.parametrize("way", WAYS)
def test_the_stream_ordered_backend_of_pytorch(container, program, way):
    """A pool that keeps all is charged for what it keeps, until it is trimmed."""
    container.limit(960)  # whole chunks of 32 MiB, as pools take them
    assert program("pool", *WAYS[way]) == "960 960 0\ncached 0 0\ntrimmed 0 960\n"
    assert container.used == 0


@pytest.mark.parametrize("way", WAYS)
def test_captured_graphs(container, program, way):
    """Memory of a graph counts from its first replay; a graph that is too large does not run."""
    container.limit(1000, cores=50)
    assert program("graph", *WAYS[way]) == "1000 700\ndropped 1000\n"
    assert container.used == 0
    assert container.usage.devices[0].launches > 0


@pytest.mark.parametrize("way", WAYS)
def test_ranks_share_buffers_and_have_data_loaders(container, program, way):
    """Two processes hold 300 MiB each; a neighbour's buffer and children cost nothing."""
    assert program("ranks", *WAYS[way]) == "400\n400\nalone 1000\n"
    assert container.used == 0
