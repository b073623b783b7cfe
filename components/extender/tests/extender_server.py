"""The API server that whole extenders are run against."""

from collections import deque

import msgspec
from extender_kit import pod_object

from hamikit.cluster import ApiError
from hamikit.objects import Pod
from hamikit.testing import ApiServer, Store

NODES, PODS, EVENTS = "/api/v1/nodes", "/api/v1/pods", "/api/v1/events"


class Server(ApiServer):
    """Has some nodes; `faults` is taken from the left by each binding: a word or an ApiError."""

    def __init__(self, *nodes):
        super().__init__(Store())
        self.strangers = {"bad"}
        self.nodes, self.faults, self.changed = list(nodes), deque(), self.store.changed
        self.trouble = self.fault
        for node in nodes:
            self.store.put(NODES, node)

    def fault(self, _method, path):
        """What happens to this request."""
        found = self.faults.popleft() if path.endswith("/binding") and self.faults else ""
        if isinstance(found, ApiError):
            raise found
        return found

    @property
    def events(self):
        """Those that were posted."""
        return self.store.items(EVENTS)

    def add(self, name, *containers, **settings):
        """Create a pod."""
        made = self.store.put(PODS, pod_object(name, *containers, **settings))
        return msgspec.convert(made, Pod)

    def delete(self, name):
        """Delete a pod."""
        self.store.delete(PODS, f"default/{name}")

    def wait_for(self, condition):
        """Until `condition()` holds; an error after ten seconds."""
        with self.changed:
            assert self.changed.wait_for(condition, 10)
