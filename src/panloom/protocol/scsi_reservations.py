"""Persistent reservations of one logical unit: a value, and what each service action makes of it (SPC-4 r37 5.12).

    PERSISTENT RESERVE OUT ──▶ change(…) ──▶ Change: the new value, who is told what, whose tasks die
                                         └─▶ Sense or Conflict, and nothing has changed

    type                             holder       others registered     others
    1  write exclusive               all          reads                 reads
    3  exclusive access              all          nothing               nothing
    5  write exclusive, registrants  all          all                   reads
    6  exclusive access, registrants all          all                   nothing
    7  write exclusive, all          every registrant is a holder       reads
    8  exclusive access, all         every registrant is a holder       nothing

Everything here is a function of its arguments.  A nexus is known by two names, its initiator port's and its target's,
so it is the same after it has logged in anew.  PRgeneration counts modulo 2**32 and never goes back while the unit
lives.
"""

from enum import Enum, auto

import msgspec

from panloom.protocol.scsi_verdicts import Conflict
from panloom.wire import scsi_cdb, scsi_sense
from panloom.wire.scsi_reserve import MoveParameters, ReserveParameters
from panloom.wire.scsi_sense import Sense

WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS = 1, 3
TYPES = frozenset((1, 3, 5, 6, 7, 8))
_REGISTRANTS_ONLY = frozenset((5, 6))
_ALL_REGISTRANTS = frozenset((7, 8))
_READABLE = frozenset((1, 5, 7))  # by anybody
_TOLD_OF_RELEASE = _REGISTRANTS_ONLY | _ALL_REGISTRANTS
EVERY_TARGET = ""  # the target of a registration with ALL_TG_PT
MAX_REGISTRATIONS = 256


class Access(Enum):
    """What a command needs of a unit that is reserved (SPC-4 r37 tables 65 and 66, SBC-4 r22 table 13)."""

    FREE = auto()
    READ = auto()
    WRITE = auto()


class NexusName(msgspec.Struct, frozen=True, gc=False, order=True):
    """An I_T nexus: ``iqn…,i,0x…`` of the initiator port (RFC 7143 section 4.4), and the target's name."""

    initiator: str
    target: str


class Registration(msgspec.Struct, frozen=True, gc=False):
    """A key that a nexus has registered."""

    nexus: NexusName
    key: int

    def is_of(self, nexus: NexusName) -> bool:
        """Whether it counts for this nexus."""
        return self.nexus.initiator == nexus.initiator and self.nexus.target in (EVERY_TARGET, nexus.target)


