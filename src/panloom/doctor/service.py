"""The processes of a control node, their sockets, and the directory of the disks.

Where none of it was ever set up nothing is missing: this machine is no control node, and is told so.
"""

import os
import socket
from collections.abc import Callable
from pathlib import Path

from panloom.control.client import Client
from panloom.doctor.check import Check, Purpose, State
from panloom.errors import PanloomError
from panloom.system_calls import SystemCalls
from panloom.values import format_size

_TIMEOUT_SECONDS = 2.0
_LEAST_OCTETS = 1 << 30
_BLOCK_OCTETS = 1 << 16
_KERNEL = SystemCalls()


def beside(control: Path) -> tuple[Path | None, Path | None]:
    """Return the storage process's socket and its directory beside a control process's, None for what is not there.

    They are looked for as a lab keeps them.  Its socket is a link into another root, which ``resolve`` would lose.
    """
    there = control.parent / control.readlink() if control.is_symlink() else control
    storage, directory = (there.with_name(name) for name in ("storage.sock", "volumes"))
    return storage if _is_there(storage) else None, directory if _is_there(directory) else None


def checks(control: Path, storage: Path | None, directory: Path | None) -> tuple[Check, ...]:
    """Look at both processes, by their sockets, and at the directory in which images and volumes are kept.

    What is None is another platform's or not known, and has no row.
    """
    expected = any(path is not None and _is_there(path) for path in (directory, control, storage))
    return (
        _control(control, expected=expected),
        *((_storage(storage, expected=expected),) if storage else ()),
        *(_directory(directory) if directory else ()),
    )


def _is_there(path: Path) -> bool:
    """Whether this user sees it."""
    return os.access(path, os.F_OK)


def _control(path: Path, *, expected: bool) -> Check:
    what = "control process"
    try:
        status = Client(str(path), timeout_seconds=_TIMEOUT_SECONDS).get("status")
    except PanloomError as error:
        if _is_forbidden(path):
            return Check(Purpose.CONTROL_NODE, what, State.UNKNOWN, str(error))
        return _silent(what, f"nobody answers on {path}", "systemctl start panloom-control", expected=expected)
    return Check(Purpose.CONTROL_NODE, what, State.OK, f"answers on {path}: {status['state']}")


def _storage(path: Path, *, expected: bool) -> Check:
    what = "storage process"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_TIMEOUT_SECONDS)
        try:
            connection.connect(str(path))
        except PermissionError:
            return Check(Purpose.CONTROL_NODE, what, State.UNKNOWN, f"this user may not open {path}")
        except OSError:
            return _silent(what, f"nobody listens on {path}", "systemctl start panloom-storage", expected=expected)
    return Check(Purpose.CONTROL_NODE, what, State.OK, f"listens on {path}")


def _silent(what: str, why: str, mend: str, *, expected: bool) -> Check:
    if expected:
        return Check(Purpose.CONTROL_NODE, what, State.MISSING, why, mend)
    return Check(Purpose.CONTROL_NODE, what, State.WITHOUT, "not set up here")


def _is_forbidden(path: Path) -> bool:
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return not os.access(path, os.W_OK)


def _directory(directory: Path) -> tuple[Check, ...]:
    """Look at the file system of the directory, or of where it would be made."""
    what = "disk directory"
    there = next(place for place in (directory, *directory.parents) if os.access(place, os.F_OK))
    usage = os.statvfs(there)
    free = usage.f_bavail * usage.f_frsize
    found = f"{there}: {format_size(free)} free"
    if not os.access(there, os.W_OK | os.X_OK):
        return (Check(Purpose.CONTROL_NODE, what, State.UNKNOWN, f"{found}; this user may not write there"),)
    if free < _LEAST_OCTETS:
        space = Check(Purpose.CONTROL_NODE, what, State.MISSING, f"{found}, and volumes grow", "make room")
    else:
        space = Check(Purpose.CONTROL_NODE, what, State.OK, found)
    return (space, *_features(there))


def _features(there: Path) -> tuple[Check, ...]:
    try:
        source, target = (os.open(there, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600) for _ in range(2))
    except OSError as error:
        why = f"{there} takes no file without a name: {error.strerror}"
        return (Check(Purpose.CONTROL_NODE, "file system", State.UNKNOWN, why),)
    try:
        os.pwrite(source, bytes(_BLOCK_OCTETS), 0)
        return (
            _feature("holes", lambda: _KERNEL.punch_hole(source, 0, _BLOCK_OCTETS), "UNMAP gives no space back"),
            _feature("reflink", lambda: _KERNEL.reflink(target, source), "images are copied when they come in"),
        )
    finally:
        os.close(source)
        os.close(target)


def _feature(what: str, attempt: Callable[[], None], otherwise: str) -> Check:
    try:
        attempt()
    except OSError as error:
        return Check(Purpose.CONTROL_NODE, what, State.WITHOUT, f"{(error.strerror or '').lower()}: {otherwise}")
    return Check(Purpose.CONTROL_NODE, what, State.OK)
