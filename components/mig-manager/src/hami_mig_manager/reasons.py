"""Why a pod does not get its instance: words for metrics and the node, each with its sentence."""

from typing import Final

MADE_BY_HAND: Final = "MadeByHand"
"""An instance that is not ours."""
PLACEMENT_TAKEN: Final = "PlacementTaken"
CARD_MISSING: Final = "CardMissing"
CARD_SILENT: Final = "CardSilent"
MIG_OFF: Final = "MigModeOff"
RESET_REQUIRED: Final = "ResetRequired"
NO_SUCH_PROFILE: Final = "NoSuchProfile"
NO_SUCH_PLACEMENT: Final = "NoSuchPlacement"
IN_USE: Final = "InUse"
INSUFFICIENT: Final = "InsufficientResources"
NO_PERMISSION: Final = "NoPermission"
DRIVER_ERROR: Final = "DriverError"

LASTING: Final = frozenset(
    {RESET_REQUIRED, NO_SUCH_PROFILE, NO_SUCH_PLACEMENT, IN_USE, INSUFFICIENT, NO_PERMISSION}
    | {DRIVER_ERROR, MIG_OFF, CARD_MISSING, CARD_SILENT}
)
"""Those for which a placement is blocked for a while; the others are seen anew each time."""
