"""A session that the Connection Manager has let in, or is letting in, and what an export says of it."""

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from panloom.storage.calls import Session
from panloom.storage.descriptor import Connection, Descriptor
from panloom.storage.exports import Access, Export, ExportedLun
from panloom.storage.limits import NO_LIMITS
from panloom.storage.local_transport import LocalTransport
from panloom.storage.told import session_facts

SILENT_SECONDS = 2.0  # a session that answers pings, and did not for so long, is reported


class SessionState(enum.Enum):
    """Where a session is; the picture is in ``connection_manager``."""

    CONNECTING = enum.auto()
    LIVE = enum.auto()
    DROPPED = enum.auto()


@dataclass(slots=True, eq=False)
class AdmittedSession:
    """One session, until its thread has ended."""

    id: str
    epoch: int
    connection: Connection
    target: str
    initiator: str
    luns: tuple[ExportedLun, ...]
    state: SessionState = SessionState.CONNECTING
    silent: bool = False
    descriptors: dict[int, Descriptor] = field(default_factory=dict)
    retired: set[int] = field(default_factory=set)  # LUNs that it had


def replaced_by(sessions: Iterable[AdmittedSession], access: Access, by: AdmittedSession) -> list[AdmittedSession]:
    """Return which of a target's sessions end with a new one."""
    if access.initiator is not None:
        return list(sessions)
    isid = by.connection.facts.isid
    return [each for each in sessions if each.initiator == by.initiator and each.connection.facts.isid == isid]


def still_allowed(session: AdmittedSession, export: Export) -> bool:
    """Whether a session may go on with what an export is now."""
    who = export.access is not None and export.access.initiator in (None, session.initiator)
    return who and export.moved is None and session.epoch == export.epoch and _same_luns(session, export)


def _same_luns(session: AdmittedSession, export: Export) -> bool:
    """Whether no LUN of a session has come to be another disk; it reads the content that it found at its login."""
    had = {lun.lun: _disk(lun) for lun in session.luns}
    numbers = {lun.lun for lun in export.luns}
    return not session.retired & numbers and all(had.get(lun.lun) in (None, _disk(lun)) for lun in export.luns)


def _disk(lun: ExportedLun) -> ExportedLun:
    plain = msgspec.structs.replace(lun, limits=NO_LIMITS)
    return plain if lun.content is None else msgspec.structs.replace(plain, content=b"any", deflated=False)


def heed_silence(session: AdmittedSession, now: float) -> Literal["silent", "heard"] | None:
    """Note whether a session is silent at a moment; return what it is now, where that is news.

    Only one that has answered a ping can be: firmware never does.
    """
    facts = session.connection.facts
    silent = facts.answers_nop and now - facts.last_heard_at > SILENT_SECONDS
    if silent == session.silent:
        return None
    session.silent = silent
    return "silent" if silent else "heard"


def take_away(session: AdmittedSession, export: Export, transport: LocalTransport) -> None:
    """Take the LUNs from a session that goes on that an export no longer has; waits for what is under way there."""
    gone = {lun.lun for lun in session.luns} - {lun.lun for lun in export.luns}
    for number in gone:
        session.connection.vanished(number)
        transport.disconnect(session.descriptors[number])
        session.retired.add(number)
    session.luns = tuple(lun for lun in session.luns if lun.lun not in gone)


def give(
    session: AdmittedSession,
    export: Export,
    transport: LocalTransport,
    goes_on: Callable[[AdmittedSession, int, Descriptor], bool],
) -> None:
    """Let a session have the LUNs that are new, before its next command; errors as ``LocalTransport.connect``.

    ``goes_on`` notes a Descriptor, and says whether the session may use it.
    """
    had = {lun.lun for lun in session.luns}
    for lun in export.luns:
        if lun.lun in had:
            continue
        descriptor = transport.connect(session.target, lun, session.epoch)
        if not goes_on(session, lun.lun, descriptor):
            transport.disconnect(descriptor)
            return
        session.connection.appeared(lun.lun, descriptor)
        session.luns = (*session.luns, lun)


def session_told(session: AdmittedSession) -> Session:
    """Return what is told of a session."""
    return session_facts(session.id, session.target, session.initiator, session.epoch, session.connection.facts)
