"""Settings of every test, and how two processes share them out."""

import signal
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

# Timings are never asserted in tests: the machine that runs them has other work too, and may stand still for seconds.
settings.register_profile("panloom", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("panloom")


# A script that starts us in the background has SIGINT ignored, and what we start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


class SharedByFile(LoadScopeScheduling):
    """Keeps the tests of a file together, and all that boot machines: each machine fills a processor.

    By itself pytest-xdist 3.8 sees no groups under pytest 9.2, which dropped the attribute that it notes them in.
    """

    def _split_scope(self, nodeid):
        path = nodeid.partition("::")[0]
        return "machines" if boots_machines(Path(self.config.rootpath) / path) else path


@cache
def boots_machines(path):
    return "pytest.mark.machine" in path.read_text()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return SharedByFile(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Begin with what takes longest, so that the other process has done all the rest meanwhile."""
    items.sort(key=lambda item: item.get_closest_marker("machine") is None)
