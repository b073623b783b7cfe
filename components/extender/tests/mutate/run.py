"""Changes the deciding modules in every small way and shows which changes no test notices.

Run: python components/extender/tests/mutate/run.py [--jobs 2] [--sample 100] [module ...]
"""

import argparse
import ast
import importlib
import importlib.abc
import importlib.machinery
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis
import pytest
from changes import Mutant, mutants

GOAL_PERCENT = 85.0
PRELOADED = (
    "falcon", "hypothesis.stateful", "kubernetes", "msgspec", "prometheus_client", "ruamel.yaml",
    "structlog", "waitress",
)  # fmt: skip
"""What the tests import beside our own modules: once for all mutants."""
EXTENDER, KIT = "components/extender", "libs/hamikit"


def _tests(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/tests/test_{name}.py" for name in names)


ENGINE = _tests(EXTENDER, "vectors", "engine")
MODULES = {
    "hami_extender.fit": (
        *_tests(EXTENDER, "fit", "fit_groups", "placement", "families", "mig_placement"),
        *ENGINE,
    ),
    "hami_extender.partition": _tests(EXTENDER, "partition", "mig_placement"),
    "hami_extender.cards": (
        *_tests(EXTENDER, "cards", "fit", "mig_placement", "placement"),
        *ENGINE,
    ),
    "hami_extender.score": (*_tests(EXTENDER, "score", "ranking", "fit", "fit_groups"), *ENGINE),
    "hami_extender.usage": (*_tests(EXTENDER, "usage", "snapshot", "flights", "families"), *ENGINE),
    "hamikit.shape": (
        *_tests(KIT, "shape", "shape_bounds"),
        *_tests(EXTENDER, "placement", "families"),
        *ENGINE,
    ),
    "hamikit.codec": (*_tests(KIT, "codec"), *_tests(EXTENDER, "inventory")),
}
"""Module -> the tests that answer for it, quick ones first."""
QUICK = hypothesis.settings(derandomize=True, database=None, deadline=None, max_examples=60)
SLACK_S = 20.0
WORSE = 5.0
"""A mutant that takes this many times as long as the original counts as noticed: it hangs."""


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a changed tree."""

    def __init__(self, name: str, tree: ast.Module, path: str) -> None:
        self._name, self._tree, self._path = name, tree, path

    def find_spec(self, name, _path=None, _target=None):
        """Ours, or nobody's business."""
        if name != self._name:
            return None
        return importlib.machinery.ModuleSpec(name, self, origin=self._path)

    def exec_module(self, module):
        """Run the changed module."""
        exec(compile(self._tree, self._path, "exec"), module.__dict__)


def source_of(module: str) -> Path:
    """Where a module is written."""
    package, _, name = module.partition(".")
    return Path(KIT if package == "hamikit" else EXTENDER) / "src" / package / f"{name}.py"


def child(module: str, tree: ast.Module | None, tests: Sequence[str]) -> None:
    """Run the tests on a changed module, in a process of its own; never returns."""
    os.setpgid(0, 0)
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    if tree is not None:
        sys.meta_path.insert(0, Changed(module, tree, str(source_of(module))))
    hypothesis.settings.register_profile("mutate", QUICK)
    hypothesis.settings.load_profile("mutate")
    flags = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist"]
    os._exit(int(pytest.main([*flags, *tests]) != 0))


def noticed(module: str, tree: ast.Module | None, tests: Sequence[str], limit_s: float) -> bool:
    """Whether a test fails on a changed module, or hangs."""
    pid = os.fork()
    if pid == 0:
        try:
            child(module, tree, tests)
        finally:
            os._exit(1)
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status != 0
        time.sleep(0.02)
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        return status != 0
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def judge(module: str, jobs: int, sample: int, rng: random.Random) -> tuple[int, list[Mutant]]:
    """How many mutants there were, and those that nobody noticed."""
    tests = MODULES[module]
    started = time.monotonic()
    if noticed(module, None, tests, 600):
        raise SystemExit(f"{module}: its tests fail without any change")
    limit_s = SLACK_S + WORSE * (time.monotonic() - started)
    found = list(mutants(source_of(module).read_text()))
    if sample:
        found = rng.sample(found, min(sample, len(found)))
    with ThreadPoolExecutor(jobs) as pool:
        seen = list(pool.map(lambda one: noticed(module, one.tree, tests, limit_s), found))
    left = [one for one, killed in zip(found, seen, strict=True) if not killed]
    print(f"{module}: {len(found) - len(left)} of {len(found)} mutants noticed", flush=True)
    for one in left:
        print(f"  not noticed: {source_of(module)}, {one.what}", flush=True)
    return len(found), left


def main() -> None:
    """Judge the modules; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", default=list(MODULES))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--sample", type=int, default=0, help="so many of each module's mutants")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for name in PRELOADED:
        importlib.import_module(name)
    rng, goals, total, missed = random.Random(options.seed), [], 0, 0
    for module in options.modules:
        count, left = judge(module, options.jobs, options.sample, rng)
        total, missed = total + count, missed + len(left)
        goals.append(_goal(f"mutants of {module} noticed", count, len(left)))
    goals.append(_goal("mutants noticed", total, missed))
    print(json.dumps({"bench": "mutants of the extender", "goals": goals}))
    sys.exit(0 if goals[-1]["met"] else 1)


def _goal(name: str, count: int, missed: int) -> dict[str, object]:
    percent = round(100 * (count - missed) / count, 1)
    met = percent >= GOAL_PERCENT
    return {"name": name, "value": percent, "unit": "%", "goal": GOAL_PERCENT, "met": met}


if __name__ == "__main__":
    main()
