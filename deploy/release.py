"""A component's release: version, changelog, image label, pin and lock; then a commit and a tag.

`make release C=webhook V=0.2.0`; with DRY=1 it only shows what would change.
"""

import argparse
import datetime as dt
import difflib
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PINS = "deploy/features/release/kustomization.yaml"
LOCK = "uv.lock"
Read = Callable[[str], str]


class ReleaseError(ValueError):
    """A release that cannot be made; the text says why and what to do."""


def images(component: str) -> str:
    """The image of a component."""
    return component if component.startswith("hami-") else f"hami-{component}"


def plan(component: str, version: str, read: Read, today: dt.date) -> dict[str, str]:
    """The files that change, by path from the root, with their new text.

    Raises:
        ReleaseError: no such component, no newer version, or nothing to tell in its changelog.
    """
    folder, image = f"components/{component}", images(component)
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ReleaseError(f"{version!r} is no version; write one such as 0.2.0")
    pins = read(PINS)
    found = re.search(rf"- name: {image}\n    newTag: (\S+)\n", pins)
    if found is None:
        raise ReleaseError(f"no image {image} in {PINS}; is {component!r} a component?")
    old = found[1]
    if _number(version) <= _number(old):
        raise ReleaseError(f"{version} is not newer than {old}, which is pinned in {PINS}")
    sources = {"hami-core": f"{folder}/meson.build"}
    source = sources.get(component, f"{folder}/pyproject.toml")
    label = f"{folder}/Dockerfile"
    changed = {
        PINS: pins.replace(found[0], found[0].replace(old, version)),
        source: _once(
            read(source), r"""(?m)^(\s*version\s*[=:]\s*)(["'])%s\2""", old, version, source
        ),
        label: _once(read(label), r"""(image\.version=)(["'])%s\2""", old, version, label),
        f"{folder}/CHANGELOG.md": _changelog(read(f"{folder}/CHANGELOG.md"), version, today),
    }
    if component not in sources:
        pattern = rf'(name = "{image}"\nversion = )(")%s\2'
        changed[LOCK] = _once(read(LOCK), pattern, old, version, LOCK)
    return changed


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _once(text: str, form: str, old: str, new: str, path: str) -> str:
    changed, count = re.subn(form % re.escape(old), rf"\g<1>\g<2>{new}\g<2>", text)
    if count != 1:
        raise ReleaseError(f"{path}: version {old} stands there {count} times, not once")
    return changed


def _changelog(text: str, version: str, today: dt.date) -> str:
    head, mark, rest = text.partition("## Unreleased\n")
    told = rest.split("\n## ", 1)[0].strip()
    if not mark or not told:
        raise ReleaseError("nothing under `## Unreleased` in the changelog; say what changed")
    return f"{head}## {version} ({today.isoformat()})\n{rest}"


def show(changed: Mapping[str, str], read: Read) -> str:
    """The change as a patch."""
    lines = []
    for path, text in changed.items():
        before, after = read(path).splitlines(), text.splitlines()
        lines += difflib.unified_diff(before, after, f"a/{path}", f"b/{path}", lineterm="", n=1)
    return "\n".join(lines)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout


def _read(path: str) -> str:
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except OSError as error:
        raise ReleaseError(f"{path}: {error}") from error


def main() -> int:
    """Show the release, or make it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("component")
    parser.add_argument("version")
    parser.add_argument("--dry-run", action="store_true", help="show what would change")
    options = parser.parse_args()
    tag = f"{options.component}/v{options.version}"
    try:
        today = dt.datetime.now(dt.UTC).date()
        changed = plan(options.component, options.version, _read, today)
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 2
    print(show(changed, _read))
    if options.dry_run:
        print(f"then: git commit, git tag {tag}")
        return 0
    if _git("status", "--porcelain"):
        print("release: the working tree has changes; commit them first", file=sys.stderr)
        return 2
    for path, text in changed.items():
        (ROOT / path).write_text(text, encoding="utf-8")
    _git("commit", "-q", "-m", f"{options.component} {options.version}", "--", *changed)
    _git("tag", tag)
    print(f"committed and tagged {tag}; push both")
    return 0


if __name__ == "__main__":
    sys.exit(main())
