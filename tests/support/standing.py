"""A target that stands alone, its three parts in the test's own process, with whatever the test puts between them."""

import contextlib
from dataclasses import dataclass, field, replace

from panloom.initiator import Session
from panloom.storage.connection_manager import ConnectionManager
from panloom.storage.exports import Access, Export, ExportedLun, NoFile
from panloom.storage.remote_transport import RemoteTransport
from panloom.storage.stand_alone import NoStore
from panloom.values import Iqn

TARGET = Iqn("iqn.2026-11.dev.panloom:standing")
INITIATOR = Iqn("iqn.2026-11.dev.panloom:node.n1")
ANYBODY = Access(None)
MIB = 1 << 20


def memory(*numbers, octets=MIB, **words):
    """Return LUNs of memory, each its own."""
    return tuple(ExportedLun(number, device=f"mem:{octets + number * 4096}", **words) for number in numbers)


@dataclass
class Standing:
    """A Connection Manager and a Remote Transport, between which ``change(lun, descriptor)`` stands."""

    manager: ConnectionManager
    change: object = staticmethod(lambda _, descriptor: descriptor)
    admissions: list = field(default_factory=list)
    events: list = field(default_factory=list)

    def __post_init__(self):
        self.transport = RemoteTransport([("127.0.0.1", 0)], self)

    def __getattr__(self, name):
        return getattr(self.manager, name)

    def admit(self, *arguments, **more):
        """Let in, with descriptors as the test wants them."""
        admission = self.manager.admit(*arguments, **more)
        changed = {lun: self.change(lun, descriptor) for lun, descriptor in admission.descriptors.items()}
        self.admissions.append(replace(admission, descriptors=changed))
        return self.admissions[-1]

    @property
    def portal(self):
        return self.transport.addresses[0]

    def session(self, *, initiator=INITIATOR, target=TARGET, **options):
        """Open a session with our initiator; await it."""
        options.setdefault("reconnect_seconds", 0)
        return Session.open(self.portal, initiator=initiator, target=target, **options)


def export(*luns, target=TARGET, epoch=1, access=ANYBODY):
    """Return an export of these LUNs, to anybody."""
    return Export(str(target), epoch, tuple(luns), access)


@contextlib.contextmanager
def standing(*luns, change=None):
    """Serve LUNs on a port of the loopback address."""
    events = []
    manager = ConnectionManager(NoStore(), NoFile(), events.append)
    here = Standing(manager, events=events, **({"change": change} if change else {}))
    try:
        if luns:
            manager.export(export(*luns))
        here.transport.start()
        yield here
    finally:
        here.transport.stop()
        manager.shut_down()
