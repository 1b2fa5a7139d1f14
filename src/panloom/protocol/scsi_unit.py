"""One logical unit as all its sessions share it, and each session's end of it: the I_T nexus (SAM-5 4.6.5).

              LogicalUnit ── reservations, mode values, medium, sanitizing
              ▲    ▲    │
      changes │    │    ▼ tells: attentions, restricted
            Nexus  Nexus  …        one for each session and unit

A unit lives as long as its device is exported.  All calls into units and nexuses are made under one lock, which their
owner has and which is never held while something is done on a medium.  What must outlive the process goes through
``keep``, which returns when it is durable and raises OSError when it cannot be.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum, auto

import msgspec

from panloom.errors import ConfigError, PanloomError
from panloom.protocol.scsi_reservations import Access, NexusName, Registration, Reservations
from panloom.wire import scsi_sense
from panloom.wire.scsi_sense import Sense

_FORMAT = 1
NO_LOCK: AbstractContextManager[object] = nullcontext()  # of a unit that one thread alone has


class Medium(Enum):
    """Where a removable medium is."""

    LOADED = auto()
    EJECTED = auto()


class Erasing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A SANITIZE that is not over; ``block`` None gives the space back, otherwise it is written ``passes`` times."""

    block: bytes | None
    passes: int = 1
    invert: bool = False  # every other pass, counted from the last but one
    unrestricted_exit: bool = False  # its failure may be passed over
    failed: bool = False

    def block_of(self, number: int) -> bytes:
        """Return what a pass writes; the last one, ``passes - 1``, is as the initiator asked for."""
        block = self.block or b""
        return bytes(octet ^ 0xFF for octet in block) if self.invert and (self.passes - 1 - number) % 2 else block


class Remembered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a unit is to know after a restart."""

    format: int = _FORMAT
    reservations: Reservations = Reservations()
    erasing: "Erasing | None" = None
    intent: tuple[int, bytes] | None = None


class Nexus:
    """One session's end of one unit; ``name`` is the same after it has logged in anew."""

    def __init__(self, name: NexusName) -> None:
        self.name = name
        self.attentions: deque[Sense] = deque()
        self.left = False  # the session has ended
        self.waits = False  # a SANITIZE of its has no status yet
        self.restricted = False  # its READs and WRITEs may not be what they usually are
        self.noticed: Callable[[], None] = _unheard  # called when either of them has changed
        self.abort: Callable[[], None] = _unheard
        self.await_quiet: Callable[[], None] = _unheard
        self.settle: Callable[[], None] = _unheard  # returns once the session has ended, if its initiator has closed it

    def raise_attention(self, sense: Sense) -> None:
        """Tell the initiator of an event with its next command to the unit; the same one is told once."""
        if sense not in self.attentions:
            self.attentions.append(sense)
            self.noticed()


def _unheard() -> None:
    """Nobody listens."""


