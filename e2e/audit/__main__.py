"""Audits a cluster: `python3 -m e2e.audit`; exit code 1 on violations, 2 when it cannot look."""

import argparse
import sys
import time
from collections.abc import Callable

from e2e.audit.check import audit
from e2e.audit.model import Snapshot, Violation
from e2e.audit.report import as_json, as_text
from e2e.audit.sources import SourceError, Sources

LEDGER = "fakegpu ledger --state {folder}/driver/run/nvidia-fake/state"


def lasting(
    look: Callable[[], Snapshot], pause: Callable[[], None], tries: int
) -> tuple[Snapshot, list[Violation]]:
    """The violations that are there at every look; the first clean look ends it.

    The facts are not of one instant: a pod that starts or ends meanwhile looks wrong once.
    """
    snapshot = look()
    violations = audit(snapshot)
    for _ in range(tries - 1):
        if not violations:
            break
        pause()
        snapshot = look()
        before = set(violations)
        violations = [violation for violation in audit(snapshot) if violation in before]
    return snapshot, violations


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="e2e.audit", description=__doc__)
    add = parser.add_argument
    add("--kubectl", default="kubectl", metavar="CMD", help="kubectl with its options")
    add(
        "--node",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="a node and its folder on this machine, for the ledger; may be repeated",
    )
    add(
        "--exec",
        default="",
        metavar="CMD",
        help="how to run a command on a node, such as 'docker exec {node}'; reads control files",
    )
    add("--ledger", default=LEDGER, metavar="CMD", help="prints a node's ledger [%(default)s]")
    add("--tries", type=int, default=4, help="a violation must be there this often [%(default)s]")
    add("--pause", type=float, default=2.0, help="seconds between two looks [%(default)s]")
    add("--json", action="store_true", help="for machines")
    options = parser.parse_args(argv)
    if not all("=" in node for node in options.node):
        parser.error("--node needs NAME=FOLDER")
    if options.tries < 1:
        parser.error("--tries must be at least 1")
    return options


def main(argv: list[str] | None = None) -> int:
    """Look, judge, tell."""
    options = parse(sys.argv[1:] if argv is None else argv)
    folders = dict(node.split("=", 1) for node in options.node)
    sources = Sources(options.kubectl, options.exec, options.ledger, folders)
    try:
        snapshot, violations = lasting(
            sources.snapshot, lambda: time.sleep(options.pause), options.tries
        )
    except SourceError as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2
    print((as_json if options.json else as_text)(snapshot, violations))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
