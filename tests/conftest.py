"""Settings of every test."""

import pytest
from hypothesis import HealthCheck, settings

# Timings are never asserted in tests: the machine that runs them has other work too, and may stand still for seconds.
settings.register_profile("panloom", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("panloom")


def pytest_collection_modifyitems(items):
    """Share the tests out by file; those that boot machines wait for one another, as each fills a processor."""
    for item in items:
        group = "machine" if item.get_closest_marker("machine") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
