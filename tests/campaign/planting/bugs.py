"""Bugs that have lost data elsewhere, each as an edit of one module, made while that is imported."""

import importlib.abc
import importlib.util
import sys
from pathlib import Path
from typing import NamedTuple


class Bug(NamedTuple):
    """What is wrong, and where: ``before`` stands once in the module, and becomes ``after``.

    ``finder``: the tests that are to find it.
    """

    what: str
    module: str
    before: str
    after: str
    finder: str


BUGS = {
    "flush-before-sync": Bug(
        "a flush is answered before the disk has it",
        "panloom.storage.overlay",
        "            self._sync(top.flush)\n            top.write_durable(pages)\n",
        "            top.write_durable(pages)\n",
        "tests/campaign/test_campaign.py -k scene",
    ),
    "access-not-dropped": Bug(
        "a fence leaves the old node its access",
        "panloom.storage.connection_manager",
        "self._exports[target] = msgspec.structs.replace(known, epoch=epoch, access=None)",
        "self._exports[target] = msgspec.structs.replace(known, epoch=epoch)",
        "tests/storage/test_fences.py",
    ),
    "cache-denied": Bug(
        "MODE SENSE says that there is no write cache, and a write is answered before the disk has it",
        "panloom.protocol.scsi_modes",
        "return bytes((_WCE if write_cache else 0,)).ljust(",
        "return bytes((0,)).ljust(",
        "tests/campaign/test_campaign.py -k without_cache",
    ),
    "compare-without-lock": Bug(
        "COMPARE AND WRITE lets others write between",
        "panloom.storage.access",
        "        with self.turnstile.alone(self.rights):\n            self.store.read(",
        "        if True:\n            self.store.read(",
        "tests/campaign/test_histories.py -k compared",
    ),
    "reservations-not-saved": Bug(
        "a reservation that is to outlive the process is answered and not written down",
        "panloom.protocol.scsi_unit",
        "        self._keep(msgspec.json.encode(wanted))\n",
        "",
        "tests/campaign/test_histories.py -k reservations",
    ),
    "fence-only-said": Bug(
        "a fence says that the old node is shut out of its disk before it is",
        "panloom.control.acts",
        "        match step:\n            case Step.EPOCH:\n",
        "        match Step.EPOCH if step in (Step.REFUSE_LOGINS, Step.DROP_SESSIONS, Step.DRAIN_WRITES) else step:\n"
        "            case Step.EPOCH:\n",
        "tests/campaign/test_failovers.py -k lives_on",
    ),
    "sessions-not-ended": Bug(
        "the sessions of a node that lost its disk are not ended",
        "panloom.storage.connection_manager",
        "        dropped = [session for session in sessions if session.state is not SessionState.DROPPED]\n",
        "        dropped = []\n",
        "tests/campaign/test_failovers.py -k lives_on",
    ),
    "lease-by-wall-clock": Bug(
        "a lease ends when somebody sets the clock",
        "panloom.state.sqlite",
        "clock: Callable[[], float] = time.monotonic,",
        "clock: Callable[[], float] = lambda: time.time(),",
        "tests/state/test_wall_clock.py",
    ),
}


class _Planter(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, bug: Bug) -> None:
        self._bug = bug
        self._looking = False

    def find_spec(self, name, path=None, target=None):
        """Claim the module, compiled or not."""
        if name != self._bug.module or self._looking:
            return None
        self._looking = True
        try:
            found = importlib.util.find_spec(name)
        finally:
            self._looking = False
        return importlib.util.spec_from_loader(name, self, origin=found.origin)

    def exec_module(self, module):
        """Run the edited source."""
        place = module.__spec__.origin
        place = place if place.endswith(".py") else place.partition(".")[0] + ".py"
        exec(compile(edited(self._bug, Path(place)), place, "exec"), module.__dict__)


def edited(bug: Bug, place: Path) -> str:
    """Return the source of the bug's module with the bug in it; ImportError if it has changed too much for that."""
    source = place.read_text()
    if source.count(bug.before) != 1:
        raise ImportError(f"{bug.module} has changed: what the planted bug replaces is not there once")
    return source.replace(bug.before, bug.after)


def plant(name: str) -> None:
    """Have the bug in the module, whenever that is imported from here on."""
    sys.meta_path.insert(0, _Planter(BUGS[name]))
