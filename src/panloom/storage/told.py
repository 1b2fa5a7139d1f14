"""What is told over the channel of exports and sessions; never a secret, never content."""

import hashlib
from collections.abc import Iterable

import msgspec

from panloom.storage.calls import AccessFacts, ExportFacts, LunFacts, Session, Volumes
from panloom.storage.descriptor import SessionFacts
from panloom.storage.exports import Export


def with_limits(volumes: Volumes, exports: Iterable[Export]) -> Volumes:
    """Add to volumes the limits under which they are exported to somebody."""
    limits = {lun.volume: lun.limits for export in exports if export.access for lun in export.luns}
    found = (msgspec.structs.replace(volume, limits=limits.get(volume.name)) for volume in volumes.volumes)
    return msgspec.structs.replace(volumes, volumes=tuple(found))


def export_facts(export: Export) -> ExportFacts:
    """Return what is told of an export."""
    luns = (
        LunFacts(
            lun.lun,
            lun.volume,
            None if lun.content is None else hashlib.sha256(lun.octets()).hexdigest(),
            lun.read_only,
        )
        for lun in export.luns
    )
    access = AccessFacts(export.access.initiator, export.access.user) if export.access else None
    return ExportFacts(export.target, export.epoch, tuple(luns), access, export.moved)


def session_facts(session_id: str, target: str, initiator: str, epoch: int, facts: SessionFacts) -> Session:
    """Return what is told of a session."""
    return Session(
        id=session_id,
        target=target,
        initiator=initiator,
        peer=facts.peer,
        epoch=epoch,
        kind=facts.kind,
        login_at=facts.login_at,
        first_read_at=facts.first_read_at,
        last_heard_at=facts.last_heard_at,
        answers_nop=facts.answers_nop,
        reads=facts.reads,
        writes=facts.writes,
        read_octets=facts.read_octets,
        written_octets=facts.written_octets,
    )


def said(error: Exception) -> str:
    """Return what is told of an error."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
