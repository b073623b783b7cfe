"""Resource families as rows of data: what a family's resources and annotations are called.

A component handles a family by its row, so that NVIDIA is one entry and not a special case.
"""

from dataclasses import dataclass

from hamikit import names


@dataclass(frozen=True, slots=True)
class DeviceFamily:
    """One family of devices and the names it goes by.

    Memory is in MiB per device after `memory_factor`, cores are percent of one device.
    """

    vendor: str
    count: str
    memory: str
    memory_percentage: str
    cores: str
    priority: str
    register_annotation: str
    to_allocate_annotation: str
    allocated_annotation: str
    use_type: str
    nouse_type: str
    use_uuid: str
    nouse_uuid: str
    default_count: int = 1
    default_memory_mib: int = 0
    default_cores: int = 0
    memory_factor: int = 1
    runtime_class: str = ""
    core_policy: str = "default"
    overwrite_env: bool = False

    @property
    def resources(self) -> tuple[str, ...]:
        """All resource names of the family that are configured."""
        every = (self.count, self.memory, self.memory_percentage, self.cores, self.priority)
        return tuple(name for name in every if name)


NVIDIA = DeviceFamily(
    vendor=names.VENDOR_NVIDIA,
    count=names.RESOURCE_COUNT,
    memory=names.RESOURCE_MEMORY,
    memory_percentage=names.RESOURCE_MEMORY_PERCENTAGE,
    cores=names.RESOURCE_CORES,
    priority=names.RESOURCE_PRIORITY,
    register_annotation=names.NODE_REGISTER,
    to_allocate_annotation=names.POD_DEVICES_TO_ALLOCATE,
    allocated_annotation=names.POD_DEVICES_ALLOCATED,
    use_type=names.POD_USE_TYPE,
    nouse_type=names.POD_NOUSE_TYPE,
    use_uuid=names.POD_USE_UUID,
    nouse_uuid=names.POD_NOUSE_UUID,
)
