# ruff: noqa: INP001 - a program of the build, no package
"""Generates the hook table from src/hooks.def: a C header, and a C file with the table."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LINE = re.compile(
    r"(?P<library>cuda|nvml)\s+(?P<symbol>\w+)\s+(?P<base>\w+)\s+(?P<version>\d+)"
    r"\s+(?P<stream>any|legacy|thread)\s+(?P<parameters>\(.*\))$"
)
RESULT = {"cuda": "CUresult", "nvml": "nvmlReturn_t"}


@dataclass(frozen=True, slots=True)
class Hook:
    """One line of hooks.def."""

    library: str
    symbol: str
    base: str
    version: int
    stream: str
    parameters: str


def parse(text: str) -> Iterator[Hook]:
    """The hooks of a hooks.def; SystemExit names the first line that is wrong."""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = LINE.match(line)
        if match is None:
            raise SystemExit(f"hooks.def:{number}: cannot read {line!r}")
        fields = match.groupdict()
        yield Hook(**{**fields, "version": int(fields["version"])})


def header(hooks: list[Hook]) -> str:
    """Declarations of every wrapper, the type of every real function and an identifier for each."""
    lines = [
        "/* Generated from hooks.def. */",
        "#ifndef HAMI_HOOKS_GEN_H",
        "#define HAMI_HOOKS_GEN_H",
    ]
    lines += ['#include "cuda_abi.h"', "", "enum hook_id {"]
    lines += [f"    HOOK_{hook.symbol}," for hook in hooks]
    lines += ["    HOOK_COUNT", "};", ""]
    for hook in hooks:
        result = RESULT[hook.library]
        lines += [f"typedef {result} {hook.symbol}_fn{hook.parameters};"]
        lines += [
            f'__attribute__((visibility("default"))) {result} {hook.symbol}{hook.parameters};'
        ]
    return "\n".join([*lines, "", "#endif", ""])


def table(hooks: list[Hook]) -> str:
    """The table itself, sorted by symbol for binary search."""
    lines = [
        "/* Generated from hooks.def. */",
        '#include "dispatch.h"',
        "",
        "const struct hook hooks[HOOK_COUNT] = {",
    ]
    lines += [
        f'    {{"{hook.symbol}", "{hook.base}", {hook.version}, STREAM_{hook.stream.upper()},'
        f" LIBRARY_{hook.library.upper()}, (hook_function *){hook.symbol}}},"
        for hook in hooks
    ]
    return "\n".join([*lines, "};", ""])


def main() -> None:
    """gen_hooks.py hooks.def hooks_gen.h hooks_gen.c."""
    source, header_path, table_path = map(Path, sys.argv[1:4])
    hooks = sorted(parse(source.read_text()), key=lambda hook: hook.symbol)
    symbols = [hook.symbol for hook in hooks]
    if len(set(symbols)) != len(symbols):
        raise SystemExit(f"{source}: a symbol is listed twice")
    header_path.write_text(header(hooks))
    table_path.write_text(table(hooks))


if __name__ == "__main__":
    main()
