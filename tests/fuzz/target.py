"""A fuzz target: a function of any octets whose docstring is the invariant, and inputs to begin with.

@target(seeds=lambda: (dhcp.encode(DISCOVER),))
def message(octets):
    \"\"\"Any octets are a message that decodes from its own encoding, or are malformed.\"\"\"

It returns when the invariant holds and raises anything else when not.  It keeps nothing between two calls.
"""

import importlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

MODULES = ("codecs", "dhcp", "tftp", "iscsi", "boot", "documents", "channel")


class Target(NamedTuple):
    """``name`` is MODULE.FUNCTION; ``seeds`` makes valid inputs."""

    name: str
    invariant: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]


def target(*, seeds: Callable[[], Iterable[bytes]]) -> Callable[[Callable[[bytes], None]], Target]:
    """Make a target of a function."""

    def make(run: Callable[[bytes], None]) -> Target:
        name = f"{run.__module__.rpartition('.')[2]}.{run.__name__}"
        return Target(name, run.__doc__ or "", run, seeds)

    return make


def find(name: str) -> Target:
    """Import one target, and of the product only what it needs."""
    module, _, function = name.partition(".")
    found = getattr(importlib.import_module(f"fuzz.{module}"), function, None)
    if not isinstance(found, Target):
        raise SystemExit(f"there is no target {name}")
    return found


def every_target() -> tuple[Target, ...]:
    """Return all targets in the order of the modules."""
    modules = [importlib.import_module(f"fuzz.{name}") for name in MODULES]
    return tuple(each for module in modules for each in vars(module).values() if isinstance(each, Target))
