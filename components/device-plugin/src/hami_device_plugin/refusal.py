"""Why a container may not start, in words for the person who waits for it."""


class Refusal(Exception):
    """A container may not start, now; kubelet shows the text as an event and tries again.

    `reason` is one of few words, for metrics; what is `late` is worth waiting for.
    """

    def __init__(self, reason: str, text: str, *, late: bool = False) -> None:
        self.reason, self.late = reason, late
        super().__init__(text)


class PodUnknown(Refusal):
    """Nobody has told us of this pod yet."""

    def __init__(self, uid: str, node: str) -> None:
        self.uid = uid
        super().__init__(
            "pod-unknown",
            f"pod with UID {uid} is not known on node {node} yet: the API server has not told "
            "(a static pod is never granted a card; let a Deployment or DaemonSet make the pod)",
            late=True,
        )


class NoGrant(Refusal):
    """The pod has no grant that can be carried out."""

    def __init__(self, text: str) -> None:
        super().__init__("no-grant", text)
