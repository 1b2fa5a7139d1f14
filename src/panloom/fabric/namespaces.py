"""Open a socket in another network namespace: a thread steps in, opens it, and steps out; the socket stays there."""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from panloom.errors import UnavailableError

_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def within(namespace: Path | None) -> Iterator[None]:
    """Let this thread be in ``namespace`` (a file like ``/run/netns/NAME``; None: where it is) until the block ends.

    The block must not await: other tasks of the thread would run in there too.
    """
    if namespace is None:
        yield
        return
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        away = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        os.close(home)
        raise UnavailableError(f"network namespace {namespace} cannot be entered: {error.strerror}") from error
    try:
        _enter(away)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(home)
        os.close(away)


def new_namespace() -> int:
    """Make a network namespace without a name and return its descriptor; it ends with the last one that is open.

    ``Path(f"/proc/self/fd/{descriptor}")`` is its file.  UnavailableError where namespaces are not allowed.
    """
    made: list[int] = []

    def work() -> None:
        if _libc.unshare(_CLONE_NEWNET) == 0:
            made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    thread = threading.Thread(target=work)  # a thread of its own has the namespace for as long as it lives
    thread.start()
    thread.join()
    if not made:
        raise UnavailableError("a network namespace cannot be made: run as root, outside of containers")
    return made[0]


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise UnavailableError(f"cannot change the network namespace: {os.strerror(ctypes.get_errno())}; run as root")
