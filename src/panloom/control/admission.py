"""Whether servers' targets grant what they should, and how many are told news at once.

    records, documents ──▶ epoch, initiator, SHA-256 of identity ─┐
                                                                  ├─ the same: admitted
    exports of the storage process ───────────────────────────────┘

One edit of the platform may change what every server is told.  None of those that run waits for such news, so that few
are exported anew at a time and a fence finds a free thread in the storage process.  A grant that is missing waits for
nobody.
"""

from collections.abc import Collection, Mapping, Sequence

from panloom.control.personalities import Identities
from panloom.control.volumes import MAX_AT_ONCE
from panloom.control.world import World
from panloom.decide.records import ServerRecord, personality_target_of, target_of
from panloom.errors import UnavailableError
from panloom.storage import calls


class Admission:
    """What the targets of servers grant and tell, held against records and documents."""

    def __init__(self) -> None:
        self._identities = Identities()
        self._again: set[str] = set()
        """Servers that run and are being told news."""
        self._turn = 0
        self._turns: dict[str, int] = {}
        """Server → in which turn it was begun last."""

    def is_there(self, name: str, record: ServerRecord, exports: Mapping[str, calls.ExportFacts], world: World) -> bool:
        """Whether both targets grant what they should, and tell the server who it is now; ``exports`` are by target.

        Sessions go on with what they were told: a server reads the news when it boots next.
        """
        return self.is_granted(name, record, exports, world) and self._tells(name, record, exports, world)

    def is_granted(
        self, name: str, record: ServerRecord, exports: Mapping[str, calls.ExportFacts], world: World
    ) -> bool:
        """Whether both targets grant exactly a server's node under exactly its epoch."""
        if record.node is None:
            return False
        expected = (record.epoch, str(world.initiator(record.node)))
        granted = [(one.epoch, one.access.initiator) for one in _found(name, exports) if one.access is not None]
        return granted == [expected, expected]

    def _tells(self, name: str, record: ServerRecord, exports: Mapping[str, calls.ExportFacts], world: World) -> bool:
        try:
            wanted = self._identities.digest(name, record, world)
        except UnavailableError:
            return True  # a document is missing: there is nothing to tell
        told = {lun.content_sha256 for one in _found(name, exports) for lun in one.luns} - {None}
        return not wanted or told == {wanted}

    def why_untold(self, name: str, record: ServerRecord, world: World) -> str | None:
        """Return why a server cannot be told what documents say of it by now: it does not fit; None if it does."""
        why = self._identities.why_not(name, record, world)
        return f"{why}; until then it is told what it was told before" if why else None

    def keep(self, servers: Mapping[str, ServerRecord]) -> None:
        """Forget all servers but these."""
        self._identities.keep(servers)
        self._turns = {name: turn for name, turn in self._turns.items() if name in servers}

    def in_turn(self, due: Mapping[str, bool], at_work: Collection[str]) -> tuple[str, ...]:
        """Return those of the servers for which something is due that are to be worked for now.

        ``due`` says whether that is no more than to tell news to one that runs: of these at most MAX_AT_ONCE are at
        work, and those whose last try is longest ago come first.
        """
        self._again &= set(at_work)
        waiting = [name for name, is_news in due.items() if is_news and name not in self._again]
        waiting.sort(key=lambda name: self._turns.get(name, 0))
        again = waiting[: max(0, MAX_AT_ONCE - len(self._again))]
        self._again.update(again)
        self._turn += 1
        self._turns.update(dict.fromkeys(again, self._turn))
        return (*(name for name, is_news in due.items() if not is_news), *again)


def _found(name: str, exports: Mapping[str, calls.ExportFacts]) -> Sequence[calls.ExportFacts]:
    targets = (str(target_of(name)), str(personality_target_of(name)))
    return [exports[target] for target in targets if target in exports]
