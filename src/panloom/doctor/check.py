"""One finding of ``panloom doctor``."""

from collections.abc import Iterable
from enum import Enum

import msgspec


class Purpose(Enum):
    """What a machine may be wanted for."""

    CONTROL_NODE = "control-node"
    DEMO = "demo"
    TESTS = "tests"
    BENCHMARKS = "benchmarks"


class State(Enum):
    """How a thing is."""

    OK = "ok"
    WITHOUT = "without"
    """Not there, and it goes without."""
    MISSING = "missing"
    """Not there, and needed."""
    UNKNOWN = "unknown"
    """This user may not look."""


class Check(msgspec.Struct, frozen=True):
    """A row: ``found`` is what there is, or why there is none; ``mend`` what brings it, as words for a person."""

    purpose: Purpose
    what: str
    state: State
    found: str = ""
    mend: str = ""
    packages: tuple[str, ...] = ()
    """Debian packages that bring it."""


def lacks(checks: Iterable[Check], purposes: Iterable[Purpose]) -> bool:
    """Whether something that is needed for one of the purposes is missing."""
    wanted = frozenset(purposes)
    return any(check.state is State.MISSING and check.purpose in wanted for check in checks)
