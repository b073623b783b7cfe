"""Resource families as rows of data: what a family's resources and annotations are called.

A component handles a family by its row, so that NVIDIA is one entry and not a special case. What
differs in behaviour is named by a word (`register`, `request`, `select`, ...) that the component
looks up among its strategies.
"""

from dataclasses import dataclass

from hamikit import names

REGISTER_JSON = "json"
REGISTER_CSV = "csv"
REQUEST_LINEAR = "linear"
REQUEST_TEMPLATES = "templates"
"""Memory comes in the sizes of `templates` only, or as a whole card."""
SELECT_GREEDY = "greedy"
SELECT_NETWORK = "network"
"""Cards of one network group first, the largest group first."""
SELECT_PAIRS = "pairs"
"""Whole modules of two cards only, where more than one is asked for."""
SCORE_NONE = "none"
SCORE_NETWORK = "network"
EXTRAS_NONE = "none"
EXTRAS_RUNTIME_INFO = "runtime-info"


@dataclass(frozen=True, slots=True)
class Template:
    """A size in which a card can be cut; `cores` are the chip's own units, not percent."""

    name: str
    memory_mib: int
    cores: int
    cpus: int = 0


@dataclass(frozen=True, slots=True)
class DeviceFamily:
    """One family of devices and the names it goes by; an empty name means there is no such thing.

    Memory is in MiB per device after `memory_factor`, cores are percent of one device. Of a device
    with `memory_capacity_mib` only `memory_allocatable_mib` can be given out.
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
    mode: str = ""
    """Pod annotation by which a pod chooses how its cards are shared."""
    soft_mode: str = ""
    """The value of `mode` that asks for sharing without templates."""
    numa_bind: str = ""
    implied: bool = False
    """Whether memory or cores imply a count, and a bare count the whole card with all its cores."""
    visible_env: str = ""
    """The variable by which a container names the cards that it sees, and its value for none."""
    visible_none: str = ""
    handshake: str = ""
    announces_binding: bool = False
    """Whether its nodes say how they bind; the others speak HAMi's lock protocol."""
    runtime_info: str = ""
    default_count: int = 1
    default_memory_mib: int = 0
    default_cores: int = 0
    memory_factor: int = 1
    runtime_class: str = ""
    core_policy: str = "default"
    overwrite_env: bool = False
    templates: tuple[Template, ...] = ()
    memory_allocatable_mib: int = 0
    memory_capacity_mib: int = 0
    soft_nodes: bool = False
    """Whether nodes share without templates where they do not say."""
    count_step: int = 1
    """Counts above one come in multiples of this."""
    register: str = REGISTER_JSON
    request: str = REQUEST_LINEAR
    select: str = SELECT_GREEDY
    score: str = SCORE_NONE
    extras: str = EXTRAS_NONE

    @property
    def resources(self) -> tuple[str, ...]:
        """All resource names of the family that are configured."""
        every = (self.count, self.memory, self.memory_percentage, self.cores, self.priority)
        return tuple(filter(None, every))


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
    mode=names.POD_VGPU_MODE,
    numa_bind=names.POD_NUMA_BIND,
    implied=True,
    visible_env=names.ENV_VISIBLE_DEVICES,
    visible_none=names.VISIBLE_NONE,
    announces_binding=True,
)

HYGON = DeviceFamily(
    vendor="DCU",
    count="hygon.com/dcunum",
    memory="hygon.com/dcumem",
    memory_percentage="",
    cores="hygon.com/dcucores",
    priority="",
    register_annotation="hami.io/node-dcu-register",
    to_allocate_annotation="hami.io/dcu-devices-to-allocate",
    allocated_annotation="hami.io/dcu-devices-allocated",
    use_type="hygon.com/use-dcutype",
    nouse_type="hygon.com/nouse-dcutype",
    use_uuid="hygon.com/use-gpuuuid",
    nouse_uuid="hygon.com/nouse-gpuuuid",
    handshake="hami.io/node-handshake-dcu",
    default_cores=100,
    register=REGISTER_CSV,
)
