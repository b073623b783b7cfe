"""This node's pods as the informer tells them, each with the first grant it was seen with."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from hami_device_plugin.grant import PodGrant, grant_text
from hamikit.objects import Pod

if TYPE_CHECKING:
    from hamikit.informer import Change

GrantChanged = Callable[[Pod, str], None]


class Pods:
    """Fed from the informer's thread, asked from others; single dictionary steps are atomic.

    The first grant counts for the whole life of a pod: its UID. `on_grant_changed` hears of a pod
    whose annotation says something else later, once for each new text.
    """

    def __init__(self, on_news: Callable[[], None], on_grant_changed: GrantChanged) -> None:
        self._on_news, self._on_grant_changed = on_news, on_grant_changed
        self._pods: dict[str, Pod] = {}
        self._first: dict[str, str] = {}
        self._reported: dict[str, str] = {}
        self.complete: Callable[[], bool] = lambda: False
        """Whether every pod of the node is known."""

    def remember(self, grants: Iterable[PodGrant]) -> None:
        """Take over grants that were pinned before a restart of this plugin."""
        self._first.update((grant.uid, grant.text) for grant in grants)

    def apply(self, change: "Change[Pod]") -> None:
        """Take over one change."""
        uid = change.present.metadata.uid
        if change.after is None:
            self._pods.pop(uid, None)
            self._first.pop(uid, None)
            self._reported.pop(uid, None)
        else:
            self.learn(change.after)
        self._on_news()

    def learn(self, pod: Pod) -> None:
        """Take over a pod as it is now."""
        uid, text = pod.metadata.uid, grant_text(pod)
        first = self._first.setdefault(uid, text)
        self._pods[uid] = pod
        if text != self._reported.get(uid, first):
            self._reported[uid] = text
            self._on_grant_changed(pod, first)

    def get(self, uid: str) -> Pod | None:
        """A pod of this node, None when it is not known (yet, or any more)."""
        return self._pods.get(uid)

    def first_grant(self, uid: str) -> str:
        """The grant that a known pod was first seen with."""
        return self._first.get(uid, "")

    def living(self) -> frozenset[str]:
        """UIDs of the pods that are there and have not ended."""
        return frozenset(uid for uid, pod in list(self._pods.items()) if not pod.terminal)

    def granted(self) -> frozenset[str]:
        """UIDs of the living pods that came with a grant."""
        return frozenset(uid for uid in self.living() if self._first.get(uid))
