"""An initiator's side of full feature phase, without sockets: octets in, answers out, a disk in memory between."""

from panloom.protocol.iscsi_keys import SessionParameters
from panloom.protocol.iscsi_session import IscsiSession
from panloom.protocol.scsi_disk import LogicalUnits
from panloom.protocol.scsi_pages import Disk
from panloom.storage.descriptor import Descriptor, SessionFacts, StaleEpochError
from panloom.storage.hot import HotLoop
from panloom.values import Iqn
from panloom.wire import iscsi
from support.blocks import send
from support.units import tell

LINUX = SessionParameters(False, True, 262144, 16776192, 262144)
FIRMWARE = SessionParameters(True, False, 8192, 262144, 65536)
BLOCKS = 64


class MemoryDisk:
    """A bytearray as a unit.  ``errors``: call → errno that it raises; ``fenced`` refuses what changes the disk."""

    def __init__(self, blocks=BLOCKS, *, read_only=False, block_octets=512):
        self.octets = bytearray(b"".join(bytes([block % 251]) * block_octets for block in range(blocks)))
        self.calls = []
        self.errors = {}
        self.fenced = False
        self.descriptor = Descriptor(
            blocks=blocks,
            read_only=read_only,
            identity=bytes.fromhex("3000000000000001"),
            serial="0001",
            product="memory",
            context=self,
            send_handler=send,
            block_octets=block_octets,
        )

    def _note(self, call, offset=0, octets=0):
        assert offset % 512 == octets % 512 == 0
        assert 0 <= offset <= offset + octets <= len(self.octets)
        if call in self.errors:
            raise OSError(self.errors[call], "injected")
        if self.fenced and call in ("write", "unmap"):
            raise StaleEpochError("epoch 1 is fenced off")
        self.calls.append((call, offset, octets))

    def read(self, offset, into):
        self._note("read", offset, len(into))
        into[:] = self.octets[offset : offset + len(into)]

    def write(self, offset, data):
        self._note("write", offset, len(data))
        self.octets[offset : offset + len(data)] = data

    def flush(self):
        self._note("flush")

    def unmap(self, offset, octets):
        self._note("unmap", offset, octets)
        self.octets[offset : offset + octets] = bytes(octets)


class Wire:
    """A socket that has been given everything to say; None is a while of silence."""

    def __init__(self, chunks):
        self.chunks = list(chunks)
        self.sent = bytearray()
        self.sends = 0

    def recv_into(self, buffer):
        if not self.chunks:
            return 0
        chunk = self.chunks.pop(0)
        if chunk is None:
            raise BlockingIOError
        taken = chunk[: len(buffer)]
        buffer[: len(taken)] = taken
        if len(taken) < len(chunk):
            self.chunks.insert(0, chunk[len(taken) :])
        return len(taken)

    def sendall(self, data):
        self.sent += data
        self.sends += 1


class CarefulSession(IscsiSession):
    """The slow twin: nothing is answered past it."""

    quiet = False

    def must_see(self, initiator_task_tag, field, *, reading):
        return True


def split(octets):
    """Return the PDUs in a stream of whole ones."""
    pdus, at = [], 0
    while at < len(octets):
        ahs, data = iscsi.header_lengths(octets[at : at + 48])
        body = at + 48 + ahs
        pdus.append(
            iscsi.decode(bytes(octets[at : at + 48]), bytes(octets[at + 48 : body]), bytes(octets[body : body + data]))
        )
        at = body + data + -data % 4
    assert at == len(octets)
    return pdus


class Conversation:
    """One session over given chunks; afterwards ``answers``, ``why`` it ended, ``facts`` and the wire."""

    def __init__(
        self,
        chunks,
        disks=None,
        *,
        parameters=LINUX,
        ready=True,
        session=IscsiSession,
        pings=False,
        discovery=(),
        wire=None,
        threads=False,
    ):
        self.disks = {} if discovery else {0: MemoryDisk()} if disks is None else disks
        self.wire = Wire(chunks) if wire is None else wire
        self.units = units = LogicalUnits(
            {
                lun: Disk(
                    blocks=disk.descriptor.blocks,
                    read_only=disk.descriptor.read_only,
                    identity=disk.descriptor.identity,
                    serial=disk.descriptor.serial,
                    product=disk.descriptor.product,
                    block_octets=disk.descriptor.block_octets,
                )
                for lun, disk in self.disks.items()
            }
        )
        if ready:  # as after the first command to each unit
            tell(units)
        self.session = session(
            parameters,
            cid=1,
            exp_cmd_sn=1,
            stat_sn=1,
            units=None if discovery else units,
            targets=discovery or (("iqn.2026-11.dev.panloom:shop.web1", "127.0.0.1:3260,1"),),
        )
        name = Iqn("iqn.2026-11.dev.panloom:node.n1")
        self.facts = SessionFacts(name, name, "127.0.0.1:1", bytes(6), "unknown", 0.0, 0.0)
        self.first_reads = 0
        self.loop = HotLoop(
            self.wire,
            self.session,
            {lun: disk.descriptor for lun, disk in self.disks.items()},
            self.facts,
            clock=lambda: 1.0,
            first_read=self._first_read,
            pings=pings,
            threads=threads,
        )

    def _first_read(self):
        self.first_reads += 1

    def run(self):
        self.why = self.loop.run()
        self.answers = split(self.wire.sent)
        return self


def talk(*pdus, **options):
    """Say these PDUs at once and return the conversation."""
    return Conversation([b"".join(iscsi.encode(pdu) for pdu in pdus)], **options).run()
