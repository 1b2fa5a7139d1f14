"""Sessions with a connection manager, without a network: each connection's thread is the test."""

import os
import threading
from pathlib import Path

from panloom.storage.connection_manager import ConnectionManager
from panloom.storage.descriptor import Credentials, SessionFacts
from panloom.storage.exports import Access, Export, ExportedLun, ExportsFile
from panloom.storage.volume_store import VolumeStore
from panloom.values import Iqn
from support import blocks

TARGET = Iqn("iqn.2026-11.dev.panloom:shop.web1")
N1 = Iqn("iqn.2026-11.dev.panloom:node.n1")
N2 = Iqn("iqn.2026-11.dev.panloom:node.n2")
ISID = bytes.fromhex("00023d000001")
DISK = (ExportedLun(0, volume="shop.web1"),)
NOTHING = Credentials()


class PlainConnection:
    """A connection whose thread is the test."""

    def __init__(self, initiator, *, target=TARGET, kind="kernel"):
        self.facts = SessionFacts(initiator, target, "10.0.0.11:40000", ISID, kind, login_at=1.0, last_heard_at=1.0)
        self.shut = threading.Event()
        self.sizes = {}
        self.luns = {}  # what it was given after its login

    def resized(self, lun, blocks):
        self.sizes[lun] = blocks

    def appeared(self, lun, descriptor):
        self.luns[lun] = descriptor

    def vanished(self, lun):
        self.luns[lun] = None

    def shut_down(self):
        self.shut.set()


class Storage:
    """A store and its manager, in a directory that outlives them."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.now = 100.0
        self.events = []
        self.make_store = VolumeStore
        self.start()

    def start(self):
        self.store = self.make_store(self.directory)
        file = ExportsFile(self.directory / "exports.json")
        self.manager = ConnectionManager(self.store, file, self.events.append, clock=lambda: self.now)

    def kill(self):
        """What SIGKILL leaves: the files and nothing else."""
        os.close(self.store._lock_fd)
        self.start()

    def login(self, initiator, *, target=TARGET, proved=NOTHING):
        connection = PlainConnection(initiator, target=target)
        return connection, self.manager.admit(initiator, target, proved, connection)


def export(epoch, initiator=N1, **access):
    return Export(TARGET.name, epoch, DISK, Access(initiator.name, **access))


def write(admission, data=b"x" * 512):
    disk = admission.descriptors[0]
    blocks.write(disk, 0, data)


def read(admission):
    disk, into = admission.descriptors[0], bytearray(512)
    blocks.read(disk, 0, into)
    return bytes(into)


def kinds(storage):
    return [event.event for event in storage.events]
