"""Who changes a store: many at a time, or one alone; and nobody whose session is over.

    write        enter and leave with your Rights; others may be inside, too
    compare and write, or write     be alone: whoever is inside has left, nobody enters
    a session ends                  its Rights are over; on return none of its writes is inside, and none ever will be

``overlay.Volume`` has a lock of its own for this; stores of other makers are held to it from outside.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from panloom.storage.frame import StaleEpochError


class Rights:
    """What one session may do with a store."""

    __slots__ = ("ended", "inside")

    def __init__(self) -> None:
        self.ended = False
        self.inside = 0


class Turnstile:
    """One for each store."""

    def __init__(self) -> None:
        lock = threading.Lock()
        self._moved = threading.Condition(lock)
        self._acquire = lock.acquire
        self._release = lock.release
        self._waiting = 0  # to come in, or to see somebody leave
        self._inside = 0
        self._alone = False

    def enter(self, rights: Rights) -> None:
        """Be inside with others, until ``leave``; StaleEpochError once the rights are over."""
        self._acquire()
        free = not (self._alone or rights.ended)
        if free:
            self._inside += 1
            rights.inside += 1
        self._release()
        if not free:
            self._enter(rights)

    def leave(self, rights: Rights) -> None:
        """Be outside again."""
        self._acquire()
        self._alone = False
        self._inside -= 1
        rights.inside -= 1
        if self._waiting:
            self._moved.notify_all()
        self._release()

    @contextmanager
    def alone(self, rights: Rights) -> Iterator[None]:
        """Be the only one inside; StaleEpochError once the rights are over."""
        self._enter(rights, alone=True)
        try:
            yield
        finally:
            self.leave(rights)

    def end(self, rights: Rights) -> None:
        """End the rights; return when nobody is inside with them."""
        with self._moved:
            rights.ended = True
            while rights.inside:
                self._wait()

    def _enter(self, rights: Rights, *, alone: bool = False) -> None:
        with self._moved:
            while self._alone or (alone and self._inside):
                self._wait()
            if rights.ended:
                raise StaleEpochError("the session is over")
            self._alone = alone
            self._inside += 1
            rights.inside += 1

    def _wait(self) -> None:
        self._waiting += 1
        self._moved.wait()
        self._waiting -= 1
