"""How containers of this node come to their cards: by which protocol, and by which way."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from hami_device_plugin.cdi import NodeSpec
from hami_device_plugin.runtime import Runtime
from hami_device_plugin.settings import Wish
from hamikit import names

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Access:
    """`binding` and `way` are empty where no container can get a card; `reason` says why.

    A node with the lock protocol has a reason too: why it is not late binding.
    """

    binding: str = ""
    way: str = ""
    reason: str | None = None


def decide(
    wish: Wish,
    cdi_off: str | None,
    specs: Sequence[NodeSpec],
    *,
    nvidia_runtime: bool | None,
    faults: Sequence[str] = (),
    prefers_cdi: bool = False,
) -> Access:
    """What a node with these properties can do.

    `nvidia_runtime` is None where it is not known; `specs` are its CDI specifications of cards,
    `faults` says of which files of that kind nothing can be made. With `prefers_cdi` the lock
    protocol leaves the cards to CDI where it can, else to an NVIDIA runtime where there is one.
    """
    by_runtime = "" if nvidia_runtime is False else names.CARDS_BY_RUNTIME
    no_way = "; ".join([_NO_WAY, *faults])
    if wish is not Wish.LOCK and cdi_off is None:
        way = names.CARDS_BY_CDI if specs else by_runtime
        return Access(names.BINDING_LATE, way) if way else Access(reason=no_way)
    if wish is Wish.LATE:
        return Access(reason=cdi_off)
    return _locked(cdi_off, specs, by_runtime, no_way, prefers_cdi=prefers_cdi)


def _locked(
    cdi_off: str | None,
    specs: Sequence[NodeSpec],
    by_runtime: str,
    no_way: str,
    *,
    prefers_cdi: bool,
) -> Access:
    why = cdi_off or "the operator chose HAMi's lock protocol for this node"
    by_cdi = cdi_off is None and bool(specs)
    if by_runtime and not (by_cdi and prefers_cdi):
        return Access(names.BINDING_LOCK, by_runtime, why)
    if by_cdi:
        return Access(names.BINDING_LOCK, names.CARDS_BY_CDI, why)
    if not specs:
        return Access(reason=f"{why}; {no_way}")
    if any(spec.has_hooks for spec in specs):
        return Access(
            reason=f"{why}; and without CDI nobody runs the hooks of {specs[-1].path}, so that "
            "only an NVIDIA runtime could bring the cards: install one, or switch CDI on"
        )
    return Access(names.BINDING_LOCK, names.CARDS_BY_LIST, why)


_NO_WAY = (
    f"no container can get a card here: there is neither a CDI specification of "
    f"{names.CDI_KIND_NVIDIA} nor an NVIDIA runtime; run `nvidia-ctk cdi generate "
    "--output=/etc/cdi/nvidia.yaml` on the node"
)


class CardAccess:
    """This node's access as of the last look; `on_change` hears of a change, so does the log."""

    def __init__(
        self,
        wish: Callable[[], Wish],
        runtime: Runtime,
        specs: Callable[[], Sequence[NodeSpec]],
        on_change: Callable[[], None] = lambda: None,
        *,
        faults: Callable[[], Sequence[str]] = tuple,
        prefers_cdi: bool = False,
    ) -> None:
        self._prefers_cdi = prefers_cdi
        self._wish, self._runtime, self._specs = wish, runtime, specs
        self._on_change, self._faults = on_change, faults
        self._telling, self._told = threading.Lock(), False
        # The first look takes most of a second (YAML), and kubelet is to be told before that.
        lock = wish() is Wish.LOCK
        self.now = Access(names.BINDING_LOCK if lock else names.BINDING_LATE)

    @property
    def known(self) -> bool:
        """Whether the protocol is certain: `auto` needs to know the runtime."""
        return self._wish() is not Wish.AUTO or self._told

    def runs(self, version: str) -> None:
        """The node's runtime, as its status names it; `now` is no guess any more afterwards."""
        with self._telling:
            if version != self._runtime.version:
                self._runtime.version = version
                self.look()
                self._told = bool(version)

    def look(self) -> Access:
        """Look at the runtime's configuration and the CDI folders: both may just have changed."""
        specs = self._specs()
        runtime = self._runtime
        found = decide(
            self._wish(),
            runtime.cdi_off(),
            specs,
            nvidia_runtime=runtime.has_nvidia(),
            faults=self._faults(),
            prefers_cdi=self._prefers_cdi,
        )
        if found != self.now:
            self.now = found
            log.info(
                "access to cards",
                binding=found.binding or "none",
                way=found.way or "none",
                runtime=runtime.version or "not told yet",
                specs=[spec.path for spec in specs],
                reason=found.reason or "",
            )
            self._on_change()
        return found