class Reservations(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """All that is registered, and the reservation: ``type`` 0 is none, ``holder`` None with the types 7 and 8."""

    generation: int = 0
    registrations: tuple[Registration, ...] = ()
    type: int = 0
    holder: NexusName | None = None  # as its registration has it
    durable: bool = False  # APTPL: it outlives this process

    def of(self, nexus: NexusName) -> Registration | None:
        """Return a nexus's registration."""
        return next((each for each in self.registrations if each.is_of(nexus)), None)

    def is_holder(self, registration: Registration) -> bool:
        """Whether the reservation is held by it."""
        return self.type in _ALL_REGISTRANTS or (self.type != 0 and registration.nexus == self.holder)

    def permit(self, nexus: NexusName, access: Access) -> bool:
        """Whether a nexus has that access."""
        if access is Access.FREE or not self.type:
            return True
        registration = self.of(nexus)
        if registration and (self.type in _TOLD_OF_RELEASE or self.is_holder(registration)):
            return True
        return access is Access.READ and self.type in _READABLE


class Change(msgspec.Struct, frozen=True, gc=False):
    """What a service action has made: ``told`` are nexuses and what they are to hear."""

    after: Reservations
    told: tuple[tuple[Registration, Sense], ...] = ()
    aborted: tuple[Registration, ...] = ()


def change(
    before: Reservations,
    nexus: NexusName,
    command: scsi_cdb.PersistentReserveOut,
    parameters: ReserveParameters | MoveParameters,
) -> Change | Sense | Conflict:
    """Return what PERSISTENT RESERVE OUT makes of a unit's reservations; the parameters fit the service action."""
    action, mine = command.service_action, before.of(nexus)
    if isinstance(parameters, MoveParameters):
        return _move(before, nexus, mine, parameters)
    if action == scsi_cdb.REGISTER:
        if (mine.key if mine else 0) != parameters.key:
            return Conflict()
        return _register(before, nexus, mine, parameters)
    if action == scsi_cdb.REGISTER_AND_IGNORE_EXISTING_KEY:
        return _register(before, nexus, mine, parameters)
    if mine is None or mine.key != parameters.key:
        return Conflict()
    if action == scsi_cdb.CLEAR:
        told = tuple((each, scsi_sense.RESERVATIONS_PREEMPTED) for each in before.registrations if each != mine)
        return Change(_next(before, registrations=(), type=0, holder=None), told)
    scope, kind = command.scope_type >> 4, command.scope_type & 0x0F
    if action == scsi_cdb.RELEASE:
        return _release(before, mine, scope, kind)
    if scope or kind not in TYPES:
        return scsi_sense.INVALID_FIELD_IN_CDB
    if action == scsi_cdb.RESERVE:
        return _reserve(before, mine, kind)
    made = _preempt(before, mine, parameters.service_action_key, kind)
    if isinstance(made, Change) and action == scsi_cdb.PREEMPT_AND_ABORT:
        kept = made.after.registrations
        return msgspec.structs.replace(
            made, aborted=tuple(each for each in before.registrations if each not in kept and each != mine)
        )
    return made


def _next(before: Reservations, **changes: object) -> Reservations:
    return msgspec.structs.replace(before, generation=before.generation + 1 & 0xFFFFFFFF, **changes)


def _register(
    before: Reservations, nexus: NexusName, mine: Registration | None, parameters: ReserveParameters
) -> Change | Sense | Conflict:
    if mine is not None and parameters.initiators is not None:
        return scsi_sense.INVALID_FIELD_IN_PARAMETERS
    key, durable = parameters.service_action_key, parameters.durable
    if key == 0:
        if mine is None:
            return Change(_next(before))
        return _unregister(msgspec.structs.replace(before, durable=durable), mine)
    if mine is not None:
        renewed = msgspec.structs.replace(mine, key=key)
        registrations = tuple(renewed if each == mine else each for each in before.registrations)
        return Change(_next(before, registrations=registrations, durable=durable))
    target = EVERY_TARGET if parameters.all_targets else nexus.target
    names = {nexus.initiator: None, **dict.fromkeys(parameters.initiators or ())}
    new = tuple(Registration(NexusName(name, target), key) for name in names)
    if any(each.nexus.initiator == one.nexus.initiator for each in before.registrations for one in new[1:]):
        return Conflict()
    kept = tuple(  # ALL_TG_PT takes in what the same port had registered by one target
        each for each in before.registrations if target or each.nexus.initiator != nexus.initiator
    )
    if len(kept) + len(new) > MAX_REGISTRATIONS:
        return scsi_sense.INSUFFICIENT_REGISTRATION_RESOURCES
    holder = before.holder
    if holder is not None and not any(each.nexus == holder for each in kept):
        holder = new[0].nexus
    return Change(_next(before, registrations=(*kept, *new), holder=holder, durable=durable))


def _unregister(before: Reservations, mine: Registration) -> Change:
    """Take a registration back; the one that does it is told nothing."""
    others = tuple(each for each in before.registrations if each != mine)
    ends = before.is_holder(mine) and (before.type not in _ALL_REGISTRANTS or not others)
    if not ends:
        return Change(_next(before, registrations=others))
    told = others if before.type in _REGISTRANTS_ONLY else ()
    after = _next(before, registrations=others, type=0, holder=None)
    return Change(after, tuple((each, scsi_sense.RESERVATIONS_RELEASED) for each in told))


def _reserve(before: Reservations, mine: Registration, kind: int) -> Change | Conflict:
    if before.type:
        return Change(before) if before.is_holder(mine) and before.type == kind else Conflict()
    return Change(msgspec.structs.replace(before, type=kind, holder=_holder(mine, kind)))


def _holder(registration: Registration, kind: int) -> NexusName | None:
    return None if kind in _ALL_REGISTRANTS else registration.nexus


def _release(before: Reservations, mine: Registration, scope: int, kind: int) -> Change | Sense:
    if not before.type or not before.is_holder(mine):
        return Change(before)
    if scope or kind != before.type:
        return scsi_sense.INVALID_RELEASE
    others = tuple(each for each in before.registrations if each != mine) if kind in _TOLD_OF_RELEASE else ()
    after = msgspec.structs.replace(before, type=0, holder=None)
    return Change(after, tuple((each, scsi_sense.RESERVATIONS_RELEASED) for each in others))


def _preempt(before: Reservations, mine: Registration, key: int, kind: int) -> Change | Sense | Conflict:
    """SPC-4 r37 5.12.11.3 and figure 9: the key says whether a reservation is taken over, or registrations go."""
    everybody = before.type in _ALL_REGISTRANTS
    holder = next((each for each in before.registrations if each.nexus == before.holder), None)
    takes_over = (everybody and key == 0) or (holder is not None and key == holder.key)
    if key == 0 and not everybody:
        return scsi_sense.INVALID_FIELD_IN_PARAMETERS
    if takes_over:
        gone = tuple(each for each in before.registrations if each != mine and (key == 0 or each.key == key))
    else:
        gone = tuple(each for each in before.registrations if each.key == key)
        if not gone:
            return Conflict()
    kept = tuple(each for each in before.registrations if each not in gone)
    told = tuple((each, scsi_sense.REGISTRATIONS_PREEMPTED) for each in gone if each != mine)
    if takes_over:
        after = _next(before, registrations=kept, type=kind, holder=_holder(mine, kind))
        if before.type != kind:
            told += tuple((each, scsi_sense.RESERVATIONS_RELEASED) for each in kept if each != mine)
    elif everybody and not kept:
        after = _next(before, registrations=(), type=0, holder=None)
    else:
        after = _next(before, registrations=kept)
    return Change(after, told)


def _move(
    before: Reservations, nexus: NexusName, mine: Registration | None, parameters: MoveParameters
) -> Change | Sense | Conflict:
    if mine is None or mine.key != parameters.key:
        return Conflict()
    if before.type in _ALL_REGISTRANTS:
        return scsi_sense.INVALID_FIELD_IN_CDB
    if not before.is_holder(mine):
        return Conflict()
    to = NexusName(parameters.initiator, nexus.target)
    if parameters.service_action_key == 0 or mine.is_of(to):
        return scsi_sense.INVALID_FIELD_IN_PARAMETERS
    known = before.of(to)
    moved = Registration(known.nexus if known else to, parameters.service_action_key)
    kept = tuple(
        each for each in before.registrations if each != known and not (parameters.unregister and each == mine)
    )
    if len(kept) >= MAX_REGISTRATIONS:
        return scsi_sense.INSUFFICIENT_REGISTRATION_RESOURCES
    return Change(_next(before, registrations=(*kept, moved), holder=moved.nexus, durable=parameters.durable))
