"""The Connection Manager: which targets there are, who may log in, and under which epoch they write.

A session's life (``admitted.SessionState``):

                  admit: descriptors made, export unchanged
    CONNECTING ────────────────────────────────────────────▶ LIVE ── gone ──▶ forgotten, "logout"
         │                                                    │
         └──────────── drop, or a newer login of the same ────┴──▶ DROPPED ── gone ──▶ forgotten
                       initiator to the same target                "dropped"

Dropping takes the session's write grants back before anything else, so what its thread still has in hand cannot land;
then the connection is shut down; ``drain`` waits for the threads.

What takes away acts first and is then made durable; what gives is made durable first.  So a fence holds from the
moment it was asked for, and an access that somebody was told of survives a crash.

No lock that a fence needs is held over what a session's disk may keep waiting: who changes an export has the claim to
its target (``claims``) while he waits for that.
"""

import itertools
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import msgspec

from panloom.errors import ConfigError, ConflictError, PanloomError, RefusedError, UnavailableError
from panloom.storage import calls
from panloom.storage.admitted import (
    AdmittedSession,
    SessionState,
    give,
    heed_silence,
    replaced_by,
    session_told,
    still_allowed,
    take_away,
)
from panloom.storage.calls import Event, EventKind, Statistics, Status
from panloom.storage.claims import Claims
from panloom.storage.descriptor import Admission, Connection, Credentials, Descriptor
from panloom.storage.epochs import note_epoch, raise_epochs, raise_epochs_at_start
from panloom.storage.exports import Export, ExportsFile, Moved, NoFile
from panloom.storage.limits import Limits
from panloom.storage.local_transport import LocalTransport, Volumes, close_stores
from panloom.storage.platform_table import PlatformTable
from panloom.storage.portals import check_elsewhere
from panloom.storage.told import export_facts, said, with_limits
from panloom.values import Iqn

DRAIN_SECONDS = 30.0  # a command that takes longer is a disk that hangs

log = logging.getLogger(__name__)


