"""Makes the helpers of these tests importable, and gives each test a node of its own."""

import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from plugin_kit import Node


@pytest.fixture
def node():
    """A node's folders below a short path: a unix socket's name holds 107 bytes."""
    root = Path(tempfile.mkdtemp(prefix="hdp"))
    yield Node(root)
    shutil.rmtree(root)
