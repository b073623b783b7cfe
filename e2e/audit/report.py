"""What was found, for people and for machines."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from e2e.audit.check import per_card
from e2e.audit.model import Snapshot, Violation

_HEADINGS = ("node", "card", "tasks", "MiB granted", "enforced", "used", "% granted")


def as_text(snapshot: Snapshot, violations: Sequence[Violation]) -> str:
    """A table of the cards, then the violations."""
    rows = [_HEADINGS]
    for (node, card), row in sorted(per_card(snapshot).items()):
        side = snapshot.sides.get(node)
        enforced = side is not None and side.controls is not None
        used = side is not None and side.uses is not None
        rows.append(
            (
                node,
                card,
                f"{row['slots_granted']}/{row['slots']}",
                f"{row['memory_granted_mib']}/{row['memory_mib']}",
                str(row["memory_enforced_mib"]) if enforced else "not read",
                str(row["memory_used_mib"]) if used else "not read",
                f"{row['cores_granted']}/{row['cores']}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADINGS))]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines += [str(violation) for violation in violations]
    lines.append(f"{len(snapshot.pods)} pods with a grant, {len(violations)} violations")
    return "\n".join(lines)


def as_json(snapshot: Snapshot, violations: Sequence[Violation]) -> str:
    """One object: `cards`, `pods` (their number) and `violations`."""
    cards = [
        {"node": node, "uuid": card, **row}
        for (node, card), row in sorted(per_card(snapshot).items())
    ]
    found = [asdict(violation) for violation in violations]
    return json.dumps({"cards": cards, "pods": len(snapshot.pods), "violations": found})
