"""Who changes a store: many at a time, or one alone; and nobody whose session is over.

    write        pass through with your Rights; others may be inside, too
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
        self._moved = threading.Condition()
        self._inside = 0
        self._alone = False

    @contextmanager
    def shared(self, rights: Rights) -> Iterator[None]:
        """Be inside with others; StaleEpochError once the rights are over."""
        self._enter(rights)
        try:
            yield
        finally:
            self._leave(rights)

    @contextmanager
    def alone(self, rights: Rights) -> Iterator[None]:
        """Be the only one inside; StaleEpochError once the rights are over."""
        self._enter(rights, alone=True)
        try:
            yield
        finally:
            self._leave(rights)

    def end(self, rights: Rights) -> None:
        """End the rights; return when nobody is inside with them."""
        with self._moved:
            rights.ended = True
            self._moved.wait_for(lambda: not rights.inside)

    def _enter(self, rights: Rights, *, alone: bool = False) -> None:
        with self._moved:
            while self._alone or (alone and self._inside):
                self._moved.wait()
            if rights.ended:
                raise StaleEpochError("the session is over")
            self._alone = alone
            self._inside += 1
            rights.inside += 1

    def _leave(self, rights: Rights) -> None:
        with self._moved:
            self._alone = False
            self._inside -= 1
            rights.inside -= 1
            self._moved.notify_all()
