"""PDUs that are wrong in one way or several, for a target that is live: each from a good one.

    good PDU ─▶ its CDB, LUN, lengths, flags, tags or numbers are others ─▶ bits of its header are others

Most of them leave the stream in step, so that the next one is read as well; what breaks it comes last.
"""

import struct

from panloom.wire import iscsi, scsi_cdb
from panloom.wire.iscsi import DataOut, LogoutRequest, NopOut, ScsiCommand, Snack, TaskManagementRequest, TextRequest
from panloom.wire.iscsi_text import encode_text

BLOCKS = 4096  # of every unit
OPERATIONS = (
    *(0x00, 0x03, 0x04, 0x08, 0x0A, 0x12, 0x15, 0x16, 0x17, 0x1A, 0x1B, 0x1D, 0x1E, 0x25, 0x28, 0x2A, 0x2E, 0x2F),
    *(0x34, 0x35, 0x37, 0x3B, 0x3C, 0x41, 0x42, 0x48, 0x4C, 0x4D, 0x53, 0x55, 0x5A, 0x5E, 0x5F, 0x7F, 0x83, 0x84),
    *(0x85, 0x88, 0x89, 0x8A, 0x8B, 0x8E, 0x8F, 0x90, 0x91, 0x93, 0x9C, 0x9E, 0xA0, 0xA3, 0xA4, 0xA8, 0xAA, 0xAF),
)
"""Operation codes of SPC-4, SBC-4 and their relatives."""
EDGES = (0, 1, 7, 8, 255, 511, 512, 513, 0x7FFF, 0xFFFF, 0xFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
LUNS = (0, 1, 2, 3, 1 << 48, 2 << 48, 0x00FF << 48, 0x4001 << 48, 0xC101 << 48, 0x3FFF << 48, (1 << 64) - 1)
KEYS = (
    ("SendTargets", "All"), ("SendTargets", ""), ("MaxRecvDataSegmentLength", "0"), ("HeaderDigest", "CRC32C"),
    ("X-" + "y" * 300, "z"), ("MaxRecvDataSegmentLength", "99999999999999999999"), ("TargetName", "iqn." + "a" * 230),
)  # fmt: skip


class LivePdus:
    """What one connection says after its login; ``chance`` decides everything."""

    def __init__(self, chance, cmd_sn):
        self._chance = chance
        self._cmd_sn = cmd_sn
        self._tag = 100

    def some(self, count):
        """Return so many PDUs, the last of which may be one that breaks the stream."""
        return [*(self._wrong() for _ in range(count - 1)), self._breaking()]

    def _wrong(self):
        octets = bytearray(self._good())
        for _ in range(self._chance.choice((0, 0, 1, 1, 1, 2))):
            self._hurt(octets)
        return bytes(octets)

    # --- good ones

    def _good(self):
        self._tag += 1
        kind = self._chance.choices((self._command, self._data_out, self._management, self._other), (82, 3, 6, 9))[0]
        return iscsi.encode(kind())

    def _numbers(self):
        immediate = self._chance.random() < 0.4
        numbers = {"initiator_task_tag": self._tag, "cmd_sn": self._cmd_sn, "immediate": immediate}
        if not immediate:
            self._cmd_sn = (self._cmd_sn + 1) & 0xFFFFFFFF
        return numbers

    def _lun(self):
        """Return a LUN as it stands in a header; one that is there, mostly."""
        return self._chance.choice(LUNS) if self._chance.random() < 0.1 else self._chance.choice((1, 2, 3)) << 48

    def _command(self):
        chance, blocks = self._chance, self._chance.choice((0, 1, 1, 2, 8, 17))
        operation = chance.choice(OPERATIONS)
        cdb = bytearray(chance.randbytes(16) if chance.random() < 0.3 else bytes(16))
        cdb[0] = operation
        lba = chance.randrange(BLOCKS) if chance.random() < 0.8 else chance.choice(EDGES)
        if operation >> 5 in (1, 2):
            struct.pack_into(">IxH", cdb, 2, lba, blocks)
        elif operation >> 5 == 4:
            struct.pack_into(">QI", cdb, 2, lba, blocks)
        elif chance.random() < 0.5:
            cdb[4] = chance.choice((0, 8, 24, 255))
        data = b""
        if chance.random() < 0.5:
            data = chance.randbytes(chance.choice((8, 16, 24, 512, 512 * max(1, blocks))))
            if operation == scsi_cdb.Operation.UNMAP and chance.random() < 0.7:
                data = scsi_cdb.encode_unmap_list(((lba, blocks),))
                struct.pack_into(">H", cdb, 7, len(data))
        way = chance.choice((0, iscsi.READ, iscsi.WRITE, iscsi.WRITE, iscsi.READ | iscsi.WRITE))
        expected = chance.choice((len(data), blocks * 512, chance.choice(EDGES) % 70_000))
        flags = chance.choice((iscsi.FINAL, iscsi.FINAL, 0)) | way | chance.randrange(8)
        fields = {"flags": flags, "lun": self._lun(), "cdb": bytes(cdb), "data": data, **self._numbers()}
        return ScsiCommand(expected_data_transfer_length=expected, **fields)

    def _data_out(self):
        chance = self._chance
        return DataOut(
            flags=chance.choice((0, iscsi.FINAL)), initiator_task_tag=self._tag - chance.randrange(4),
            target_transfer_tag=chance.choice((iscsi.NO_TAG, 0, 1, 2, chance.getrandbits(32))),
            data_sn=chance.choice((0, 0, 1, 2, 0xFFFFFFFF)), buffer_offset=chance.choice((0, 0, 512, 1024, 1 << 31)),
            data=chance.randbytes(chance.choice((0, 1, 512, 512, 4096))),
        )  # fmt: skip

    def _management(self):
        chance = self._chance
        function = 0x80 | chance.choice((1, 2, 3, 4, 5, 8, chance.randrange(128)))
        referenced = {
            "referenced_task_tag": self._tag - chance.randrange(8),
            "ref_cmd_sn": self._cmd_sn - chance.randrange(4) & 0xFFFFFFFF,
        }
        return TaskManagementRequest(flags=function, lun=self._lun(), **referenced, **self._numbers())

    def _other(self):
        chance = self._chance
        match chance.randrange(3):
            case 0:
                return NopOut(target_transfer_tag=chance.choice((iscsi.NO_TAG, 5)), data=b"p" * 9, **self._numbers())
            case 1:
                text = encode_text([chance.choice(KEYS) for _ in range(chance.randrange(4))])
                return TextRequest(
                    flags=chance.choice((0x80, 0x40, 0xC0)), data=text + chance.randbytes(3), **self._numbers()
                )
            case _:
                return Snack(initiator_task_tag=self._tag)

    # --- wrong ones

    def _hurt(self, octets):
        """Change a header, in place, so that the stream stays in step."""
        chance = self._chance
        match chance.choices(range(7), (6, 4, 5, 1, 6, 9, 3))[0]:
            case 0:
                octets[8:16] = self._lun().to_bytes(8, "big")
            case 1:
                struct.pack_into(">I", octets, 16, chance.choice((0xFFFFFFFF, self._tag - 1, chance.getrandbits(32))))
            case 2:
                struct.pack_into(">I", octets, 20, chance.choice(EDGES))  # length expected, TTT, referenced tag
            case 3:
                struct.pack_into(">I", octets, 24, (self._cmd_sn + chance.choice((-2, 1, 5, 1 << 31))) & 0xFFFFFFFF)
            case 4:
                octets[1] = chance.randrange(256)
            case 5:
                octets[chance.randrange(32, 48)] = chance.choice((0, 0xFF, chance.randrange(256)))
            case _:
                octets[chance.choice((*range(1, 4), *range(8, 48)))] ^= 1 << chance.randrange(8)

    def _breaking(self):
        chance, octets = self._chance, bytearray(self._wrong())
        match chance.randrange(6):
            case 0:
                octets[4] = chance.randrange(1, 256)  # TotalAHSLength
            case 1:
                octets[5:8] = chance.choice((b"\xff\xff\xff", b"\0\0\1", b"\4\0\1", chance.randbytes(3)))
            case 2:
                octets[0] = chance.randrange(256)
            case 3:
                del octets[chance.randrange(1, len(octets)) :]
            case 4:
                return iscsi.encode(LogoutRequest(initiator_task_tag=self._tag, cmd_sn=self._cmd_sn))
            case _:
                octets[:] = chance.randbytes(chance.choice((47, 48, 49, 500)))
        return bytes(octets)
