"""An initiator that waits for each answer, on the real hot loop over real Descriptors; no sockets."""

from panloom.protocol.iscsi_session import IscsiSession
from panloom.protocol.scsi_disk import LogicalUnits
from panloom.protocol.scsi_pages import Disk
from panloom.storage.descriptor import SessionFacts
from panloom.storage.hot import HotLoop
from panloom.values import Iqn
from panloom.wire import iscsi, scsi_cdb, scsi_sense
from panloom.wire.iscsi import DataIn, DataOut, ReadyToTransfer, ScsiCommand
from panloom.wire.scsi_cdb import BlockCommand, Operation
from support.iscsi_peer import FIRMWARE, LINUX, Wire, split
from support.units import tell

INITIATOR = Iqn("iqn.2026-11.dev.panloom:node.n1")


class Session:
    """A session that was admitted; each command returns its sense data, None for GOOD.

    ``immediate``: a write brings its data along, and the hot path takes it; else the target asks for them.
    """

    def __init__(self, descriptors, *, immediate=True):
        self._wire = Wire([])
        self._immediate = immediate
        units = LogicalUnits({lun: _disk(descriptor) for lun, descriptor in descriptors.items()})
        tell(units)
        session = IscsiSession(
            LINUX if immediate else FIRMWARE, cid=1, exp_cmd_sn=1, stat_sn=1, units=units, targets=()
        )
        facts = SessionFacts(INITIATOR, INITIATOR, "127.0.0.1:1", bytes(6), "kernel", 0.0, 0.0)
        self._loop = HotLoop(
            self._wire, session, descriptors, facts, clock=lambda: 1.0, first_read=lambda: None, pings=False
        )
        self._cmd_sn = 0
        self.data = b""

    def _say(self, pdu):
        self._wire.chunks.append(iscsi.encode(pdu))
        self._wire.sent.clear()
        self._loop.serve()
        return split(bytes(self._wire.sent))

    def command(self, cdb, data=b"", octets_in=0):
        """Carry out a command to LUN 0; what it reads is then in ``data``."""
        self._cmd_sn += 1
        brings = data if self._immediate else b""
        answers = self._say(
            ScsiCommand(
                flags=iscsi.FINAL | (iscsi.WRITE if data else 0) | (iscsi.READ if octets_in else 0),
                initiator_task_tag=self._cmd_sn,
                expected_data_transfer_length=len(data) or octets_in,
                cmd_sn=self._cmd_sn,
                cdb=scsi_cdb.encode(cdb),
                data=brings,
            )
        )
        while isinstance(answers[-1], ReadyToTransfer):
            answers = self._give(answers[-1], data)
        self.data = b"".join(answer.data for answer in answers if isinstance(answer, DataIn))
        end = answers[-1]
        return None if end.status == 0 else scsi_sense.decode(end.data[2:])

    def _give(self, wanted, data):
        sent, answers = 0, []
        while sent < wanted.desired_data_transfer_length:
            octets = min(8192, wanted.desired_data_transfer_length - sent)
            at = wanted.buffer_offset + sent
            sent += octets
            answers = self._say(
                DataOut(
                    flags=iscsi.FINAL if sent == wanted.desired_data_transfer_length else 0,
                    initiator_task_tag=wanted.initiator_task_tag,
                    target_transfer_tag=wanted.target_transfer_tag,
                    buffer_offset=at,
                    data_sn=(sent - 1) // 8192,
                    data=data[at : at + octets],
                )
            )
        return answers

    def write(self, lba, data, *, fua=False):
        """Write blocks; ``fua``: durable when it answers."""
        bits = scsi_cdb.FUA if fua else 0
        return self.command(BlockCommand(Operation.WRITE_10, bits, lba, len(data) // 512), data)

    def write_same(self, lba, blocks, block):
        """Write one block many times."""
        return self.command(BlockCommand(Operation.WRITE_SAME_10, 0, lba, blocks), block)

    def unmap(self, lba, blocks):
        """Give a range back."""
        listed = scsi_cdb.encode_unmap_list(((lba, blocks),))
        return self.command(scsi_cdb.Unmap(0, len(listed)), listed)

    def read(self, lba, blocks, *, fua=False):
        """Read blocks into ``data``; ``fua``: what is on the disk."""
        bits = scsi_cdb.FUA if fua else 0
        return self.command(BlockCommand(Operation.READ_10, bits, lba, blocks), octets_in=blocks * 512)

    def synchronize(self):
        """Have all that was written on the disk."""
        return self.command(BlockCommand(Operation.SYNCHRONIZE_CACHE_10, 0, 0, 0))

    def stop(self):
        """Stop the unit, as a system does that is switched off."""
        return self.command(scsi_cdb.StartStopUnit(0, 0))


def _disk(descriptor):
    return Disk(
        blocks=descriptor.blocks,
        read_only=descriptor.read_only,
        identity=descriptor.identity,
        serial=descriptor.serial,
        product=descriptor.product,
    )
