"""A storage process on a disk that fails it once, and what it owes to all others then.

    a life without faults ─▶ a start, work; one call fails ─▶ what can be mended is asked for again ─▶ the end

What was answered holds, whatever a crash leaves at any moment from the fault on.  Beyond that:

    a sync of a volume failed      nothing of it is answered any more before the next start; one line says so
    any other call                 what was under way may be refused, nothing else; asked for again it is done
    a start                        ends in one clear error; the next one succeeds
"""

import copy
import logging

from panloom.errors import PanloomError
from support.crash.chapter import Chapter, Violation, boot_of_the_machine
from support.crash.disk import SECTOR
from support.crash.faults import Injector
from support.crash.recorder import Recorder
from support.crash.volume_promise import Running
from support.crash.volume_story import CHANCES, CLONE, SECTORS, SNAPSHOTS, TARGETS, Refused, VolumeStory

_REFUSALS = (PanloomError, OSError, Refused)
_NAMING = ("move", "forget", "again", "remake", "snapshot", "unsnapshot", "clone", "unclone", "flatten")
"""What makes or changes files, beside those of volumes."""


class Lines(logging.Handler):
    """What was logged."""

    def __init__(self):
        super().__init__(logging.INFO)
        self.records = []

    def emit(self, record):
        """Keep it."""
        self.records.append(record)

    def about(self, word):
        """Return the lines that are warnings, and say this word."""
        return [
            record.getMessage()
            for record in self.records
            if record.levelno >= logging.WARNING and word in record.getMessage()
        ]


