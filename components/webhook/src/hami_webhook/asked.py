"""The parts of a pod that admission reads; nothing else of it is even decoded."""

from msgspec import Raw, Struct, field, json

from hamikit.objects import SecurityContext


class _Value(Struct, frozen=True, rename="camel", gc=False):
    """Decodes Kubernetes' camelCase; unknown fields cost nothing."""


class EnvVar(_Value, frozen=True):
    """A variable with a literal value, or from elsewhere."""

    name: str
    value: str = ""


_decode_env = json.Decoder(list[EnvVar] | None).decode


class Container(_Value, frozen=True):
    """An init, app or sidecar container."""

    name: str = ""
    block: Raw = field(default_factory=Raw, name="resources")
    """Its resources, as they came."""
    env: Raw = field(default_factory=Raw)
    """As it came: the variables of most containers are nobody's business here."""
    restart_policy: str | None = None
    security_context: SecurityContext | None = None

    @property
    def variables(self) -> list[EnvVar]:
        """Its own variables, in order."""
        return _decode_env(self.env) or [] if bytes(self.env) else []


class Metadata(_Value, frozen=True):
    """Object metadata."""

    annotations: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


class PodSpec(_Value, frozen=True):
    """A pod's wish."""

    containers: list[Container] = field(default_factory=list)
    init_containers: list[Container] | None = None
    node_name: str = ""
    scheduler_name: str = ""
    runtime_class_name: str | None = None


class Pod(_Value, frozen=True):
    """A pod that is to be created."""

    metadata: Metadata = field(default_factory=Metadata)
    spec: PodSpec = field(default_factory=PodSpec)

    @property
    def init_containers(self) -> list[Container]:
        """Init containers, sidecars included, in spec order."""
        return self.spec.init_containers or []

    @property
    def all_containers(self) -> list[Container]:
        """Init containers first, then app containers: the order of grant slots."""
        return [*self.init_containers, *self.spec.containers]