class ConnectionManager:
    """See above.  Every method may be called from any thread.

    ``report`` gets every event, in the thread where it happens; it must not block.
    """

    def __init__(
        self,
        store: Volumes,
        file: ExportsFile | NoFile,
        report: Callable[[Event], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        local_transport: LocalTransport | None = None,
    ) -> None:
        """Load the exports; ConfigError if their file is not to be trusted.

        ``local_transport`` None: one of its own, over ``store``.
        """
        self._store = store
        self._file = file
        self._report = report
        self._clock = clock
        self._local_transport = local_transport or LocalTransport(store, self._tell_lost)
        self.platforms = PlatformTable(self._local_transport)
        self._serials = itertools.count(1)
        self._began_at = time.time()
        self._run = secrets.token_hex(3)  # ids of sessions differ from those before a restart
        self._changing = threading.Lock()  # of the exports, and their file; taken before _lock
        self._claims = Claims(self._changing)
        self._giving = threading.Lock()  # held while a session is given LUNs; taken before _lock
        self._lock = threading.Lock()  # the two maps; never held over the disk or another lock
        self._ended = threading.Condition(self._lock)
        self._sessions: dict[str, AdmittedSession] = {}
        self._portals: tuple[str, ...] = ()
        self._exports = file.load()
        for export in self._exports.values():
            raise_epochs_at_start(self._store, export)
            self._local_transport.apply_limits(export.luns)

    # What the Remote Transport asks

    def listens(self, address: str, port: int) -> None:
        """Note a portal that is listened at from now on."""
        with self._lock:
            self._portals = (*self._portals, f"{address}:{port}")

    def targets_visible(self, initiator: Iqn, address: str) -> tuple[Iqn, ...]:
        """Return the targets that this initiator may log in to from this address."""
        with self._lock:
            exports = tuple(self._exports.values())
        return tuple(Iqn(export.target) for export in exports if export.admits(initiator.name, address))

    def credentials(self, initiator: Iqn, target: Iqn, address: str) -> Credentials | None:
        """Return what the initiator must prove; None: it may not log in whatever it proves."""
        with self._lock:
            export = self._exports.get(target.name)
        if export is None or export.access is None or not export.admits(initiator.name, address):
            return None
        return export.access.credentials

    def moved(self, initiator: Iqn, target: Iqn, address: str) -> Moved | None:
        """Return where the initiator finds the target instead; None if it is here, or not its business."""
        with self._lock:
            export = self._exports.get(target.name)
        return export.moved if export is not None and export.admits(initiator.name, address) else None

    def admit(self, initiator: Iqn, target: Iqn, proved: Credentials, connection: Connection) -> Admission:
        """Let an initiator in that has proved these; its older sessions end.

        They end whatever their ISID: firmware never logs out.  Of a target that is open to several at a time, they end
        that have the same ISID (RFC 7143 section 6.3.5).  RefusedError if that is not, or no longer, what opens
        the target: a login begun before a fence ends with it.  UnavailableError if a volume cannot be opened.
        """
        with self._lock:
            export = self._exports.get(target.name)
            if export is None or export.access is None or export.access.initiator not in (None, initiator.name):
                raise RefusedError(f"{initiator} may not log in to {target}")
            if export.moved is not None:
                raise RefusedError(f"{target} has moved to {export.moved.portal}")
            if proved != export.access.credentials:
                raise RefusedError(f"{initiator} has proved what is over")
            session_id = f"{self._run}-{next(self._serials)}"
            session = AdmittedSession(session_id, export.epoch, connection, target.name, initiator.name, export.luns)
            older = self._mark_dropped(replaced_by(self._of(target.name), export.access, session))
            self._sessions[session.id] = session
        self._end(older, f"taken over by {session.id}")
        try:
            for lun in export.luns:
                session.descriptors[lun.lun] = self._local_transport.connect(target.name, lun, export.epoch)
        except (PanloomError, OSError) as error:
            self._disconnect(session)
            self._forget(session)
            if isinstance(error, RefusedError):
                raise
            raise UnavailableError(f"{target} cannot be served: {error}") from error
        with self._lock:
            if session.state is SessionState.CONNECTING and self._exports.get(target.name) is export:
                session.state = SessionState.LIVE
        if session.state is not SessionState.LIVE:
            self._disconnect(session)
            self._forget(session)
            raise RefusedError(f"{target} changed while {initiator} logged in")
        self._tell("login", session, connection.facts.kind)
        return Admission(target, export.epoch, dict(session.descriptors), session.id)

    def first_read(self, session_id: str) -> None:
        """Take note that a session has read its first block."""
        session = self._sessions.get(session_id)
        if session:
            self._tell("first_read", session, "", at=session.connection.facts.first_read_at)

    def refused(self, initiator: Iqn | None, target: Iqn | None, peer: str, why: str) -> None:
        """Take note of a login that failed."""
        names = (str(target) if target else None, str(initiator) if initiator else None)
        self._report(Event("refused", self._clock(), *names, None, peer, why))

    def gone(self, session_id: str, why: str) -> None:
        """Take note that a session's thread executes no more calls."""
        session = self._sessions.get(session_id)
        if session is None:
            return
        self._disconnect(session)
        was_live = session.state is SessionState.LIVE
        self._forget(session)
        if was_live:
            self._tell("logout", session, why)

    # What the control channel asks

    def export(self, export: Export) -> None:
        """Export a target, or replace what it is and who may log in; sessions that are no longer allowed end.

        The others get the LUNs that are new, and lose those that are gone: on return nothing is under way on them.

        ConflictError if the epoch would go down, or a volume has another writer; errors of opening a volume;
        ConfigError if it has moved to ourselves.
        """
        if export.moved is not None:
            check_elsewhere(export.moved.portal, self._portals)
        with self._changing:
            self._claims.await_turn(export.target)
            before = self._exports.get(export.target)
            if before:
                before.check_epoch(export.epoch)
            self._claims.check_writers(export, self._exports.values())
            self._claims.claim(export.target, before, export)
        try:
            self._local_transport.open_devices(export.luns)
            note_epoch(self._store, export)
            ended, staying = self._change(export)
            where = f"moved to {export.moved.portal}" if export.moved else f"exported anew under epoch {export.epoch}"
            self._end(ended, where)
            for session in staying:
                self._follow(session, export)
            if before:
                self._flush(set(before.volumes) - set(export.volumes))
                self._close_unused(before)
        finally:
            with self._changing:
                self._claims.release(export.target)
        log.info(
            "target=%s exported=yes epoch=%d access=%s moved=%s",
            *(export.target, export.epoch, export.access, export.moved.portal if export.moved else "no"),
        )

    def revoke(self, target: str, epoch: int) -> None:
        """Let nobody log in, and no session of it write; ConflictError if the epoch would go down.

        A target that is not exported is remembered with its epoch, so that an older export of it comes too late.
        """
        with self._changing:
            known = self._exports.get(target) or Export(target, epoch, (), None)
            known.check_epoch(epoch)
            with self._lock:
                self._exports[target] = msgspec.structs.replace(known, epoch=epoch, access=None)
                sessions = self._of(target)
        self._fence(known, epoch, sessions)
        log.info("target=%s access=none epoch=%d", target, epoch)

    def drop(self, target: str) -> int:
        """Shut down all sessions of a target and return how many there were; their writes are dead on return."""
        with self._lock:
            dropped = self._mark_dropped(self._of(target))
        self._end(dropped, "dropped")
        return len(dropped)

    def drain(self, target: str) -> tuple[str, ...]:
        """Return when no call of a dropped session is executing and the volumes are flushed.

        Returned is what could not be flushed, and why.  That holds up no fence: nobody can write any more, and what may
        be lost is what no flush was answered for.  UnavailableError if it takes longer than DRAIN_SECONDS.
        """
        with self._ended:
            if not self._ended.wait_for(lambda: not self._draining(target), DRAIN_SECONDS):
                raise UnavailableError(f"commands to {target} hang for {DRAIN_SECONDS:g} s: its disk does not answer")
            export = self._exports.get(target)
        troubles = []
        for name in sorted(export.written_volumes) if export else ():
            try:
                self._store.open(name).flush()
            except (OSError, UnavailableError, ConfigError) as error:
                troubles.append(f"volume {name} cannot be flushed: {said(error)}")
                log.warning("volume=%s flushed=no why=%r", name, said(error))
        return tuple(troubles)

    def unexport(self, target: str, epoch: int) -> None:
        """Forget an export; its sessions end, its volumes remember the epoch.  ConflictError if that would go down.

        UnavailableError if a volume cannot be made to remember it: then the export does, and nobody may log in.
        """
        with self._changing:
            known = self._exports.get(target)
            if known is None:
                self._file.save(self._exports.values())  # an earlier call may have failed to
                return
            known.check_epoch(epoch)
            going = msgspec.structs.replace(known, epoch=epoch, access=None)
            with self._lock:
                self._exports[target] = going
                ended = self._mark_dropped(self._of(target))
        self._end(ended, "no longer exported")
        troubles = self._fence(known, epoch, ())
        if troubles:
            raise UnavailableError(f"{target} is not forgotten: {troubles[0]}")
        self._flush(known.written_volumes)
        with self._changing:
            self._claims.await_turn(target)
            if self._exports.get(target) is not going:  # exported anew meanwhile
                return
            with self._lock:
                del self._exports[target]
            self._file.save(self._exports.values())
            self._claims.claim(target, known)
        try:
            self._close_unused(known)
        finally:
            with self._changing:
                self._claims.release(target)
        log.info("target=%s exported=no epoch=%d", target, epoch)

    def grow_volume(self, name: str, octets: int) -> None:
        """Make a volume larger and tell its sessions; ConflictError if it would become smaller."""
        blocks = self._store.grow(name, octets)  # what logs in from here on sees it anyway
        with self._giving, self._lock:  # after a LUN that a session is being given with the size of before
            told = [
                (session.connection, lun.lun)
                for export in self._having(name)
                for lun in export.luns
                if lun.volume == name
                for session in self._of(export.target)
            ]
        for connection, number in told:
            connection.resized(number, blocks)
        log.info("volume=%s blocks=%d sessions_told=%d", name, blocks, len(told))

    def limit_volume(self, name: str, limits: Limits) -> None:
        """Hold a volume to limits, durably and at once, its sessions included; ConflictError if it is not exported."""
        with self._changing:
            changed = {export.target: export.limited(name, limits) for export in self._having(name)}
            if not changed:
                raise ConflictError(f"volume {name} is not exported; export it with its limits")
            self._file.save((self._exports | changed).values())
            with self._lock:
                self._exports.update(changed)
            for export in changed.values():
                self._local_transport.apply_limits(export.luns)
        log.info("volume=%s limits=%s", name, limits)

    def delete_volume(self, name: str) -> None:
        """Destroy a volume, which nobody exports meanwhile; ConflictError while it is exported, or being destroyed."""
        with self._changing:
            self._claims.doom(name, self._exports.values())
        try:
            self._store.delete(name)
            self._local_transport.forget_volume(name)
        finally:
            with self._changing:
                self._claims.spare(name)
        log.info("volume=%s deleted=yes", name)

    def with_limits(self, volumes: calls.Volumes) -> calls.Volumes:
        """Add to what the store holds the limits of what is exported."""
        with self._lock:
            return with_limits(volumes, tuple(self._exports.values()))

    def reopen_volume(self, name: str) -> None:
        """Open a volume anew that is offline; its sessions end.  OSError if its disk still fails."""
        with self._changing:
            exports = self._claims.claim_all(lambda: self._having(name))
            with self._lock:
                ended = self._mark_dropped(session for export in exports for session in self._of(export.target))
        try:
            self._end(ended, f"volume {name} is opened anew")
            self._store.reopen(name)
            for export in exports:
                raise_epochs_at_start(self._store, self._exports.get(export.target, export))  # fenced meanwhile
        finally:
            with self._changing:
                self._claims.release(*(export.target for export in exports))

    def statistics(self) -> Statistics:
        """Return what each device has done."""
        return Statistics(self._local_transport.statistics(), self._began_at)

    def status(self) -> Status:
        """Return what is exported and who is there; a session that is being dropped is left out."""
        with self._lock:
            exports = tuple(self._exports.values())
            sessions = [session for session in self._sessions.values() if session.state is SessionState.LIVE]
        return Status(
            tuple(export_facts(export) for export in exports),
            tuple(session_told(session) for session in sessions),
            self._portals,
        )

    def look(self) -> None:
        """Report the sessions that fell silent since the last look, or are heard again; call it often."""
        now = self._clock()
        with self._lock:
            sessions = [session for session in self._sessions.values() if session.state is SessionState.LIVE]
        for session in sessions:
            change = heed_silence(session, now)
            if change:
                self._tell(change, session, f"last heard {now - session.connection.facts.last_heard_at:.1f} s ago")

    def shut_down(self) -> None:
        """End all sessions, wait for their calls and flush the volumes."""
        for target in {session.target for session in tuple(self._sessions.values())}:
            self.drop(target)
            try:
                self.drain(target)  # what cannot be flushed is logged
            except UnavailableError as error:
                log.warning("target=%s drained=no why=%s", target, error)
        self._local_transport.shut_down()
        self._store.shut_down()

    # Parts of the above

    def _of(self, target: str) -> list[AdmittedSession]:
        return [session for session in self._sessions.values() if session.target == target]

    def _mark_dropped(self, sessions: Iterable[AdmittedSession]) -> list[AdmittedSession]:
        """Return those that were not dropped before; call it under the lock, and ``_end`` them after it."""
        dropped = [session for session in sessions if session.state is not SessionState.DROPPED]
        for session in dropped:
            session.state = SessionState.DROPPED
        return dropped

    def _having(self, volume: str) -> list[Export]:
        return [export for export in self._exports.values() if volume in export.volumes]

    def _end(self, dropped: Iterable[AdmittedSession], why: str) -> None:
        for session in dropped:
            self._disconnect(session)
            session.connection.shut_down()
            self._tell("dropped", session, why)

    def _change(self, export: Export) -> tuple[list[AdmittedSession], list[AdmittedSession]]:
        """Make an export durable, and have it count; return the sessions that are to end and those that go on."""
        with self._changing:
            known = self._exports.get(export.target)
            if known:
                known.check_epoch(export.epoch)  # a fence may have come meanwhile
            if export != known:
                self._file.save({**self._exports, export.target: export}.values())
            with self._lock:
                if export != known:
                    self._exports[export.target] = export
                sessions = self._of(export.target)
                ended = self._mark_dropped(session for session in sessions if not still_allowed(session, export))
                staying = [session for session in sessions if session.state is SessionState.LIVE]
            self._local_transport.apply_limits(export.luns)
        return ended, staying

    def _follow(self, session: AdmittedSession, export: Export) -> None:
        try:
            take_away(session, export, self._local_transport)
            with self._giving:
                give(session, export, self._local_transport, self._goes_on)
        except (PanloomError, OSError) as error:
            with self._lock:
                ended = self._mark_dropped((session,))
            self._end(ended, f"its LUNs cannot be served: {said(error)}")

    def _goes_on(self, session: AdmittedSession, lun: int, descriptor: Descriptor) -> bool:
        """Let a session have a LUN; False if it was dropped or fenced, by somebody who may not have seen this one."""
        with self._lock:
            session.descriptors[lun] = descriptor
            export = self._exports.get(session.target)
            return session.state is SessionState.LIVE and export is not None and still_allowed(session, export)

    def _disconnect(self, session: AdmittedSession) -> None:
        for descriptor in tuple(session.descriptors.values()):
            self._local_transport.disconnect(descriptor)

    def _forget(self, session: AdmittedSession) -> None:
        with self._ended:
            self._sessions.pop(session.id, None)
            self._ended.notify_all()

    def _draining(self, target: str) -> bool:
        return any(session.state is SessionState.DROPPED for session in self._of(target))

    def _fence(self, fenced: Export, epoch: int, sessions: Iterable[AdmittedSession]) -> tuple[str, ...]:
        """Make a fence durable, in the volumes even if the file cannot be written; return which did not take it.

        Not under ``_changing``: a disk that hangs must not keep other targets from being fenced.
        """
        for session in sessions:
            self._disconnect(session)
        try:
            with self._changing:
                self._file.save(self._exports.values())
        finally:
            troubles = raise_epochs(self._store, fenced, epoch)
        return troubles

    def _flush(self, names: Iterable[str]) -> None:
        """Flush volumes, here, where it holds up nobody, and not when they are closed."""
        for name in names:
            with suppress(OSError, PanloomError):
                self._store.open(name).flush()

    def _close_unused(self, before: Export) -> None:
        """Close what a target used that none does any more, while it has the claim to that."""
        with self._changing:
            unused_volumes, unused_devices = self._claims.unused(before, self._exports.values())
            for name in unused_volumes:
                self._store.close(name)
            stores = [store for name in unused_devices for store in self._local_transport.let_go(name)]
        close_stores(stores)

    def _tell_lost(self, why: str) -> None:
        self._report(Event("offline", self._clock(), None, None, None, None, why))

    def _tell(self, event: EventKind, session: AdmittedSession, why: str, *, at: float | None = None) -> None:
        moment = self._clock() if at is None else at
        peer = session.connection.facts.peer
        self._report(Event(event, moment, session.target, session.initiator, session.id, peer, why))
