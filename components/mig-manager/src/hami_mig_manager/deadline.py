"""Calls into a driver that may hang, of which nobody has to wait for the end."""

import threading
from collections.abc import Callable
from typing import TypeVar

from hamikit.gpu import GpuError

T = TypeVar("T")


class Patience:
    """Runs one call at a time, each in a thread of its own, and waits `seconds` for it at most.

    While a call hangs no other is made: the driver would hang there too, or worse.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._hanging: threading.Thread | None = None

    def __call__(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises.

        Raises:
            GpuError: it does not end, or an earlier one has not ended yet.
        """
        if self._hanging is not None and self._hanging.is_alive():
            raise GpuError(f"NVML has not answered for more than {self._seconds:g} s")
        found: list[T] = []
        raised: list[BaseException] = []

        def work() -> None:
            try:
                found.append(call())
            except BaseException as error:  # noqa: BLE001 - raised again where it was asked for
                raised.append(error)

        thread = threading.Thread(target=work, name="nvml", daemon=True)
        thread.start()
        thread.join(self._seconds)
        if thread.is_alive():
            self._hanging = thread
            raise GpuError(f"NVML does not answer within {self._seconds:g} s")
        if raised:
            raise raised[0]
        return found[0]
