"""Generated from proto/; see tests/test_api.py for how to make it anew."""
