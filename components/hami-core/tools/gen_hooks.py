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
ALIAS = re.compile(r"alias\s+(?P<base>\w+)\s+(?P<version>\d+)\s+(?P<symbol>\w+)$")
SKIP = re.compile(r"skip\s+(?P<names>[\w*,]+)\s+(?P<reason>\S.*)$")
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


@dataclass(frozen=True, slots=True)
class Alias:
    """Another name for a symbol, from a version on."""

    base: str
    version: int
    symbol: str


@dataclass(frozen=True, slots=True)
class Skip:
    """Names that are not answered for, and why."""

    names: tuple[str, ...]
    reason: str


def parse_line(line: str) -> Hook | Alias | Skip | None:
    """One line of a hooks.def; None if it is none of the three kinds."""
    if match := LINE.match(line):
        fields = match.groupdict()
        return Hook(**{**fields, "version": int(fields["version"])})
    if match := ALIAS.match(line):
        return Alias(match["base"], int(match["version"]), match["symbol"])
    if match := SKIP.match(line):
        return Skip(tuple(match["names"].split(",")), match["reason"])
    return None


def parse(text: str) -> Iterator[Hook | Alias | Skip]:
    """The rows of a hooks.def; SystemExit names the first line that is wrong."""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        row = parse_line(line)
        if row is None:
            raise SystemExit(f"hooks.def:{number}: cannot read {line!r}")
        yield row


def header(hooks: list[Hook], aliases: int) -> str:
    """Declarations of every wrapper, the type of every real function and an identifier for each."""
    lines = [
        "/* Generated from hooks.def. */",
        "#ifndef HAMI_HOOKS_GEN_H",
        "#define HAMI_HOOKS_GEN_H",
    ]
    lines += ['#include "cuda_abi.h"', "", "enum hook_id {"]
    lines += [f"    HOOK_{hook.symbol}," for hook in hooks]
    lines += ["    HOOK_COUNT", "};", "", f"enum {{ HOOK_ALIAS_COUNT = {aliases} }};", ""]
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


def alias_table(aliases: list[Alias]) -> str:
    """The other names, after the table."""
    lines = ["const struct hook_alias hook_aliases[HOOK_ALIAS_COUNT] = {"]
    lines += [f'    {{"{a.base}", {a.version}, HOOK_{a.symbol}}},' for a in aliases]
    return "\n".join([*lines, "};", ""])


def main() -> None:
    """gen_hooks.py hooks.def hooks_gen.h hooks_gen.c."""
    source, header_path, table_path = map(Path, sys.argv[1:4])
    rows = list(parse(source.read_text()))
    hooks = sorted((r for r in rows if isinstance(r, Hook)), key=lambda hook: hook.symbol)
    aliases = [row for row in rows if isinstance(row, Alias)]
    symbols = [hook.symbol for hook in hooks]
    if len(set(symbols)) != len(symbols):
        raise SystemExit(f"{source}: a symbol is listed twice")
    header_path.write_text(header(hooks, len(aliases)))
    table_path.write_text(table(hooks) + "\n" + alias_table(aliases))


if __name__ == "__main__":
    main()
