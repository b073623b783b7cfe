"""The commands of docs/operations.md, run as they stand there."""

import os
import re
import shlex
from pathlib import Path

from e2e.kube import Kube

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "operations.md"
_BLOCK = re.compile(r"^```sh (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NAME = re.compile(r"\b[A-Z][A-Z_]+\b")


def blocks(text: str) -> dict[str, str]:
    """Name -> commands, of every fenced block with a name."""
    found = _BLOCK.findall(text)
    names = [name for name, _ in found]
    if len(set(names)) != len(names):
        raise ValueError(f"two blocks of one name among {names}")
    return dict(found)


def filled(commands: str, **names: str) -> str:
    """Commands with one's own names for the words in capitals.

    Raises:
        ValueError: a word has no name, or a name no word.
    """
    words = set(_NAME.findall(commands))
    if words != names.keys():
        raise ValueError(f"names are needed for {sorted(words)}, not for {sorted(names)}")
    return _NAME.sub(lambda word: names[word[0]], commands)


def follow(kube: Kube, procedure: str, *, folder: Path = ROOT, **names: str) -> str:
    """Run a block of the page in a folder; what its commands said, errors too."""
    commands = filled(blocks(PAGE.read_text(encoding="utf-8"))[procedure], **names)
    # `uv run` says where it is, but is not on the path of what it runs.
    tools = os.path.dirname(os.environ.get("UV", ""))
    head = f"exec 2>&1; PATH=$PATH:{shlex.quote(tools)}; cd {shlex.quote(str(folder))}"
    return kube.run("bash", "-euo", "pipefail", "-c", f"{head}\n{commands}")
