"""What holds for all tests: none is failed for being slow on a busy machine."""

import hypothesis

hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.load_profile("house")
