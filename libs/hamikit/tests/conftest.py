"""Fixtures of hamikit's tests."""

import importlib.util
from pathlib import Path

import pytest


def _load(name):
    # Test folders are no packages (several components have files of the same name).
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def server():
    """An API server whose answers the test prepares."""
    with _load("apiserver").FakeApiServer() as running:
        yield running
