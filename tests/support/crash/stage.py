"""Where a scene is played: a short story, told for a few syncs.

@scene()
def exports_are_kept(stage):       what a program does; the kernel's calls go to the recorder
    …
    stage.from_here()              the moments before are not looked at
    stage.always("x", check)       from here on ``check(root)`` is true of whatever a crash leaves
"""

import sqlite3
from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple

from panloom.errors import PanloomError, UnavailableError
from support.crash.chapter import NOTHING, Violation
from support.crash.disk import Contents
from support.crash.recorder import Killed, refuse


class Scene(NamedTuple):
    """A function that is given a stage, and what the disk holds before."""

    play: Callable
    contents: Contents


def scene(contents=NOTHING):
    """Make a scene of a function."""
    return lambda play: Scene(play, contents)


class Checks:
    """What was promised: by name, what must be true of what is left."""

    def __init__(self):
        self.notes = 0  # how often it was changed
        self.checks = {}

    def check(self, root, *, power_cut):
        """Raise ``Violation`` unless all of it is; kill and power cut leave the same."""
        for name, check in self.checks.items():
            try:
                holds = check(root)
            except (PanloomError, OSError, sqlite3.Error) as error:
                raise Violation(f"{name}: {error}") from error
            if not holds:
                raise Violation(name)


class Stage:
    """Where a scene is played."""

    def __init__(self, root, recorder):
        self.root = root
        self.recorder = recorder
        self.first = 0

    def from_here(self):
        """Have the moments from here on examined."""
        self.first = len(self.recorder.log)

    def always(self, name, check):
        """Promise that this is true from here on."""
        self.recorder.mark(lambda promise: promise.checks.__setitem__(name, check))

    @contextmanager
    def dying_at_sync(self, number):
        """Be killed at the so many-th sync from here, counted from 0, and go on as another process."""
        self.recorder.die_at_sync(number)
        with closing_locks(self.recorder):
            yield
            raise AssertionError("there was no such sync")

    @contextmanager
    def failing(self, name, number, code):
        """Let the so many-th call of this name fail, and what the block asks for be refused."""
        self.recorder.faults = Once(name, number, code)
        try:
            yield
        except OSError:
            return
        finally:
            self.recorder.faults = None
        raise AssertionError(f"there was no such {name}, or nobody minded")


class Once:
    """Lets the so many-th call of a name fail, counted from 0."""

    def __init__(self, name, number, code):
        self._name, self._left, self._code = name, number, code

    def __call__(self, name, arguments):
        if name == self._name:
            self._left -= 1
            if self._left == -1:
                refuse(self._code)


@contextmanager
def closing_locks(recorder):
    """End with the death of the process."""
    try:
        yield
    except (Killed, UnavailableError):
        if not recorder.dead:
            raise
    recorder.revive()
