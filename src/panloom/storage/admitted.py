"""A session that the Connection Manager has let in, or is letting in, and what an export says of it."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from panloom.storage.calls import Session
from panloom.storage.descriptor import Connection, Descriptor
from panloom.storage.exports import Access, Export, ExportedLun
from panloom.storage.limits import NO_LIMITS
from panloom.storage.told import session_facts


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


def replaced_by(sessions: Iterable[AdmittedSession], access: Access, by: AdmittedSession) -> list[AdmittedSession]:
    """Return which of a target's sessions end with a new one."""
    if access.initiator is not None:
        return list(sessions)
    isid = by.connection.facts.isid
    return [each for each in sessions if each.initiator == by.initiator and each.connection.facts.isid == isid]


def still_allowed(session: AdmittedSession, export: Export) -> bool:
    """Whether a session may go on with what an export is now."""
    who = export.access is not None and export.access.initiator in (None, session.initiator)
    return (
        who and export.moved is None and session.epoch == export.epoch and _disks(session.luns) == _disks(export.luns)
    )


def _disks(luns: tuple[ExportedLun, ...]) -> set[ExportedLun]:
    """Return the LUNs that are volumes or devices; a session reads the content that it found at its login."""
    return {msgspec.structs.replace(lun, limits=NO_LIMITS) for lun in luns if lun.content is None}


def session_told(session: AdmittedSession) -> Session:
    """Return what is told of a session."""
    return session_facts(session.id, session.target, session.initiator, session.epoch, session.connection.facts)
