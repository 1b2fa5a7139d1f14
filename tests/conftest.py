"""Settings of every test."""

from hypothesis import settings

# Timings are never asserted in tests: the machine that runs them has other work too.
settings.register_profile("panloom", deadline=None)
settings.load_profile("panloom")


def pytest_collection_modifyitems(items):
    """Look at what the host is like when all else has run."""
    items.sort(key=lambda item: item.path.name == "test_harmless.py")
