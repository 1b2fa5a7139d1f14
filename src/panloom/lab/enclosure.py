"""Namespaces of our own, whose end removes everything: processes, interfaces, mounts and files.

    outer process                    inner process: process 1 of a PID namespace, with its own mounts and network
      forks ───────────────────────▶ mounts /proc and /sys anew and a private tmpfs on /run, raises lo
      waits; passes Ctrl-C on ─────▶ KeyboardInterrupt
      dies, however it may ────────▶ SIGKILL (PR_SET_PDEATHSIG)
      returns the exit status ◀───── main() returns, and the kernel kills all that is left in the namespaces

What ``unshare --pid --fork --kill-child --mount --net`` does, but a signal sent to the outer process alone is obeyed
as well.  While it runs, its files are seen from outside as ``/proc/PID/root/run/…``, Unix sockets included.
"""

import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from panloom.errors import UnavailableError

_CLONE_NEWNS, _CLONE_NEWPID, _CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000  # linux/sched.h
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 1 << 14, 1 << 18  # linux/mount.h
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1  # linux/sockios.h, linux/if.h
_GRACE_SECONDS = 5
_INTERRUPTED = 128 + signal.SIGINT

_libc = ctypes.CDLL(None, use_errno=True)


class Enclosure:
    """What the inner process knows of its outer one."""

    def __init__(self, to_outer: int, pid: int) -> None:
        self._to_outer = to_outer
        self.pid = pid
        """This process's number as those outside of its PID namespace see it; inside it is 1."""

    def let_go(self) -> None:
        """Go on alone: the outer process returns 0 at once, and only the end of this process ends the enclosure.

        Standard input and output become ``/dev/null``, so that a reader of ours sees the end.
        """
        _call("prctl", _PR_SET_PDEATHSIG, 0, 0, 0, 0)
        sys.stdout.flush()
        sys.stderr.flush()
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        os.close(nothing)
        os.write(self._to_outer, b"\0")


def run_enclosed(main: Callable[[Enclosure], int]) -> int:
    """Run ``main`` in a process and namespaces of its own; return its exit status, 130 when it was interrupted.

    The process that calls this can start no other process afterwards, so call it first thing and then leave.  SIGINT,
    SIGTERM and SIGHUP interrupt ``main``; a second one, or five more seconds, kill it.  Raises ``UnavailableError``
    where namespaces are not allowed.
    """
    outer_lives, outer_end = os.pipe()
    from_inner, to_outer = os.pipe()
    try:
        _call("unshare", _CLONE_NEWPID)
    except OSError as error:
        raise UnavailableError(
            f"a PID namespace cannot be made ({error.strerror}): run as root, outside of containers"
        ) from error
    sys.stdout.flush()
    sys.stderr.flush()
    inner = os.fork()
    if inner == 0:
        os.close(outer_end)
        os.close(from_inner)
        _be_inner(main, outer_lives, to_outer)
    os.close(outer_lives)
    os.close(to_outer)
    try:
        return _wait(inner, from_inner)
    finally:
        os.close(outer_end)
        os.close(from_inner)


def _wait(inner: int, from_inner: int) -> int:
    def kill(_number: int, _frame: FrameType | None) -> None:
        os.kill(inner, signal.SIGKILL)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, kill)
        os.kill(inner, signal.SIGINT)
        signal.alarm(_GRACE_SECONDS)

    handlers = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    handlers[signal.SIGALRM] = signal.getsignal(signal.SIGALRM)
    ended = os.pidfd_open(inner)
    try:
        ready, _, _ = select.select([ended, from_inner], [], [])
        if ended not in ready and os.read(from_inner, 1):
            return 0
        _, status = os.waitpid(inner, 0)  # returns when the whole PID namespace is empty
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code
    finally:
        signal.alarm(0)
        os.close(ended)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _be_inner(main: Callable[[Enclosure], int], outer_lives: int, to_outer: int) -> NoReturn:
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # process 1 is deaf to what it has no handler for
        pid = int(Path("/proc/self").readlink().name)  # before /proc is mounted anew: the number that the outside knows
        _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if not select.select([outer_lives], [], [], 0)[0]:  # else it died before we asked to die with it
            os.setsid()  # a terminal's Ctrl-C comes once, through the outer process
            _enter_namespaces()
            status = main(Enclosure(to_outer, pid))
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except SystemExit as leaving:
        status = _status_of(leaving)
    except BaseException:  # noqa: BLE001  process 1 has nobody above it to show the error
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _status_of(leaving: SystemExit) -> int:
    """Do with ``sys.exit(…)`` what the interpreter would: a number is the status, a text is an error message."""
    if leaving.code is None or isinstance(leaving.code, int):
        return leaving.code or 0
    print(leaving.code, file=sys.stderr)
    return 1


def _enter_namespaces() -> None:
    _call("unshare", _CLONE_NEWNS | _CLONE_NEWNET)
    _call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    safe = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _call("mount", b"proc", b"/proc", b"proc", safe, None)
    _call("mount", b"sysfs", b"/sys", b"sysfs", safe, None)
    _call("mount", b"tmpfs", b"/run", b"tmpfs", _MS_NOSUID | _MS_NODEV, b"mode=755")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _call(name: str, *arguments: int | bytes | None) -> None:
    """Call a function of the C library; raise ``OSError`` as it says."""
    if getattr(_libc, name)(*(ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
