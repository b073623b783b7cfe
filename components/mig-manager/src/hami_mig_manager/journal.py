"""What stands on the node's object about instances of ours, from before they are made."""

from collections.abc import Iterable

import msgspec

from hami_mig_manager.state import Spot
from hamikit.codec import CodecError
from hamikit.instances import Placement


class Entry(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An instance of ours, written before it is made.

    The ids are added once it is there. `pod_uid` is the last pod that it was for, `unused_since`
    when no pod needed it any more; times are whole Unix seconds.
    """

    gpu_uuid: str = msgspec.field(name="gpuUUID")
    profile: str
    placement: Placement
    pod_uid: str = msgspec.field(name="podUID")
    since: int
    mig_uuid: str | None = msgspec.field(default=None, name="migUUID")
    gpu_instance_id: int | None = msgspec.field(default=None, name="gpuInstanceID")
    unused_since: int | None = None

    @property
    def spot(self) -> Spot:
        """Where it is."""
        return Spot(self.gpu_uuid, self.profile, self.placement.start, self.placement.size)


_ENTRIES = msgspec.json.Decoder(list[Entry])


def decode_journal(text: str) -> tuple[Entry, ...]:
    """Read the annotation `hami.io/mig-journal`; empty text says that nothing is ours.

    Raises:
        CodecError: it cannot be read; then nothing may be destroyed.
    """
    try:
        return tuple(_ENTRIES.decode(text)) if text else ()
    except (msgspec.DecodeError, RecursionError) as error:
        raise CodecError(f"the journal of MIG instances is unreadable: {error}") from error


def encode_journal(entries: Iterable[Entry]) -> str | None:
    """Write the annotation, ordered by place; None, which is no annotation, without any entry."""
    ordered = sorted(entries, key=lambda entry: entry.spot)
    return msgspec.json.encode(ordered).decode() if ordered else None
