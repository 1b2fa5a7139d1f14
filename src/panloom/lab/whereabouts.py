"""Where a lab in the background is found: three names in a directory, and a lock that lives as long as the lab.

    lock           held (flock) by the lab's first process, and by ``panloom lab up`` until the lab is up
    lab.json       that process and the machines of its chassis
    panloom.sock   leads into the lab's own /run, to the socket of its control process

Whoever holds the lock may write and remove the others, so two labs never take each other's place, and one that was
killed leaves nothing that stands in the way of the next.
"""

import fcntl
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from panloom.errors import ConfigError, ConflictError, UnavailableError
from panloom.lab.chassis import Chassis

LOCK, RECORD, SOCKET = "lock", "lab.json", "panloom.sock"
END_SECONDS = 20.0  # what the processes of a lab may take to end when they are asked
KILL_SECONDS = 10.0  # and the kernel to remove them
_DRAFT = f"{RECORD}.draft"
_MAX_SOCKET_OCTETS = 107  # unix(7): sun_path, with its zero
_POLL_SECONDS = 0.02


class Record(msgspec.Struct, frozen=True):
    """A lab: its first process, when that began (clock ticks since boot, so that no other is taken for it)."""

    pid: int
    started: int
    chassis: Chassis


class Claim:
    """The right to be the lab of a directory; it goes with the process, and those it forks, if it is not given up."""

    def __init__(self, directory: Path, descriptors: tuple[int, int, int]) -> None:
        self._name = directory.name
        self._parent, self._directory, self._lock = descriptors  # a lab's own /run may lie over the path

    def note(self, pid: int, chassis: Chassis, socket: Path) -> None:
        """Say that ``pid``, this process as all others know it, is the lab, and where its control process listens."""
        record = Record(pid, _started(Path("/proc/self")) or 0, chassis)
        self._remove(SOCKET)
        os.symlink(f"/proc/{pid}/root{socket}", SOCKET, dir_fd=self._directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(os.open(_DRAFT, flags, 0o600, dir_fd=self._directory), "wb") as file:
            file.write(msgspec.json.encode(record))
        os.replace(_DRAFT, RECORD, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def forget(self) -> None:
        """Remove all names, and the directory if nothing else is in it; where another has claimed it since, nothing."""
        if _is_there(self._lock, self._directory):
            for name in (SOCKET, _DRAFT, RECORD, LOCK):
                self._remove(name)
            with suppress(OSError):  # something of other people's is there
                os.rmdir(self._name, dir_fd=self._parent)
        self.let_go()

    def let_go(self) -> None:
        """Leave the lock to the processes that were forked with it."""
        for descriptor in (self._lock, self._directory, self._parent):
            os.close(descriptor)

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._directory)


class Whereabouts:
    """The place of one lab in the background; ``option``, with a space before it, is how a command line means it."""

    def __init__(self, directory: Path, *, option: str = "") -> None:
        self.directory = directory.absolute()
        self.socket = self.directory / SOCKET
        self._option = option

    def command(self, name: str) -> str:
        """Return the words that do something to this lab."""
        return f"panloom lab {name}{self._option}"

    def claim(self) -> Claim:
        """Take the place; what a lab that was killed has left is taken over.

        ConflictError while a lab is there.  ConfigError or UnavailableError for a directory that cannot be one.
        """
        if len(os.fsencode(self.socket)) > _MAX_SOCKET_OCTETS:
            raise ConfigError(str(self.directory), "is too long for a socket in it; name a shorter one: --directory")
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            claim = self._try(create=True)
        except OSError as error:
            mend = "; run as root" if isinstance(error, PermissionError) else ""
            raise UnavailableError(f"no lab can be kept in {self.directory}: {error.strerror}{mend}") from error
        if claim is None:
            record = self.record()
            who = f"process {record.pid}, {len(record.chassis.machines)} nodes" if record else "it is just starting"
            see, end = self.command("status"), self.command("down")
            raise ConflictError(f"a lab is up already ({who}); see: {see}, end it: {end}")
        return claim

    def record(self) -> Record | None:
        """Return the lab that runs, None if there is none; UnavailableError where that cannot be read."""
        try:
            octets = (self.directory / RECORD).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UnavailableError(f"{self.directory / RECORD}: {error.strerror}") from error
        try:
            record = msgspec.json.decode(octets, type=Record)
        except msgspec.DecodeError as error:
            raise UnavailableError(f"{self.directory / RECORD} is no record of a lab ({error}); remove it") from error
        return record if _started(Path(f"/proc/{record.pid}")) == record.started else None

    def end(self) -> Record | None:
        """End the lab and remove all that it left; return what it was, None if there was none.

        UnavailableError if it cannot be ended.
        """
        found: Record | None = None
        began = time.monotonic()
        while (claim := self._claim_what_is_left()) is None:
            record = self.record()
            waited = time.monotonic() - began
            if record is not None and (found is None or waited > END_SECONDS):
                found = record
                _send(record, signal.SIGKILL if waited > END_SECONDS else signal.SIGTERM)
            if waited > END_SECONDS + KILL_SECONDS:
                raise UnavailableError(f"the lab in {self.directory} does not end; look for who holds its lock: fuser")
            time.sleep(_POLL_SECONDS)
        if isinstance(claim, Claim):
            claim.forget()
        return found

    def _claim_what_is_left(self) -> "Claim | bool | None":
        """Return a claim, False where nothing is left to claim, None while a lab is there."""
        try:
            return self._try(create=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise UnavailableError(f"{self.directory}: {error.strerror}") from error

    def _try(self, *, create: bool) -> Claim | None:
        """Return a claim, None while another has one; OSError if there is no such directory, or no lock in it."""
        while True:
            descriptors: list[int] = []
            try:
                descriptors.append(os.open(self.directory.parent, os.O_RDONLY | os.O_DIRECTORY))
                descriptors.append(os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY))
                flags = os.O_RDWR | (os.O_CREAT if create else 0)
                lock = os.open(LOCK, flags, 0o600, dir_fd=descriptors[1])
                descriptors.append(lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_there(lock, descriptors[1]):
                    return Claim(self.directory, (descriptors[0], descriptors[1], lock))
            except BlockingIOError:
                _close(descriptors)
                return None
            except OSError:
                _close(descriptors)
                raise
            _close(descriptors)  # a lab that ended has removed this lock meanwhile: take the next


def _is_there(lock: int, directory: int) -> bool:
    """Whether an open lock is the one that stands in the directory."""
    try:
        return os.path.samestat(os.fstat(lock), os.stat(LOCK, dir_fd=directory))
    except FileNotFoundError:
        return False


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _send(record: Record, number: signal.Signals) -> None:
    """Send a signal to a lab, and to no process that has its number since."""
    with suppress(ProcessLookupError):
        process = os.pidfd_open(record.pid)
        try:
            if _started(Path(f"/proc/{record.pid}")) == record.started:
                signal.pidfd_send_signal(process, number)
        finally:
            os.close(process)


def _started(process: Path) -> int | None:
    """Return when a process began, in clock ticks since boot (proc(5), stat); None if it is none or over."""
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
