"""A plain iSCSI initiator on a socket: what it sends and what comes back, one PDU after the other."""

import socket

from panloom.protocol.chap import response
from panloom.wire import iscsi, scsi_cdb, scsi_sense
from panloom.wire.iscsi import FINAL, LoginRequest, NopIn, ScsiCommand
from panloom.wire.iscsi_text import decode_binary, decode_text, encode_text
from panloom.wire.scsi_cdb import BlockCommand, Operation
from support.iscsi_peer import split

LINUX_ISID = bytes.fromhex("00023d000001")
FIRMWARE_ISID = bytes.fromhex("400027230001")
LINUX_KEYS = {"InitialR2T": "No", "ImmediateData": "Yes"}
FIRMWARE_KEYS = {"InitialR2T": "Yes", "ImmediateData": "No"}


def connect(portal, *, source=""):
    """Return a connection to ``address:port``, from ``source`` where that is given."""
    address, port = portal.rsplit(":", 1)
    return socket.create_connection((address, int(port)), timeout=10, source_address=(source, 0))


class Initiator:
    """One connection; ``names`` are the keys that say who logs in where."""

    def __init__(self, sock, names):
        self.sock = sock
        self.names = names
        self.cmd_sn = 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, *pdus):
        self.sock.sendall(b"".join(map(iscsi.encode, pdus)))

    def _exactly(self, octets):
        received = b""
        while len(received) < octets:
            piece = self.sock.recv(octets - len(received))
            if not piece:
                return None
            received += piece
        return received

    def receive(self):
        """Return the next PDU; None when the target has closed."""
        try:
            header = self._exactly(48)
        except ConnectionResetError:
            return None
        if header is None:
            return None
        _, data = iscsi.header_lengths(header)
        return split(header + self._exactly(data + -data % 4))[0]

    def login(self, flags, keys, isid=LINUX_ISID):
        """Send one login request; return the status and keys of its answer."""
        self.send(
            LoginRequest(
                flags=flags, isid=isid, initiator_task_tag=1, cmd_sn=self.cmd_sn, data=encode_text(list(keys.items()))
            )
        )
        answer = self.receive()
        return (answer.status_class, answer.status_detail), decode_text(answer.data)

    def log_in(self, **options):
        """Log in without authentication, in one step."""
        status, _ = self.login(FINAL | 7, {**self.names, **LINUX_KEYS}, **options)
        assert status == (0, 0)
        self.ready()
        return self

    def log_in_plainly(self, **options):
        """Log in without authentication, and ask nothing of a unit."""
        status, _ = self.login(FINAL | 7, {**self.names, **LINUX_KEYS}, **options)
        assert status == (0, 0)
        return self

    def log_in_with(self, user, secret, *, isid=LINUX_ISID, keys=LINUX_KEYS, also=None):
        """Log in under CHAP, ``also`` with the proof; return the status that it ends with, (0, 0) for success."""
        status, _ = self.login(FINAL | 1, {**self.names, "AuthMethod": "CHAP"}, isid)
        if status != (0, 0):
            return status
        status, asked = self.login(FINAL | 1, {"CHAP_A": "5"}, isid)
        if status != (0, 0):
            return status
        challenge = decode_binary(asked["CHAP_C"], longest_octets=64)
        answer = "0x" + response(int(asked["CHAP_I"]), secret.encode(), challenge).hex()
        status, _ = self.login(FINAL | 1, {"CHAP_N": user, "CHAP_R": answer, **(also or {})}, isid)
        if status == (0, 0):
            status, _ = self.login(FINAL | 7, keys, isid)
        return status

    def command(self, cdb, *, flags=FINAL, expected=0, data=b"", lun=0):
        pdu = ScsiCommand(
            lun=iscsi.lun_field(lun), flags=flags, initiator_task_tag=self.cmd_sn,
            expected_data_transfer_length=expected, cmd_sn=self.cmd_sn, cdb=scsi_cdb.encode(cdb), data=data,
        )  # fmt: skip
        self.cmd_sn = (self.cmd_sn + 1) & 0xFFFFFFFF
        self.send(pdu)

    def ready(self):
        self.command(scsi_cdb.Plain(Operation.TEST_UNIT_READY))
        assert scsi_sense.decode(self.receive().data[2:]) == scsi_sense.POWER_ON

    def read(self, lba, blocks):
        cdb = BlockCommand(Operation.READ_10, 0, lba, blocks)
        self.command(cdb, flags=FINAL | iscsi.READ, expected=blocks * 512)
        return self.receive()

    def write(self, lba, data, bits=0):
        self.send_write(lba, data, bits)
        return self.receive()

    def send_write(self, lba, data, bits=0):
        """Send a write and leave its answer to the caller."""
        cdb = BlockCommand(Operation.WRITE_10, bits, lba, len(data) // 512)
        self.command(cdb, flags=FINAL | iscsi.WRITE, expected=len(data), data=data)

    def ask(self, cdb, **fields):
        """Send a command and return its answer, past pings."""
        self.command(cdb, **fields)
        while isinstance(answer := self.receive(), NopIn):
            self.answer(answer)
        return answer

    def answer(self, ping: NopIn):
        """Answer a ping of the target's."""
        pong = {"initiator_task_tag": iscsi.NO_TAG, "target_transfer_tag": ping.target_transfer_tag}
        self.send(iscsi.NopOut(cmd_sn=self.cmd_sn, immediate=True, **pong))
