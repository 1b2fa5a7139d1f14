"""Settings of every test."""

from hypothesis import settings

# Timings are never asserted in tests: the machine that runs them has other work too.
settings.register_profile("panloom", deadline=None)
settings.load_profile("panloom")
