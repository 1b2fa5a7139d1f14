"""A target over plain files, for tests of the Remote Transport: the smallest Connection Manager that is honest."""

import contextlib
import itertools
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from panloom.errors import RefusedError
from panloom.storage.descriptor import Admission, Connection, Credentials, Descriptor, StaleEpochError
from panloom.storage.exports import Moved
from panloom.storage.remote_transport import RemoteTransport
from panloom.values import Iqn
from support.blocks import send, send_late

INITIATOR = Iqn("iqn.2026-11.dev.panloom:node.n1")
TARGET = Iqn("iqn.2026-11.dev.panloom:shop.web1")


class FileDisk:
    """One file as a unit; ``error`` is raised by the next calls; ``fenced`` refuses writes; ``late`` answers later."""

    def __init__(self, path: Path, blocks: int, *, read_only: bool = False, late: bool = False) -> None:
        self.path = path
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self.file, blocks * 512)
        self.error: int | None = None
        self.fenced = False
        self.calls: list[tuple[str, int, int]] = []
        self.descriptor = Descriptor(
            blocks=blocks,
            read_only=read_only,
            identity=bytes.fromhex("3000000000000001"),
            serial="0001",
            product="file",
            context=self,
            send_handler=send_late if late else send,
        )

    def _note(self, call: str, offset: int, octets: int) -> None:
        if octets % 512 or offset % 512:
            raise AssertionError(f"{call} of {octets} octets at {offset}: no whole blocks")
        if self.fenced and call in ("write", "unmap"):
            raise StaleEpochError("epoch 1 is fenced off")
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        self.calls.append((call, offset, octets))

    def read(self, offset: int, into: memoryview) -> None:
        self._note("read", offset, len(into))
        if os.preadv(self.file, [into], offset) != len(into):
            raise OSError("short read")

    def write(self, offset: int, data: memoryview) -> None:
        self._note("write", offset, len(data))
        os.pwrite(self.file, data, offset)

    def flush(self) -> None:
        self._note("flush", 0, 0)
        os.fdatasync(self.file)

    def unmap(self, offset: int, octets: int) -> None:
        self._note("unmap", offset, octets)
        os.pwrite(self.file, bytes(octets), offset)

    def content(self, offset: int, octets: int) -> bytes:
        return os.pread(self.file, octets, offset)


@dataclass
class FileManager:
    """One target for one initiator, or for anybody when ``initiator`` is None."""

    disks: dict[int, FileDisk]
    wanted: Credentials = field(default_factory=Credentials)
    initiator: Iqn | None = None
    elsewhere: Moved | None = None
    connections: dict[str, Connection] = field(default_factory=dict)
    ended: list[tuple[str, str]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    first_reads: list[str] = field(default_factory=list)
    numbers: itertools.count = field(default_factory=lambda: itertools.count(1))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def targets_visible(self, initiator: Iqn, address: str) -> tuple[Iqn, ...]:
        return (TARGET,) if self.initiator in (None, initiator) else ()

    def credentials(self, initiator: Iqn, target: Iqn, address: str) -> Credentials | None:
        return self.wanted if target in self.targets_visible(initiator, address) else None

    def moved(self, initiator: Iqn, target: Iqn, address: str) -> Moved | None:
        return self.elsewhere if target in self.targets_visible(initiator, address) else None

    def admit(self, initiator: Iqn, target: Iqn, proved: Credentials, connection: Connection) -> Admission:
        if self.credentials(initiator, target, "") != proved:
            raise RefusedError("not allowed here")
        with self.lock:
            for older in self.connections.values():
                if older.facts.initiator == initiator and initiator == self.initiator:
                    older.shut_down()
            session_id = f"s{next(self.numbers)}"
            self.connections[session_id] = connection
        return Admission(target, 1, {lun: disk.descriptor for lun, disk in self.disks.items()}, session_id)

    def first_read(self, session_id: str) -> None:
        self.first_reads.append(session_id)

    def refused(self, initiator: Iqn | None, target: Iqn | None, peer: str, why: str) -> None:
        self.refusals.append(why)

    def gone(self, session_id: str, why: str) -> None:
        with self.lock:
            del self.connections[session_id]
        self.ended.append((session_id, why))


@contextlib.contextmanager
def serving(manager: FileManager, *more: tuple[str, int]):
    """Serve the manager on a port of the loopback, and more portals; yield ``address:port``."""
    transport = manager.transport = RemoteTransport((("127.0.0.1", 0), *more), manager)
    transport.start()
    try:
        address, port = transport.addresses[0]
        yield f"{address}:{port}"
    finally:
        transport.stop()