class LogicalUnit:
    """See above.  ``remembered`` is what ``keep`` was last given.

    Both locks are the owner's.  ``keeping`` lets through one change at a time of what is kept; it is taken before
    ``lock`` and held over the disk.
    """

    def __init__(
        self,
        *,
        lock: AbstractContextManager[object] = NO_LOCK,
        keeping: AbstractContextManager[object] = NO_LOCK,
        keep: Callable[[bytes], None] | None = None,
        remembered: bytes | None = None,
    ) -> None:
        """ConfigError when what was remembered cannot be read."""
        self.lock = lock
        self.keeping = keeping
        self._keep = keep
        known = _decode(remembered) if remembered else Remembered()
        self._kept = known
        self.reservations = known.reservations
        self.reserved_by: Nexus | None = None  # RESERVE(6)
        self.write_cache = True
        self.write_protected = False  # SWP of the control mode page
        self.medium = Medium.LOADED
        self.prevented_by: set[Nexus] = set()
        self.erasing = known.erasing
        self.intent = known.intent  # a WRITE ATOMIC, from before it begins until all of it is durable
        self.nexuses: list[Nexus] = []
        # Begins to erase the unit by what reaches its medium; returns how that went, at once unless ``waiting.waits``.
        self.erase: Callable[..., Sense | None] | None = None  # None: no SANITIZE here

    @property
    def cannot_write(self) -> Sense | None:
        """Why nobody may write, if so."""
        return scsi_sense.SOFTWARE_WRITE_PROTECTED if self.write_protected else None

    @property
    def can_keep(self) -> bool:
        """Whether anything here can outlive the process."""
        return self._keep is not None

    def join(self, nexus: Nexus) -> None:
        """Let a session have its end of the unit."""
        self.nexuses.append(nexus)
        self.recheck()

    def leave(self, nexus: Nexus) -> None:
        """End what ends with a session: an I_T nexus loss (SAM-5 6.3.4)."""
        nexus.left, nexus.waits = True, False
        self.nexuses.remove(nexus)
        self.prevented_by.discard(nexus)
        if self.reserved_by is nexus:
            self.reserved_by = None
        self.recheck()

    def in_the_way(self, nexus: Nexus) -> tuple[Nexus, ...]:
        """Return the other sessions that hold what ends with them, and keep this one from something."""
        holders = {*self.prevented_by, self.reserved_by}
        return tuple(each for each in holders if each is not None and each is not nexus)

    def reset(self, sense: Sense) -> None:
        """End what ends with a reset of the unit (SAM-5 6.3.3), and tell every initiator."""
        self.reserved_by = None
        self.prevented_by.clear()
        self.write_cache, self.write_protected = True, False
        for nexus in self.nexuses:
            nexus.raise_attention(sense)
        self.recheck()

    def tell_others(self, nexus: Nexus, sense: Sense) -> None:
        """Raise an attention for every nexus but one."""
        for other in self.nexuses:
            if other is not nexus:
                other.raise_attention(sense)

    def tell(self, registration: Registration, sense: Sense) -> None:
        """Raise an attention for the sessions of a registered nexus."""
        for nexus in self.of(registration):
            nexus.raise_attention(sense)

    def of(self, registration: Registration) -> tuple[Nexus, ...]:
        """Return the sessions of a registered nexus."""
        return tuple(nexus for nexus in self.nexuses if registration.is_of(nexus.name))

    def permits(self, nexus: Nexus, access: Access) -> bool:
        """Whether no reservation stands against that access; RESERVE(6) shuts reading out too."""
        if self.reserved_by not in (None, nexus) and access is not Access.FREE:
            return False
        return self.reservations.permit(nexus.name, access)

    def recheck(self) -> None:
        """Find out anew whose READs and WRITEs are no plain ones; call it after every change."""
        odd = not self.write_cache or self.write_protected
        odd |= self.medium is not Medium.LOADED or self.erasing is not None
        odd |= self.intent is not None
        for nexus in self.nexuses:
            restricted = odd or not self.permits(nexus, Access.WRITE)
            if restricted != nexus.restricted:
                nexus.restricted = restricted
                nexus.noticed()

    @contextmanager
    def intend(self, offset: int, data: bytes) -> Iterator[None]:
        """Remember a write for as long as it takes, so that a crash cannot leave a part of it; OSError.

        Meanwhile nobody else writes.  Where it cannot be forgotten nobody does until the next start, which ends it.
        """
        with self.keeping:
            self.remember(intent=(offset, data))
            self._intent((offset, data))
            try:
                yield
            except (OSError, PanloomError):
                self.forget_intent()  # refused, or failed: the next start must not do it again
                raise
            self.forget_intent()

    def forget_intent(self) -> None:
        """Take note that what was intended is durable; call it with ``keeping`` held.  OSError."""
        self.remember(intent=None)
        self._intent(None)

    def _intent(self, intent: tuple[int, bytes] | None) -> None:
        with self.lock:
            self.intent = intent
            self.recheck()

    def remember(self, **changes: object) -> None:
        """Make what the unit is to know after a restart durable, before it counts; OSError when that fails.

        Call it with ``keeping`` held, and without ``lock``.  Reservations are left out unless they are to survive.
        """
        wanted = msgspec.structs.replace(self._kept, **changes)
        if not wanted.reservations.durable:
            wanted = msgspec.structs.replace(wanted, reservations=Reservations())
        if wanted == self._kept or self._keep is None:
            return
        self._keep(msgspec.json.encode(wanted))
        self._kept = wanted


def _decode(octets: bytes) -> Remembered:
    try:
        remembered = msgspec.json.decode(octets, type=Remembered)
        if remembered.format != _FORMAT:
            raise ConfigError("unit", f"has format {remembered.format}, this program knows {_FORMAT}; use a newer one")
    except msgspec.DecodeError as error:
        raise ConfigError("unit", f"what it is to remember is damaged: {error}") from error
    return remembered
