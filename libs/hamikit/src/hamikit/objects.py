"""The parts of Kubernetes objects that we read, as frozen values; other fields are skipped."""

from typing import Any, Literal

import msgspec


class _Value(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Decodes Kubernetes' camelCase; unknown fields cost nothing."""


class OwnerReference(_Value, frozen=True):
    """Who made an object."""

    kind: str = ""
    name: str = ""
    uid: str = ""


class Metadata(_Value, frozen=True):
    """Object metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    deletion_timestamp: str | None = None
    owner_references: list[OwnerReference] = msgspec.field(default_factory=list)


class Resources(_Value, frozen=True):
    """A container's resources; quantities stay as the API spells them."""

    limits: dict[str, str | int | float] | None = None
    requests: dict[str, str | int | float] | None = None


class SecurityContext(_Value, frozen=True):
    """What of a container's security context matters here."""

    privileged: bool | None = None


class Container(_Value, frozen=True):
    """An init, app or sidecar container."""

    name: str = ""
    resources: Resources | None = None
    restart_policy: str | None = None
    security_context: SecurityContext | None = None


class NodeRequirement(_Value, frozen=True):
    """One condition on a node's labels or fields."""

    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class NodeTerm(_Value, frozen=True):
    """Conditions of which all have to hold."""

    match_expressions: list[NodeRequirement] | None = None
    match_fields: list[NodeRequirement] | None = None


class NodeTerms(_Value, frozen=True):
    """Terms of which one has to hold."""

    node_selector_terms: list[NodeTerm] | None = None


class PreferredTerm(_Value, frozen=True):
    """A term that is preferred to hold."""

    preference: NodeTerm | None = None


class NodeAffinity(_Value, frozen=True):
    """Which nodes a pod needs or prefers."""

    required: NodeTerms | None = msgspec.field(
        default=None, name="requiredDuringSchedulingIgnoredDuringExecution"
    )
    preferred: list[PreferredTerm] | None = msgspec.field(
        default=None, name="preferredDuringSchedulingIgnoredDuringExecution"
    )


class Affinity(_Value, frozen=True):
    """What of a pod's affinity names nodes."""

    node_affinity: NodeAffinity | None = None


class PodSpec(_Value, frozen=True):
    """A pod's wish."""

    containers: list[Container] = msgspec.field(default_factory=list)
    init_containers: list[Container] | None = None
    node_name: str = ""
    scheduler_name: str = ""
    runtime_class_name: str | None = None
    volumes: list[dict[str, Any]] | None = None
    priority: int | None = None
    node_selector: dict[str, str] | None = None
    affinity: Affinity | None = None


class ContainerStateTerminated(_Value, frozen=True):
    """How a container ended."""

    exit_code: int = 0


class ContainerState(_Value, frozen=True):
    """The present state; one of them is set."""

    running: dict[str, Any] | None = None
    terminated: ContainerStateTerminated | None = None
    waiting: dict[str, Any] | None = None


class ContainerStatus(_Value, frozen=True):
    """A container's status as kubelet reports it."""

    name: str = ""
    container_id: str | None = msgspec.field(default=None, name="containerID")
    state: ContainerState | None = None
    restart_count: int = 0


class PodStatus(_Value, frozen=True):
    """What became of a pod."""

    phase: str = "Pending"
    reason: str = ""
    nominated_node_name: str = ""
    start_time: str = ""
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None
    ephemeral_container_statuses: list[ContainerStatus] | None = None


class Pod(_Value, frozen=True):
    """A pod."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def init_containers(self) -> list[Container]:
        """Init containers, sidecars included, in spec order."""
        return self.spec.init_containers or []

    @property
    def all_containers(self) -> list[Container]:
        """Init containers first, then app containers: the order of grant slots."""
        return [*self.init_containers, *self.spec.containers]

    @property
    def terminal(self) -> bool:
        """Whether kubelet has let go of the pod for good."""
        return self.status.phase in ("Succeeded", "Failed")


class NodeInfo(_Value, frozen=True):
    """What kubelet tells about its node."""

    container_runtime_version: str = ""


class NodeStatus(_Value, frozen=True):
    """What of a node's status matters here."""

    node_info: NodeInfo = msgspec.field(default_factory=NodeInfo)
    allocatable: dict[str, str | int | float] = msgspec.field(default_factory=dict)


class Node(_Value, frozen=True):
    """A node."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)


class ListMeta(_Value, frozen=True):
    """A list's position."""

    resource_version: str = ""
    continue_: str | None = msgspec.field(default=None, name="continue")


class ObjectMeta(_Value, frozen=True):
    """Any object, by its metadata alone."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)


class LeaseSpec(_Value, frozen=True):
    """Who holds a lease."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    renew_time: str | None = None
    acquire_time: str | None = None
    lease_transitions: int | None = None


class Lease(_Value, frozen=True):
    """A coordination lease."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: LeaseSpec = msgspec.field(default_factory=LeaseSpec)


EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
