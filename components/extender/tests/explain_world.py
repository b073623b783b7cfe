"""A small cluster whose refusals are told by every channel that there is."""

from extender_kit import make_pod
from prometheus_client import CollectorRegistry

from hami_extender.attempts import Attempts
from hami_extender.explain import Explainer
from hami_extender.metrics import VerbMetrics
from hami_extender.notices import Notices
from hami_extender.selection import Policies, Selector
from hami_extender.simulate import Simulator
from hami_extender.snapshot import Snapshot
from hami_extender.survey import Survey
from hami_extender.usage import Kind
from hami_extender.wake import Waker
from hami_extender.wire import FilterArgs
from hamikit.cluster import ApiError
from hamikit.codec import GrantedDevice
from hamikit.devices import NVIDIA
from hamikit.informer import Change


class ExplainWorld:
    """Nodes, pods, a selector and everybody whom it tells; time stands still unless moved."""

    def __init__(self, *nodes, policies=None):
        self.time, self.events, self.stored = 0.0, [], {}
        self.snapshot = Snapshot(NVIDIA, now=lambda: self.time)
        for node in nodes:
            self.snapshot.on_node(Change(None, node))
        policies = policies or Policies()
        self.registry = CollectorRegistry()
        metrics = VerbMetrics(self.registry, "1")
        attempts = Attempts(self.snapshot, now=lambda: self.time)
        notices = Notices(
            self.snapshot, lambda _ns, event: self.events.append(event), component="hami-scheduler"
        )
        self.waker, self.woken = Waker(self.snapshot, self, now=lambda: self.time), []
        told = (self.waker.refused, metrics.refused, attempts.refused, notices.refused)
        self.selector = Selector(
            self.snapshot,
            policies,
            missing=lambda: "",
            refused=lambda *args: [tell(*args) for tell in told],
        )
        survey = Survey(self.snapshot, policies)
        self.explainer = Explainer(self.snapshot, self, survey, attempts)
        self.simulator = Simulator(self.snapshot, survey)

    def request(self, _method, path, *, body, content_type):
        """The API server takes a condition."""
        assert body["status"]["conditions"]
        assert content_type.startswith("application/strategic")
        self.woken.append(path)
        return b""

    def get(self, path, _kind):
        """The API server's pods that no watch of ours shows."""
        name = path.rsplit("/", 1)[1]
        if isinstance(self.stored.get(name), Exception):
            raise self.stored[name]
        if name not in self.stored:
            raise ApiError(404, "NotFound", "no such pod")
        return self.stored[name]

    def add(self, name, *containers, **settings):
        """A pod that the watch shows."""
        pod = make_pod(name, *containers, **settings)
        self.snapshot.on_pod(Change(None, pod))
        return pod

    def filter(self, pod, names=None):
        """Ask about these nodes, or all."""
        return self.selector.filter(FilterArgs(pod, names or list(self.snapshot.ledger.nodes)))

    def use(self, node, uuid, memory, cores=30, kind=Kind.GRANT):
        """Somebody's grant."""
        slots = ((GrantedDevice(uuid, "NVIDIA", memory, cores),),)
        self.snapshot.hold(kind, make_pod(f"on-{uuid}"), node, slots)

    def explain(self, name="p", **more):
        """Explain a pod of the default namespace."""
        return self.explainer.pod("default", name, **more)

    def counted(self):
        """Refused nodes by reason word, as the metric has them."""
        families = [f for f in self.registry.collect() if f.name == "hami_extender_refused_nodes"]
        return {
            sample.labels["reason"]: sample.value
            for family in families
            for sample in family.samples
            if sample.name.endswith("_total")
        }
