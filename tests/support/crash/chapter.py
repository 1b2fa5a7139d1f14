"""What is common to all stories of crashes: they are told in chapters, and every moment of a chapter is examined.

chapter   a start of the machine ─ work, deaths of the process, clean ends ─ power cut
states    at each moment of it: what a killed process leaves, and what a power cut may leave
recovery  is itself cut short, now and then, and must then be done again
"""

import copy
import os
import random
import shutil
import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from panloom.errors import PanloomError
from panloom.storage import overlay, sending
from support.crash.disk import ROOT, Contents, Disk, Mark, Write
from support.crash.recorder import Recorder

RECOVERIES = 0.04  # of the states after a power cut
LATER = 1000  # boots


class Violation(AssertionError):
    """Something that was promised is not so."""


@contextmanager
def boot_of_the_machine(directory, number):
    """Let the machine be in its so many-th boot, and no disk of it be slow: what is done must not hang on the time."""
    file = directory / "boot-id"
    file.write_text(f"{number:08x}-0000-4000-8000-000000000000\n")
    before = overlay.BOOT_ID_FILE, sending.SLOW_NANOSECONDS
    overlay.BOOT_ID_FILE, sending.SLOW_NANOSECONDS = file, 1 << 62
    try:
        yield
    finally:
        overlay.BOOT_ID_FILE, sending.SLOW_NANOSECONDS = before


def _note(mark, promise):
    promise.notes += 1
    mark.note(promise)


@dataclass
class Chapter:
    """From a start of the machine to its power cut."""

    boot: int
    contents: Contents
    promise: object
    log: list

    def states(self, chance, limit, *, first=0, share=1.0):
        """Yield contents, the promise that holds for them, and whether the power was cut; no more than that at once.

        ``first``: the entry of the log to begin with; ``share``: of the moments at which nothing was promised.
        """
        disk, promise = Disk(self.contents), copy.deepcopy(self.promise)
        for number, entry in enumerate(self.log):
            if number < first:
                disk.add(entry)
                if isinstance(entry, Mark):
                    _note(entry, promise)
                continue
            looked_at = isinstance(entry, Mark) or chance.random() < share
            if looked_at and isinstance(entry, Write):
                for contents in disk.torn(entry):
                    yield contents, promise, False
            disk.add(entry)
            if isinstance(entry, Mark):
                _note(entry, promise)
            if looked_at:
                yield disk.everything(), promise, False
                for contents in disk.after_power_cut(chance, limit):
                    yield contents, promise, True

    def cut(self, chance):
        """Return one of the states that a power cut within it may leave, and the promise that then holds."""
        disk, promise = Disk(self.contents), copy.deepcopy(self.promise)
        for entry in self.log[: chance.randint(0, len(self.log))]:
            disk.add(entry)
            if isinstance(entry, Mark):
                _note(entry, promise)
        promise.power_was_cut()
        return chance.choice(list(disk.after_power_cut(chance, 40))), promise


class Story:
    """Told once; what happens depends on the seed alone.  ``_live`` is what the process does, from start to end."""

    def __init__(self, directory: Path, seed: int, *, steps: int):
        self.directory = directory
        self.chance = random.Random(seed)
        self.steps = steps
        self.promise = None
        self.recorder = None

    def beginning(self):
        """Return the contents and the promise before anything has happened."""
        raise NotImplementedError

    def live(self, root, *, durable):
        """Be a process, from its start to its end; ``durable``: all that it finds is on the disk."""
        raise NotImplementedError

    def tell(self, chapters=3):
        """Return that many chapters."""
        told = []
        contents, promise = self.beginning()
        for boot in range(1, chapters + 1):
            root = self.directory / f"chapter-{boot}"
            root.mkdir()
            contents.write_to(root)
            chapter = Chapter(boot, contents, copy.deepcopy(promise), [])
            recorder = Recorder(root, contents, reflinks=self.chance.random() < 0.5)
            with boot_of_the_machine(self.directory, boot), recorder as self.recorder:
                chapter.log, self.promise = recorder.log, promise
                for life in range(2):
                    self.live(root, durable=life == 0)
                    recorder.revive()
                if lost := recorder.lost():
                    raise Violation(f"{lost} were written to by another way than is recorded")
            shutil.rmtree(root)
            told.append(chapter)
            contents, promise = chapter.cut(self.chance)
        return told

    def mark(self, note):
        """Have the promise changed, here and whenever the log is read."""
        self.recorder.mark(note)
        note(self.promise)


