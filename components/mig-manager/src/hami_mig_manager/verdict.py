"""What an error of NVML means for an instance that was to be made."""

from typing import Final

import pynvml

from hami_mig_manager import reasons
from hami_mig_manager.state import Trouble

PAUSES_S: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Before each further attempt; after the last the pod is better off elsewhere."""
DESTROY_AGAIN_S: Final = 5.0

_HOPELESS: Final = {
    pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES: reasons.INSUFFICIENT,
    pynvml.NVML_ERROR_IN_USE: reasons.IN_USE,
    pynvml.NVML_ERROR_RESET_REQUIRED: reasons.RESET_REQUIRED,
    pynvml.NVML_ERROR_GPU_IS_LOST: reasons.CARD_MISSING,
    pynvml.NVML_ERROR_GPU_NOT_FOUND: reasons.CARD_MISSING,
    pynvml.NVML_ERROR_NO_PERMISSION: reasons.NO_PERMISSION,
    pynvml.NVML_ERROR_NOT_SUPPORTED: reasons.NO_SUCH_PROFILE,
    pynvml.NVML_ERROR_NOT_FOUND: reasons.NO_SUCH_PROFILE,
    pynvml.NVML_ERROR_INVALID_ARGUMENT: reasons.NO_SUCH_PLACEMENT,
    pynvml.NVML_ERROR_CORRUPTED_INFOROM: reasons.DRIVER_ERROR,
    pynvml.NVML_ERROR_INSUFFICIENT_POWER: reasons.DRIVER_ERROR,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: reasons.DRIVER_ERROR,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: reasons.DRIVER_ERROR,
    pynvml.NVML_ERROR_INVALID_STATE: reasons.DRIVER_ERROR,
}
"""Codes after which the same call cannot succeed; after any other it may."""


class NvmlFailed(Exception):
    """A change of MIG state that failed; `half_made` when something may be left of it."""

    def __init__(self, code: int, text: str, *, half_made: bool = False) -> None:
        self.code, self.text, self.half_made = code, text, half_made
        super().__init__(text)


def trouble(failed: NvmlFailed, before: Trouble | None, now: float) -> Trouble:
    """What to remember of a failed attempt to make something."""
    tries = 1 if before is None else before.tries + 1
    reason = _HOPELESS.get(failed.code)
    half_made = failed.half_made or (before is not None and before.half_made)
    if reason is None and tries <= len(PAUSES_S):
        again = now + PAUSES_S[tries - 1]
        return Trouble(reasons.DRIVER_ERROR, failed.text, tries, again, half_made)
    reason = reason or reasons.DRIVER_ERROR
    return Trouble(reason, failed.text, tries, half_made=half_made)


def kept(failed: NvmlFailed, before: Trouble | None, now: float) -> Trouble:
    """What to remember of a failed attempt to destroy something: it is in use, or will go later."""
    tries = 1 if before is None else before.tries + 1
    return Trouble(reasons.IN_USE, failed.text, tries, now + DESTROY_AGAIN_S)
