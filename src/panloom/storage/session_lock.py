"""The lock of one connection's session and output, which knows who has it.

Its loop has it but while it waits for input; so has any other thread that answers, for as long as that takes.
"""

import threading

try:
    import cython
except ImportError:
    from panloom.storage import uncompiled as cython

if cython.compiled:
    from cython.cimports.cpython.pythread import PyThread_get_thread_ident as get_ident
else:
    from threading import get_ident


class SessionLock:
    """To be had by ``with``, or by ``acquire`` and ``release``; whoever has it may ``wait`` for ``notify_all``."""

    def __init__(self) -> None:
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        self._acquire = lock.acquire
        self._release = lock.release
        self._holder = 0

    def __enter__(self) -> None:
        self._acquire()
        self._holder = get_ident()

    def __exit__(self, *_: object) -> None:
        self._holder = 0
        self._release()

    def acquire(self, seconds: float) -> bool:
        """Have it within so many seconds; return whether that was so."""
        if not self._acquire(timeout=seconds):
            return False
        self._holder = get_ident()
        return True

    def release(self) -> None:
        """Let others have it."""
        self._holder = 0
        self._release()

    def is_mine(self) -> bool:
        """Whether the calling thread has it."""
        mine: bool = self._holder == get_ident()
        return mine

    def wait(self, seconds: float | None = None) -> None:
        """Let others have it until one of them notifies, or so long has passed; then have it again."""
        self._holder = 0
        self._changed.wait(seconds)
        self._holder = get_ident()

    def notify_all(self) -> None:
        """Wake those who wait, to find out what has changed."""
        self._changed.notify_all()
