"""Open a socket in another network namespace: a thread steps in, opens it, and steps out; the socket stays there."""

import ctypes
import os
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


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise UnavailableError(f"cannot change the network namespace: {os.strerror(ctypes.get_errno())}; run as root")
