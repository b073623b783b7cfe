"""Debian packages that the lab needs on the machine it runs on."""

import os
from collections.abc import Iterable, Mapping

from e2e.lab.errors import LabError
from e2e.lab.programs import Programs, ask

ENGINE = ("docker.io", "iptables", "iproute2", "util-linux")
BUILD = (
    "debootstrap",
    "gcc",
    "libc6-dev",
    "libseccomp-dev",
    "pkg-config",
    "tar",
    "ca-certificates",
)


def installed(listing: str) -> set[str]:
    """Names of the installed packages in the output of QUERY."""
    rows = (line.split() for line in listing.splitlines())
    return {row[0] for row in rows if row[1:] == ["installed"]}


QUERY = ("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n")


def missing(wanted: Iterable[str]) -> tuple[str, ...]:
    """Those of the wanted packages that are not installed.

    Raises:
        LabError: this is not a Debian.
    """
    listing = ask(*QUERY)
    if listing is None:
        raise LabError(
            "dpkg-query does not answer: the lab builds its node image on Debian 12 only. "
            "Elsewhere start Docker and let it reach a registry; then nothing is built."
        )
    present = installed(listing)
    return tuple(name for name in wanted if name not in present)


def install(names: tuple[str, ...], programs: Programs) -> None:
    """Installs packages without starting any service that they bring."""
    if os.geteuid() != 0:
        raise LabError(f"not root, and these Debian packages are missing: {' '.join(names)}")
    programs.run("apt-get", "-q", "update")
    env = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    programs.run("apt-get", "-qy", "install", "--no-install-recommends", *names, env=env)


def mirror(targets: str, codename: str) -> str | None:
    """The Debian mirror that apt uses, from the output of TARGETS."""
    for line in targets.splitlines():
        uri, _, rest = line.partition(" ")
        if rest == f"{codename} Debian Packages":
            return uri
    return None


TARGETS = ("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(LABEL) $(CREATED_BY)")


def debootstrap(work_tree: str, includes: Iterable[str], env: Mapping[str, str]) -> tuple[str, ...]:
    """The command that lays out a bookworm tree from the mirror that this machine uses."""
    # A third-party source list may come first, so the mirror is named where it is known.
    known = mirror(ask(*TARGETS, env=env) or "", "bookworm")
    command = ("debootstrap", "--variant=minbase", f"--include={','.join(includes)}")
    return (*command, "bookworm", work_tree, *((known,) if known else ()))
