"""Actions that may take long, done beside a connection's loop: what one unit keeps waiting delays no other.

    HotLoop ── take(lun, job) ──▶ a few threads for each unit ──▶ job(): does it, and answers

Which actions may be done at the same time the session has decided: none here waits for another.  Threads are made when
a unit first needs them and end with the connection.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

THREADS = min(8, 2 + (os.cpu_count() or 1))  # of a unit, in one connection


class Aside:
    """Does jobs for one connection."""

    def __init__(self) -> None:
        self._threads: dict[int, ThreadPoolExecutor] = {}
        self._finishing = False

    def take(self, lun: int, job: Callable[[], None]) -> None:
        """Have a job done for a unit, soon; it must not raise.  One that comes while they finish is not done at all.

        Call it under the connection's lock.
        """
        if self._finishing:
            return
        threads = self._threads.get(lun)
        if threads is None:
            threads = self._threads[lun] = ThreadPoolExecutor(THREADS, f"lun-{lun}")
        threads.submit(job)

    def finish(self) -> None:
        """Return when all is done; no more is taken."""
        self._finishing = True
        for threads in tuple(self._threads.values()):
            threads.shutdown()