class FaultStory(VolumeStory):
    """Always the same work for a seed; only the fault differs."""

    def __init__(self, directory, seed, *, steps, number=None, name=None, way=None):
        super().__init__(directory, seed, steps=steps)
        self._fault = (number, name, way)
        self.injector = None
        self._offline = set()  # volumes of which a sync failed
        self._lacking = set()  # volumes that could not be exported again
        self._lines = Lines()

    def tell(self):
        """Return the one chapter."""
        contents, self.promise = self.beginning()
        root = self.directory / "root"
        root.mkdir()
        contents.write_to(root)
        chapter = Chapter(1, contents, copy.deepcopy(self.promise), [])
        logger = logging.getLogger("panloom")
        logger.addHandler(self._lines)
        try:
            with boot_of_the_machine(self.directory, 1), Recorder(root, contents) as self.recorder:
                chapter.log = self.recorder.log
                self._before(root)
                self.recorder.faults = self.injector = Injector(self.recorder, *self._fault)
                try:
                    self._work(root)
                finally:
                    self.recorder.faults = None
                    self._running.kill()
                if lost := self.recorder.lost():
                    raise Violation(f"{lost} were written to by another way than is recorded")
        finally:
            logger.removeHandler(self._lines)
        self._check_lines()
        return chapter

    def _before(self, root):
        with Running(root) as self._running:
            self._prepare()
            for _ in range(4):
                self._write("web1")
            self._flush("web2")
        self.recorder.revive()

    def _work(self, root):
        self._start(root)
        seen = self._look()
        self.mark(lambda promise: promise.saw(seen, durable=False))
        for name in SECTORS:
            self._attempt("heal", name, self._heal)
        for what in (*CHANCES, "write", "clone"):
            self._one(what, "web1")
        for _ in range(self.steps):
            self._step()
        for name in SECTORS:
            self._attempt("heal", name, self._heal)
            self._attempt("flush", name, self._flush)
        self._end_cleanly()

    def _start(self, root):
        """Start, again if that was refused; whoever is refused is told why."""
        try:
            self._running = Running(root)
        except PanloomError as error:
            if not self._struck or len(str(error).splitlines()) != 1:
                raise Violation(f"does not start: {error}") from error
            self._running = Running(root)
        if self._struck and self.injector.failed_sync:
            self._note_sync()

    def _look(self):
        """Return what there is, asked for again if that was refused."""
        before = self._struck
        try:
            seen = self._running.seen(self._offline)
        except _REFUSALS as error:
            if not self._struck:
                raise Violation(f"what there is cannot be told: {error!r}") from error
            if self.injector.failed_sync:
                self._note_sync()
        else:
            if self._struck == before:
                return seen
        return self._running.seen(self._offline)  # what could not be read was left out

    @property
    def _struck(self):
        return self.injector.struck is not None

    def _step(self):
        name = self.chance.choice(("web1", "web2", CLONE if self._is_there(CLONE) else "web2"))
        what = self.choose()
        self._one(what, name)

    def _one(self, what, name):
        subject = {"clone": CLONE, "unclone": CLONE, "snapshot": "web1", "unsnapshot": "web1"}.get(what, name)
        self._attempt(what, subject, lambda _: self._do(what, name))

    def _attempt(self, what, name, act):
        """Do something that may be refused where the fault is the reason; then see that it can be done again."""
        before = self._struck
        try:
            act(name)
        except _REFUSALS as error:
            self.recorder.meanwhile(0, lambda: None)
            self.mark(lambda promise: promise.refused(name))
            strikes = self._struck and not before
            if not strikes and not self._excused(what, name):
                raise Violation(
                    f"{what} {name} is refused ({error!r}), though it was {self.injector.struck} that failed"
                ) from error
            if strikes and self.injector.failed_sync:
                self._note_sync()
            if strikes and what == "snapshot" and self._running.store._open["web1"].lost:
                self._offline.add("web1")  # which file it is written in, only a start can tell
            if what == "heal":
                self._lacking.add(name)
            else:
                self._attempt("heal", name, self._heal)
        else:
            if self._struck and not before and self.injector.failed_sync:
                self._note_sync()
            elif name in self._offline and what in ("write", "flush"):
                raise Violation(f"{what} {name} is answered, though a sync of it failed before")
            if what == "remake":
                self._offline.discard(name)
            if what == "heal":
                self._lacking.discard(name)

    def _note_sync(self):
        """Remember whose sync it was that failed."""
        for name in (*SECTORS, CLONE):
            if self.injector.path and self.injector.path.name == f"{name}.volume":
                self._offline.add(name)

    def is_lost(self, name):
        """Return whether the sync that failed was one of its file."""
        path = self.injector and self.injector.failed_sync and self.injector.path
        return name in self._offline or bool(path and path.name == f"{name}.volume")

    def _excused(self, what, name):
        """Return whether an operation may be refused because of a fault before it."""
        if not self._struck:
            return False
        names_lost = self.injector.failed_sync and self.injector.path and self.injector.path.is_dir()
        return name in self._offline | self._lacking or (names_lost and what in (*_NAMING, "heal"))

    def _heal(self, name):
        """Ask again for what may be lacking, as the control process does."""
        if self.promise.images["web@1"][0] != {True}:
            self._import()
        self._heal_snapshots()
        if name == CLONE and not self._is_there(CLONE):
            self._heal_clone()
            return
        if not self.exists(name):
            self._create(name)
        if len(self.promise.volumes[name].sizes) > 1:
            self._grow(name)
        export = self._running.manager._exports.get(TARGETS[name])
        if export is None or export.access is None or self.promise.exports[TARGETS[name]] != {export}:
            self._export(name, self._epoch(name) + 1)

    def _heal_snapshots(self):
        """Where it is not known whether one is there, ask for what can be seen."""
        for label, (there, _) in self.promise.snapshots.items():
            if len(there) == 1:
                continue
            if (self._running.store._directory.path / f"{label}.snapshot").exists():
                self._snapshot(label)
            else:
                self._running.store.delete_snapshot(label)
                self.mark(lambda promise, label=label: promise.forgetting(label, {False}))

    def _heal_clone(self):
        if CLONE not in self.promise.volumes or self.promise.volumes[CLONE].there == {False}:
            return
        if self.exists(CLONE):
            octets = len(self.promise.volumes[CLONE].now) * SECTOR
            self._running.store.create(CLONE, None, octets, snapshot=SNAPSHOTS[0])
            self.mark(lambda promise: setattr(promise.volumes[CLONE], "there", {True}))
            self._export(CLONE, self._epoch(CLONE) + 1)
        else:
            self._delete(CLONE)

    def _end_cleanly(self):
        for session in [*self._running.manager._sessions.values()]:
            self._running.manager.gone(session.id, "closed")
        before = self._struck
        self._running.end()
        if self._struck and not before and self.injector.failed_sync:
            self._note_sync()
        flushed = [name for name in SECTORS if name not in self._offline]
        if self._struck and not before:  # within this: it is said in the log, to nobody who waits
            return
        self.mark(lambda promise: [promise.volumes[name].flushed() for name in flushed])

    def _check_lines(self):
        for record in self._lines.records:
            if record.exc_info:
                raise Violation(f"a traceback is logged: {record.getMessage()}")
        for name in self._offline:
            lines = self._lines.about(f"volume={name} online=no")
            if len(lines) != 1:
                raise Violation(f"that {name} is offline is said {len(lines)} times: {lines}")
