"""What holds for all tests: none fails for being slow, and none outlives itself in a thread."""

import sys
import threading
from collections.abc import Iterator

import hypothesis
import pytest

hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.load_profile("house")


@pytest.fixture(autouse=True)
def _informers_end() -> Iterator[None]:
    """What a test watched is not watched any more in the next one."""
    before = set(threading.enumerate())
    yield
    module = sys.modules.get("hamikit.informer")  # none of those tests pays for the import
    for thread in set(threading.enumerate()) - before if module else ():
        informer = getattr(getattr(thread, "_target", None), "__self__", None)
        if isinstance(informer, module.Informer):
            informer.stop()
