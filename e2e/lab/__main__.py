"""The command line of the lab: `python3 -m e2e.lab VERB`."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence

from e2e.lab import config as configuration
from e2e.lab.cache import locked
from e2e.lab.console import Console
from e2e.lab.errors import CommandError, LabError
from e2e.lab.lab import Lab

VERBS = {
    "up": "bring the cluster up; build what is missing",
    "down": "remove all that `up` made, except the cache of built parts",
    "status": "say what is there; the exit status is 0 where the cluster is up",
    "load": "copy images from Docker into every node",
    "build-base": "put the base of our images (ARG BASE) into Docker",
    "env": 'print variables for a shell: eval "$(python3 -m e2e.lab env)"',
    "kubectl": "run kubectl on the cluster",
}

ROOT_VERBS = ("up", "down", "load", "build-base")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m e2e.lab", description="The local cluster.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, text in VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text)
        if name == "load":
            verb.add_argument("images", nargs="+", metavar="IMAGE")
    return parser


def _print_exports(lab: Lab) -> None:
    for name, value in lab.exports().items():
        print(f"export {name}={shlex.quote(value)}")
    print(f'export PATH={shlex.quote(str(lab.config.bin))}:"$PATH"')


def run(argv: Sequence[str]) -> int:
    """Carries out one verb; the exit status."""
    lab = Lab(configuration.load(), Console())
    if argv[:1] == ["kubectl"]:  # its arguments are none of ours
        kubectl = lab.config.bin / "kubectl"
        if not kubectl.exists():
            raise LabError(f"cluster {lab.config.cluster} is not up: run `make up` first.")
        env = {**os.environ, "KUBECONFIG": str(lab.config.kubeconfig)}
        os.execve(kubectl, ["kubectl", *argv[1:]], env)
    given = _parser().parse_args(argv)
    if given.verb in ROOT_VERBS and os.geteuid() != 0:
        raise LabError(
            f"`{given.verb}` needs root, for Docker, mounts and a network of its own: run it as "
            "root or with sudo. `make lint unit` works without."
        )
    if given.verb in ("up", "down"):
        with locked(lab.config.cache / f"{lab.config.cluster}.lock", wait=False):
            lab.up() if given.verb == "up" else lab.down()
    elif given.verb == "status":
        return 0 if lab.status() else 1
    elif given.verb == "load":
        lab.load(given.images)
    elif given.verb == "build-base":
        lab.build_base()
    else:
        _print_exports(lab)
    return 0


def main() -> int:
    """Turns what may go wrong into a line for the person and an exit status."""
    try:
        return run(sys.argv[1:])
    except CommandError as error:
        Console().show(error)
        return 1
    except LabError as error:
        print(f"e2e.lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; `up` goes on from here, `down` removes what is there", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
