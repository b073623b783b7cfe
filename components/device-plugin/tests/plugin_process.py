"""The program itself, as a process, on simulated cards."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from plugin_kit import DEADLINE_S

from hamikit import names
from hamikit.codec import decode_register

REPOSITORY = Path(__file__).parents[3]
TOOLS = Path(sys.executable).parent


def build_fakegpu(folder):
    """Build the simulated driver; its tool."""
    environment = {**os.environ, "PATH": f"{TOOLS}:{os.environ['PATH']}"}
    source = REPOSITORY / "e2e/fakegpu"
    for command in (["meson", "setup", folder, source], ["ninja", "-C", folder]):
        subprocess.run(command, check=True, capture_output=True, env=environment)
    return folder / "fakegpu"


def install_cards(node, fakegpu):
    """Put four cards and their driver on the node."""
    kinds = REPOSITORY / "e2e/fakegpu/cards/a100.txt"
    root, spec = node.root / "driver", node.static / "nvidia.yaml"
    where = ["--root", root, "--cdi", spec, "--cards", kinds, "--seed", "n1"]
    subprocess.run([fakegpu, "install", *where], check=True, capture_output=True)


class Process:
    """The plugin as a process of its own."""

    def __init__(self, node, server, *more):
        kubeconfig = server.kubeconfig(node.root / "kubeconfig")
        flags = {
            "--node-name": "n1",
            "--plugin-dir": node.plugins,
            "--cdi-dirs": f"{node.static},{node.cdi}",
            "--cdi-dynamic-dir": node.cdi,
            "--hook-path": node.vgpu.parent,
            "--containerd-config": node.containerd,
            "--driver-root": node.root / "driver",
            "--status-address": "127.0.0.1:0",
            "--scan-seconds": "5",
        }
        self._command = [
            TOOLS / "hami-device-plugin",
            *(f"{k}={v}" for k, v in flags.items()),
            *more,
        ]
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        self._process = None

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *_):
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def start(self):
        """Start it, for the first time or again."""
        self._process = await asyncio.create_subprocess_exec(*self._command, env=self._environment)

    @property
    def pid(self):
        """Its process id."""
        return self._process.pid

    async def end(self, number):
        """Send a signal and return the exit status."""
        self._process.send_signal(number)
        return await asyncio.wait_for(self._process.wait(), DEADLINE_S)


async def until(ask, what):
    """What `ask` returns, once it is something, asked again whenever the loop comes round."""
    for _ in range(int(DEADLINE_S / 0.02)):
        answer = ask()
        if answer:
            return answer
        await asyncio.sleep(0.02)
    raise AssertionError(f"waited {DEADLINE_S} s for {what}")


async def listed(kubelet, healthy):
    """The first list with so many healthy slots."""
    while True:
        slots = await kubelet.next_list()
        if sum(slots.values()) == healthy:
            return slots


def registered(server):
    """The node's cards as announced."""
    text = server.annotations.get(names.NODE_REGISTER)
    return decode_register(text) if text else []