@contextmanager
def in_memory():
    """Lend a directory that syncs cost nothing in."""
    memory = Path("/dev/shm")
    name = f"panloom-crash-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=name, dir=memory if memory.is_dir() else None) as directory:
        yield Path(directory)


NOTHING = Contents({}, {ROOT: {}})


@dataclass(frozen=True)
class Finding:
    """A promise that was broken: in which story, after which crash."""

    seed: int
    boot: int  # chapter; 0: while the story was told
    state: int
    crash: str
    what: str

    def __str__(self):
        return f"seed {self.seed}, boot {self.boot}, state {self.state}, after {self.crash}: {self.what}"


KILL, POWER_CUT, CUT_SHORT = "a kill", "a power cut", "a power cut, and another crash while it recovered"


@dataclass
class Examination:
    """Opens what crashes leave, in ``directory``; counts states, no two of them alike, and keeps what is wrong."""

    directory: Path
    states: Counter = field(default_factory=Counter)  # by crash
    violations: list = field(default_factory=list)
    broken: Contents | None = None  # what the last violation was seen in

    def tell(self, kind, seed, *, limit, steps=10, share=1.0):
        """Have a story told and look at every moment of it; one that goes wrong while it is told is a violation."""
        directory = self.directory / f"story-{seed}"
        directory.mkdir()
        try:
            chapters = kind(directory, seed, steps=steps).tell()
        except (AssertionError, PanloomError, OSError) as error:
            self.violations.append(Finding(seed, 0, 0, "none, while it was told", repr(error)))
        else:
            self.examine(chapters, seed, limit=limit, share=share)
        finally:
            shutil.rmtree(directory)

    def examine(self, chapters, seed, *, limit, first=0, share=1.0):
        """Look at the states of some chapters, as ``Chapter.states`` has them; stop at the first violation."""
        chance = random.Random(seed)
        for chapter in chapters:
            seen = set()
            states = chapter.states(chance, limit, first=first, share=share)
            for number, (contents, promise, power_cut) in enumerate(states):
                if not _is_new(seen, contents, promise, power_cut):
                    continue
                crash = POWER_CUT if power_cut else KILL
                recovers = power_cut and chance.random() < RECOVERIES
                try:
                    log = self._check(crash, contents, promise, chapter.boot + LATER * power_cut, power_cut, recovers)
                    if log:
                        crash = CUT_SHORT
                        self._cut_short(Chapter(chapter.boot + LATER, contents, promise, log), chance, seen)
                except Violation as violation:
                    self.broken = contents
                    self.violations.append(Finding(seed, chapter.boot, number, crash, str(violation)))
                    return

    def _check(self, crash, contents, promise, boot, power_cut, recorded=False):
        """Open what was left; return what that did to it, if it is to be ``recorded``."""
        self.states[crash] += 1
        root = self.directory / "state"
        root.mkdir()
        try:
            contents.write_to(root)
            with boot_of_the_machine(self.directory, boot):
                if not recorded:
                    promise.check(root, power_cut=power_cut)
                    return []
                with Recorder(root, contents) as recorder:
                    promise.check(root, power_cut=power_cut)
                return recorder.log
        finally:
            shutil.rmtree(root)

    def _cut_short(self, recovery, chance, seen):
        """Let a recovery that went well be killed, and cut short by the power, at each moment of it."""
        for contents, promise, power_cut in recovery.states(chance, 2):
            if _is_new(seen, contents, promise, power_cut):
                self._check(CUT_SHORT, contents, promise, recovery.boot + LATER * power_cut, power_cut=True)


def _is_new(seen, contents, promise, power_cut):
    key = hash((promise.notes, power_cut, contents.key()))
    if key in seen:
        return False
    seen.add(key)
    return True
