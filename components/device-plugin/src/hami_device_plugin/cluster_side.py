"""Everything that talks to the API server: this node's pods, its annotations, events."""

import asyncio
import threading
from collections.abc import Callable

import msgspec
import structlog
from kubernetes.config import ConfigException

from hami_device_plugin.access import Access, CardAccess
from hami_device_plugin.announce import PAUSED_BY_US, Announcer
from hami_device_plugin.lockstep import Lockstep, Spells
from hami_device_plugin.pods import Pods
from hami_device_plugin.stand import Stand
from hamikit import names
from hamikit.cluster import Api, ApiError, Unreachable
from hamikit.deviceconfig import ConfigError
from hamikit.events import Events
from hamikit.informer import Change, Informer
from hamikit.objects import Node, Pod
from hamikit.truce import Truce

log = structlog.get_logger()

PODS, NODES = "/api/v1/pods", "/api/v1/nodes"
PAUSE_S = 2.0


class _PodList(msgspec.Struct):
    items: list[Pod] = []


class ClusterSide:
    """The threads that keep us and the API server in step."""

    def __init__(
        self,
        api: Api,
        node: str,
        pods: Pods,
        access: CardAccess,
        stand: Callable[[], Stand | None],
    ) -> None:
        self._api, self._node = api, node
        self._truce = Truce(names.NODE_MIG_PAUSE_PLUGIN)
        self.events = Events(api, "hami-device-plugin", node)

        def access_of(version: str) -> Access:
            access.runs(version)
            return access.now

        self.announcer = Announcer(api, node, stand, access_of)
        own = {"fieldSelector": f"metadata.name={node}"}
        self._nodes = Informer(api, NODES, Node, self._on_node, query=own)
        self._announcing = threading.Thread(
            target=self.announcer.run, name="announcer", daemon=True
        )
        label = f"{names.LABEL_DEVICE_POD}={names.LABEL_DEVICE_POD_VALUE}"
        query = {"labelSelector": label, "fieldSelector": f"spec.nodeName={node}"}
        self.informer = Informer(api, PODS, Pod, pods.apply, query=query)
        pods.complete = self.informer.synced.is_set

    def follow(self, truce: Truce) -> None:
        """Let it know of pauses, and say on the node that they are kept."""
        truce.connect(self._api, self._node)
        self._truce = truce

    def lockstep(self, spell: Spells) -> Lockstep:
        """HAMi's lock protocol with this API server."""
        return Lockstep(self._api, self._node, spell)

    def _on_node(self, change: Change[Node]) -> None:
        if change.after is not None:
            self._truce.observe(change.after)
            self.announcer.observe(change.after)

    def start(self) -> None:
        """Begin to watch and to announce."""
        self.informer.start()
        self._nodes.start()
        self._announcing.start()

    def fetch(self, uid: str) -> Pod | None:
        """One of this node's pods straight from the API server; None when it has none such."""
        query = {"fieldSelector": f"spec.nodeName={self._node}"}
        try:
            pods = self._api.get(PODS, _PodList, query).items
        except (ApiError, Unreachable) as error:
            log.warning("pods of the node cannot be listed", error=str(error))
            return None
        return next((pod for pod in pods if pod.metadata.uid == uid), None)

    def node_now(self) -> Node | None:
        """This node straight from the API server; None when that does not answer."""
        try:
            return self._api.get(f"{NODES}/{self._node}", Node)
        except (ApiError, Unreachable) as error:
            log.warning("node cannot be read", error=str(error))
            return None

    def missing(self) -> str | None:
        """What is missing until the view of the cluster is complete."""
        return self.informer.missing() or self.announcer.missing()

    async def pause(self) -> None:
        """Have nothing bound to this node until a plugin is back; ends our announcements."""
        self.announcer.stop()
        try:
            await asyncio.to_thread(self._announcing.join, PAUSE_S)
            await asyncio.to_thread(self.announcer.step, PAUSED_BY_US)
        except (ApiError, Unreachable) as error:
            log.warning("node not paused", error=str(error))

    async def stop(self) -> None:
        """End; what is being written is finished."""
        self.announcer.stop()
        self.informer.stop()
        self._nodes.stop()
        await asyncio.to_thread(self.events.close)


def connect(
    node: str,
    pods: Pods,
    access: CardAccess,
    stand: Callable[[], Stand | None],
) -> ClusterSide:
    """With the API server that our environment names.

    Raises:
        ConfigError: it names none.
    """
    try:
        api = Api.from_environment()
    except ConfigException as error:
        raise ConfigError(f"no way to the Kubernetes API: {error}; set KUBECONFIG") from error
    return ClusterSide(api, node, pods, access, stand)
