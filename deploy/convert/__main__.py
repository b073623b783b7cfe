"""python -m deploy.convert VALUES FOLDER: write an overlay for the values of HAMi's chart.

VALUES is what `helm get values RELEASE` prints. With --table in their place, the table of
docs/compatibility.md.
"""

import argparse
import os
import sys
from pathlib import Path

from ruamel.yaml import YAML

from deploy.convert import table
from deploy.convert.overlay import Base, convert
from hamikit.configcheck import check

DEPLOY = Path(__file__).resolve().parents[1]


def base() -> Base:
    """The base's own settings."""

    def setting(path: str, key: str) -> str:
        text = (DEPLOY / "base" / path).read_text(encoding="utf-8")
        found: str = YAML(typ="safe").load(text)["data"][key]
        return found

    return Base(
        setting("config/device-config.yaml", "device-config.yaml"),
        setting("scheduler/config.yaml", "config.yaml"),
    )


def main(argv: list[str]) -> int:
    """Write the files, say what was left out; 2 when the result could not be used."""
    parser = argparse.ArgumentParser(prog="python -m deploy.convert", description=__doc__)
    parser.add_argument("--table", action="store_true", help="print the table instead")
    parser.add_argument("values", nargs="?", help="values.yaml")
    parser.add_argument("folder", nargs="?", help="where the overlay goes; must not exist")
    options = parser.parse_args(argv)
    if options.table:
        print("| HAMi's chart | here |\n|---|---|")
        for key, text in table.rows():
            print(f"| `{key}` | {text} |")
        return 0
    if not options.values or not options.folder:
        parser.error("give VALUES and FOLDER")
    values = YAML(typ="safe").load(Path(options.values).read_text(encoding="utf-8")) or {}
    folder = Path(options.folder)
    made = convert(values, base(), os.path.relpath(DEPLOY, folder))
    folder.mkdir(parents=True)
    for name, text in made.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    for note in made.notes:
        print(note)
    return _judge(made.files.get("device-config.yaml"))


def _judge(config_map: str | None) -> int:
    """Whether the settings can be used; HAMi takes some that mean nothing."""
    if config_map is None:
        return 0
    checked = check(YAML(typ="safe").load(config_map)["data"]["device-config.yaml"])
    for finding in (*checked.faults, *checked.warnings):
        print(f"device-config.yaml: {finding}")
    return 2 if checked.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
