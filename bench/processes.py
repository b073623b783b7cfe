"""What the kernel says about processes under measurement, and where they may listen."""

import os
import socket
from pathlib import Path


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used (proc(5), fields 14 and 15 of `stat`)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int, field: str = "VmRSS") -> float:
    """A figure of /proc/<pid>/status in MiB; resident memory unless another is asked for."""
    return status_mib(Path(f"/proc/{pid}/status").read_text(), field)


def status_mib(status: str, field: str = "VmRSS") -> float:
    """The same from the text of such a file."""
    for line in status.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"no {field} in {status!r}")
