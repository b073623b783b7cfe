"""A container's grant under the operator's word, as its control file says it."""

from hami_device_plugin.grant import ContainerGrant
from hami_device_plugin.settings import Settings
from hamikit.region import Control, ControlDevice, ControlFlag, CorePolicy, OverheadPolicy

MIB = 1024 * 1024


def control(container: ContainerGrant, settings: Settings) -> Control:
    """A container's limits as its control file says them."""
    policy = CorePolicy[(settings.family.core_policy or "default").upper()]
    scaling = settings.memory_scaling
    return Control(
        devices=tuple(
            ControlDevice(
                part.uuid,
                part.memory_mib * MIB,
                part.cores,
                int(part.memory_mib * MIB / scaling) if scaling > 1 else 0,
            )
            for part in container.slices
        ),
        flags=ControlFlag.ENV_MAY_LOOSEN if settings.env_may_loosen else ControlFlag.NONE,
        priority=container.priority,
        core_policy=CorePolicy.DISABLE if settings.disable_core_limit else policy,
        overhead_policy=OverheadPolicy[settings.overhead.name],
        log_level=settings.log_level,
    )
