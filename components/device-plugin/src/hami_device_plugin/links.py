"""Asks NVML how a node's cards are connected."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import structlog

from hami_device_plugin.topology import Links, Scores, link_count, pair_score
from hamikit.gpu import Card

log = structlog.get_logger()

LINK_IDS, SWITCH = range(36), 2


def scores(nvml: Any, cards: Sequence[tuple[Card, Any]]) -> tuple[Scores, list[tuple[str, str]]]:
    """Each pair's score, and the pairs whose two ends tell different numbers of links."""
    found: dict[str, dict[str, int]] = {card.uuid: {} for card, _ in cards}
    odd: list[tuple[str, str]] = []
    links = {card.uuid: _links(nvml, handle) for card, handle in cards}
    for (a, handle_a), (b, handle_b) in combinations(cards, 2):
        count = link_count(links[a.uuid], links[b.uuid])
        if count is None:
            odd.append((a.uuid, b.uuid))
        score = pair_score(_ancestor(nvml, handle_a, handle_b), count)
        found[a.uuid][b.uuid] = found[b.uuid][a.uuid] = score
    return found, odd


def _ancestor(nvml: Any, a: Any, b: Any) -> int | None:
    try:
        return int(nvml.nvmlDeviceGetTopologyCommonAncestor(a, b))
    except nvml.NVMLError as error:
        log.info("common ancestor unknown", error=str(error))
        return None


def _links(nvml: Any, handle: Any) -> Links:
    to: Counter[str] = Counter()
    switches = 0
    try:
        bus_id = _text(nvml.nvmlDeviceGetPciInfo(handle).busId)
    except nvml.NVMLError:
        return Links()  # not a PCI device
    for link in LINK_IDS:
        try:
            if not nvml.nvmlDeviceGetNvLinkState(handle, link):
                continue
            to[_text(nvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link).busId)] += 1
            switches += nvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle, link) == SWITCH
        except nvml.NVMLError as error:
            absent = (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_INVALID_ARGUMENT)
            if error.value not in absent:
                log.info("NVLink cannot be read", link=link, error=str(error))
    return Links(bus_id, to, switches)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
