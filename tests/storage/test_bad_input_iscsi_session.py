"""Bad input in full feature phase, item by item, against the real storage process.

Each row: what is sent, what is answered.  Beside it a good session of another initiator goes on with checked data, and
the process ends cleanly with one line in its log for each connection that it ended.
"""

import random
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest

from panloom.storage.exports import Access, ExportedLun
from panloom.wire import iscsi, scsi_cdb, scsi_copy
from panloom.wire.iscsi import CONTINUE, FINAL, NO_TAG, READ, WRITE, DataOut, NopOut, ScsiCommand, TextRequest
from panloom.wire.scsi_cdb import BlockCommand, Operation
from support.initiator import Initiator, connect
from support.iscsi_ear import hear, say
from support.storage_process import StorageProcess
from support.waiting import until

IQN = "iqn.2026-11.dev.panloom:"
BLOCKS = 8192
TAG = 0x700


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    async def prepare(client):
        for name in ("good", "bad"):
            await client.create_volume(name, None, BLOCKS * 512)
            lun = ExportedLun(0, volume=name)
            await client.export(f"{IQN}{name}", [lun], 1, Access(f"{IQN}node.{name}"))

    with StorageProcess(tmp_path_factory.mktemp("storage")) as process:
        process.run(prepare)
        yield process
        process.end()
        assert "Traceback" not in process.log.read_text()


def initiator_of(process, name, *, cmd_sn=1):
    """Return a session of one of the two that has heard of its unit attention."""
    names = {"InitiatorName": f"{IQN}node.{name}", "TargetName": f"{IQN}{name}", "SessionType": "Normal"}
    initiator = Initiator(connect(f"127.0.0.1:{process.port}"), names)
    initiator.cmd_sn = cmd_sn
    return initiator.log_in()


class Good:
    """A session that writes and reads back, again and again."""

    def __init__(self, process):
        self.initiator = initiator_of(process, "good")
        self.random = random.Random(7)

    def goes_on(self):
        data, lba = self.random.randbytes(4096), self.random.randrange(BLOCKS - 8)
        assert self._answer(lambda: self.initiator.write(lba, data)).status == 0
        assert self._answer(lambda: self.initiator.read(lba, 8)).data == data

    def _answer(self, ask):
        answer = ask()
        while isinstance(answer, iscsi.NopIn):
            answer = self.initiator.receive()
        return answer


@pytest.fixture(scope="module")
def good(process):
    good = Good(process)
    with good.initiator:
        yield good


# ── what is sent ─────────────────────────────────────────────────────────────────────────────────────────────────────


def raw(opcode, *, flags=FINAL, ahs=0, data=0, body=b""):
    """Return a header of any opcode that announces any lengths, and any octets after it."""
    header = bytearray(struct.pack(">BBxxI", opcode, flags, ahs << 24 | data).ljust(48, b"\0"))
    header[16:20] = TAG.to_bytes(4, "big")
    header[24:28] = (2).to_bytes(4, "big")  # CmdSN, after the TEST UNIT READY of the login
    return bytes(header) + body


def command(cdb, *, flags=FINAL | READ, expected=0, data=b"", sn=2, tag=None, lun=0, ahs=b"", immediate=False):
    octets = cdb if isinstance(cdb, bytes) else scsi_cdb.encode(cdb)
    return iscsi.encode(
        ScsiCommand(
            flags=flags, lun=lun, initiator_task_tag=TAG + sn if tag is None else tag, cmd_sn=sn, cdb=octets,
            expected_data_transfer_length=expected, data=data, ahs=ahs, immediate=immediate,
        )
    )  # fmt: skip


def read(lba=0, blocks=1, **fields):
    cdb = BlockCommand(fields.pop("operation", Operation.READ_10), fields.pop("bits", 0), lba, blocks)
    return command(cdb, **{"expected": blocks * 512, **fields})


def write(lba=0, blocks=1, data=b"", **fields):
    cdb = BlockCommand(fields.pop("operation", Operation.WRITE_10), fields.pop("bits", 0), lba, blocks)
    return command(cdb, **{"flags": FINAL | WRITE, "expected": blocks * 512, "data": data, **fields})


def plain(cdb, **fields):
    """Return a command that is twelve zeroes but for what is given."""
    return command(cdb.ljust(16, b"\0"), **fields)


def unmap(octets, *, length=None):
    cdb = scsi_cdb.Unmap(0, len(octets) if length is None else length)
    return command(cdb, flags=FINAL | WRITE, expected=len(octets), data=octets)


def data_out(tag=TAG + 2, **fields):
    return iscsi.encode(DataOut(initiator_task_tag=tag, **fields))


def manage(function, *, of=NO_TAG, lun=0, tag=0x900):
    return iscsi.encode(
        iscsi.TaskManagementRequest(
            flags=FINAL | function, initiator_task_tag=tag, referenced_task_tag=of, cmd_sn=3, lun=lun
        )
    )


def nop(**fields):
    return iscsi.encode(NopOut(**{"initiator_task_tag": 0x800, "cmd_sn": 2, **fields}))


def text(data=b"SendTargets=\0", *, flags=FINAL, sn=2, ttt=NO_TAG):
    return iscsi.encode(
        TextRequest(flags=flags, initiator_task_tag=0x800, cmd_sn=sn, data=data, target_transfer_tag=ttt)
    )


def logout(reason=0, *, cid=0):
    return iscsi.encode(iscsi.LogoutRequest(flags=FINAL | reason, initiator_task_tag=0x800, cid=cid, cmd_sn=2))


BLOCK, ENDLESS = b"x" * 512, 0xFFFFFF
UNKNOWN = [*range(0x07, 0x10), *range(0x11, 0x20), *range(0x27, 0x31), *range(0x33, 0x3F)]
TARGETS_OWN = [0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x31, 0x32, 0x3F]

HEADERS = {
    "a data segment of 16 MiB": (raw(0x01, data=ENDLESS), ["reject 4", "closed"]),
    "a data segment beyond what we declared": (raw(0x01, data=262148), ["reject 4", "closed"]),
    "a data segment in a PDU that has none": (raw(0x02, data=4, body=b"oops"), ["reject 4", "closed"]),
    "an additional header where none belongs": (raw(0x00, ahs=1, body=bytes(4)), ["reject 4", "closed"]),
    **{
        f"an additional header of {words} words": (read(ahs=bytes((0xFF, 0xFF, 9, 9)) * words), ["sense 5/2400"])
        for words in (1, 2, 64, 254, 255)
    },
    "a login in full feature phase": (raw(0x03, data=4, body=b"A=B\0"), ["reject 4", "closed"]),
    **{f"opcode {opcode:#04x}, unknown": (raw(opcode), ["reject 5"]) for opcode in UNKNOWN},
    **{f"opcode {opcode:#04x}, a target's": (raw(opcode), ["reject 4", "closed"]) for opcode in TARGETS_OWN},
}

NUMBERS = {
    "CmdSN behind the window": (read(sn=1), []),
    "CmdSN beyond the window": (read(sn=2 + 200), []),
    "CmdSN half of all numbers away": (read(sn=2 + (1 << 31)), []),
    "CmdSN with a gap": (read(sn=3), []),
    "a gap that is filled": (read(sn=3, blocks=2) + read(sn=2), ["data 512", "data 1024"]),
    "a command before its turn, twice": (read(sn=3) + read(sn=3) + read(sn=2, blocks=2), ["data 1024", "data 512"]),
    "a write before its turn that is to go on": (write(sn=3, flags=WRITE), ["reject 4", "closed"]),
    "a tag in use": (write() + write(sn=3, tag=TAG + 2), ["r2t 0+512", "reject 7"]),
    "the reserved tag": (read(tag=NO_TAG), ["reject 9"]),
    "300 immediate commands that wait": (
        b"".join(write(lba=number, sn=2, tag=0x10000 + number, immediate=True) for number in range(300)),
        ["r2t 0+512"] * 128 + ["reject 6"] * 172,
    ),
}

DATA = {
    "data for nobody": (data_out(data=BLOCK), []),
    "data under an unknown transfer tag": (
        write() + data_out(target_transfer_tag=77, data=BLOCK),
        ["r2t 0+512", "sense B/0C0C"],
    ),
    "a wrong DataSN": (write() + data_out(target_transfer_tag=1, data_sn=1, data=BLOCK), ["r2t 0+512", "sense B/4705"]),
    "a wrong buffer offset": (
        write() + data_out(target_transfer_tag=1, buffer_offset=512, data=BLOCK),
        ["r2t 0+512", "sense B/4705"],
    ),
    "data that overlaps": (
        write(blocks=4)
        + data_out(flags=0, target_transfer_tag=1, data=BLOCK)
        + data_out(target_transfer_tag=1, data_sn=1, buffer_offset=256, data=BLOCK),
        ["r2t 0+2048", "sense B/4705"],
    ),
    "data beyond the burst": (write() + data_out(target_transfer_tag=1, data=BLOCK * 2), ["r2t 0+512", "sense B/0C0D"]),
    "the last of a burst too early": (
        write(blocks=2) + data_out(target_transfer_tag=1, data=BLOCK),
        ["r2t 0+1024", "sense B/0C0D"],
    ),
    "more unsolicited data than FirstBurstLength": (
        write(blocks=1024, flags=WRITE, data=BLOCK * 511) + data_out(data=BLOCK * 2, buffer_offset=511 * 512),
        ["sense B/0C0D"],
    ),
    "more immediate data than is announced": (write(data=BLOCK * 2), ["sense B/0C0D"]),
    "data after its task was aborted": (
        write() + manage(1, of=TAG + 2) + data_out(target_transfer_tag=1, data=BLOCK),
        ["r2t 0+512", "task 0"],
    ),
    "a read that expects less than it reads": (read(blocks=2, expected=512), ["data 512"]),
    "a read that expects more than it reads": (read(expected=4096), ["data 512"]),
    "a write that announces less than it writes": (write(blocks=2, expected=512, data=BLOCK), ["good over 512"]),
    "a write that announces more than it writes": (write(expected=1024, data=BLOCK * 2), ["good under 512"]),
    "a write that ends within a block": (write(expected=100, data=b"x" * 100), ["sense 5/0E03"]),
    "a read that also writes": (read(flags=FINAL | READ | WRITE), ["data 512"]),
    "a write that also reads": (write(flags=FINAL | READ | WRITE, data=BLOCK), ["good"]),
}

MANAGEMENT = {
    "an abort of no task": (manage(1, of=0x123), ["task 1"]),
    "an abort of itself": (manage(1, of=0x900), ["task 1"]),
    "an abort of the reserved tag": (manage(1), ["task 1"]),
    "a reset of a unit that is not there": (manage(5, lun=9 << 48), ["task 2"]),
    "a reset of a LUN of no form": (manage(5, lun=0xC101 << 48), ["task 2"]),
    "a task reassigned": (manage(8, of=0x123), ["task 4"]),
    **{f"function {number}": (manage(number), ["task 5"]) for number in (0, 3, 9, 127)},
    "NOP-Out that answers no ping": (nop(initiator_task_tag=NO_TAG, target_transfer_tag=77), []),
    "NOP-Out with a tag and a transfer tag": (nop(target_transfer_tag=77, data=b"ping"), ["nop ping"]),
    "SNACK": (iscsi.encode(iscsi.Snack(initiator_task_tag=0x800)), ["reject 3"]),
    "text that is to go on without end": (
        text(b"X-a=", flags=CONTINUE)
        + b"".join(text(b"y" * 4096, flags=CONTINUE, sn=3 + number, ttt=1 + number) for number in range(4)),
        ["text"] * 4 + ["reject 4"],
    ),
    "text that begins anew without end": (
        b"".join(text(b"SendTargets=", flags=CONTINUE, sn=2 + number) for number in range(20)),
        ["text"] * 20,
    ),
    "text that asks for the rest of nothing": (text(ttt=5), ["reject 9"]),
    "text without =": (text(b"SendTargets\0"), ["reject 4"]),
    "text that is not UTF-8": (text(b"\xff\xfe=\0"), ["reject 4"]),
    "text of 64 KiB without NUL": (text(b"K=" + b"x" * 65534), ["reject 4"]),
    "commands after a logout": (logout() + read(sn=3) * 3, ["logout 0", "closed"]),
    "a logout of another connection": (logout(1, cid=7), ["logout 1"]),
    "a logout for recovery": (logout(2), ["logout 2"]),
    "a logout for no reason": (logout(9), ["logout 2"]),
}

LUNS = {
    f"a read of LUN field {field:#06x}": (read(lun=field << 48), ["sense 5/2500"])
    for field in (1, 0xFF, 0x40FF, 0x7FFF, 0xC101, 0x8000)
} | {"an INQUIRY of a LUN that is not there": (plain(b"\x12\0\0\0\x24", lun=9 << 48, expected=36), ["data 36"])}

SIXTEEN = {"operation": Operation.READ_16}
SAME = {"operation": Operation.WRITE_SAME_16, "expected": 512, "data": bytes(512)}
FOREIGN_COPY = scsi_copy.encode_list(
    scsi_copy.CopyHeader(1, 0, 32, 28, 0),
    (scsi_copy.Target(scsi_copy.IDENTIFICATION, bytes.fromhex("01030008 3fffffffffffffff"), 512),),
    (scsi_copy.Segment(scsi_copy.BLOCK_TO_BLOCK, 0, 0, 1, 0, 1),),
)
COMMANDS = {
    "LBA 2^64-1": (read(lba=2**64 - 1, **SIXTEEN), ["sense 5/2100"]),
    "an LBA that wraps with its length": (read(lba=2**64 - 1, blocks=2, **SIXTEEN), ["sense 5/2100"]),
    "a range that ends one block late": (read(lba=BLOCKS - 1, blocks=2), ["sense 5/2100"]),
    "no blocks": (read(lba=5, blocks=0), ["good"]),
    "no blocks, at the end": (read(lba=BLOCKS, blocks=0), ["good"]),
    "no blocks, beyond the end": (read(lba=BLOCKS + 1, blocks=0), ["sense 5/2100"]),
    "2^32-1 blocks": (read(blocks=2**32 - 1, expected=0xFFFFFFFF, **SIXTEEN), ["sense 5/2100"]),
    "protection that is not there": (read(bits=0x20), ["sense 5/2400"]),
    "a group number": (plain(b"\x28\0\0\0\0\0\x1f\0\1", expected=512), ["data 512"]),
    "a WRITE SAME of no blocks": (write(blocks=0, **SAME), ["sense 5/2400"]),
    "a WRITE SAME with ANCHOR": (write(bits=0x10, **SAME), ["sense 5/2400"]),
    "a WRITE SAME(10) with NDOB": (write(bits=0x01, **SAME | {"operation": Operation.WRITE_SAME_10}), ["sense 5/2400"]),
    "a WRITE SAME with less than a block": (write(**SAME | {"expected": 8, "data": bytes(8)}), ["sense 5/1A00"]),
    "an UNMAP list that lies of its length": (unmap(struct.pack(">HH4x", 9000, 9000)), ["sense 5/1A00"]),
    "an UNMAP list of 7 octets": (unmap(bytes(7)), ["sense 5/1A00"]),
    "an UNMAP of 4,095 descriptors": (unmap(struct.pack(">HH4x", 65526, 65520) + bytes(65520)), ["sense 5/2600"]),
    "an UNMAP of more blocks than allowed": (unmap(scsi_cdb.encode_unmap_list(((0, 2**32 - 1),))), ["sense 5/2600"]),
    "an UNMAP beyond the end": (unmap(scsi_cdb.encode_unmap_list(((BLOCKS, 1),))), ["sense 5/2100"]),
    "an UNMAP with ANCHOR": (command(scsi_cdb.Unmap(1, 24), flags=FINAL | WRITE, expected=24), ["sense 5/2400"]),
    "an EXTENDED COPY to a foreign unit": (
        plain(b"\x83".ljust(13, b"\0") + b"\x4c", flags=FINAL | WRITE, expected=76, data=FOREIGN_COPY),
        ["sense A/0804"],
    ),
    **{
        f"a PERSISTENT RESERVE OUT of {octets} octets": (
            plain(
                b"\x5f\0\0\0\0\0\0\0" + bytes((octets,)), flags=FINAL | WRITE, expected=octets, data=b"\xff" * octets
            ),
            [answer],
        )
        for octets, answer in ((0, "sense 5/1A00"), (23, "sense 5/1A00"), (24, "sense 5/1A00"), (25, "sense 5/2600"))
    },
    "a PERSISTENT RESERVE OUT with SPEC_I_PT": (
        plain(b"\x5f\0\0\0\0\0\0\0\x1c", flags=FINAL | WRITE, expected=28, data=b"\0" * 20 + b"\x08" + b"\xff" * 7),
        ["sense 5/2600"],
    ),
    "a MODE SELECT(6) that lies": (plain(b"\x15\x10\0\0\xff", flags=FINAL | WRITE, expected=4), ["sense 5/1A00"]),
    "a MODE SELECT(10) that lies": (plain(b"\x55\x10\0\0\0\0\0\xff\xff", flags=FINAL | WRITE), ["sense 5/1A00"]),
    "a MODE SENSE of a page that is not there": (plain(b"\x1a\0\x2a\0\xff", expected=255), ["sense 5/2400"]),
    "a vital page that is not there": (plain(b"\x12\1\xc9\0\xff", expected=255), ["sense 5/2400"]),
    "an operation code that nobody has": (plain(b"\xff"), ["sense 5/2000"]),
    "a command of 32 octets": (plain(b"\x7f\0\0\0\0\0\0\x18", ahs=b"\0\x13\1\0" + bytes(16)), ["sense 5/2400"]),
}


@pytest.mark.parametrize(
    ("octets", "answers"),
    [
        pytest.param(*row, id=f"{family}: {name}")
        for family, rows in (
            *(("headers", HEADERS), ("numbers", NUMBERS), ("data", DATA)),
            *(("management", MANAGEMENT), ("luns", LUNS), ("commands", COMMANDS)),
        )
        for name, row in rows.items()
    ],
)
def test_bad_input(process, good, octets, answers):
    with initiator_of(process, "bad") as bad:
        assert say(bad, octets)[: len(answers) + 1] == answers
    good.goes_on()


LISTED = {
    "a header that ends early": "test_a_header_that_ends_half_way_is_a_close",
    "DataSegmentLength that lies": ["a data segment of 16 MiB", "a data segment beyond what we declared"],
    "TotalAHSLength and AHS that lie": [f"an additional header of {words} words" for words in (1, 2, 64, 254, 255)],
    "opcodes that nobody has": [f"opcode {opcode:#04x}, unknown" for opcode in UNKNOWN],
    "one ISID that logs in without end": "test_one_isid_that_logs_in_again_and_again_has_one_session",
    "CmdSN low, high, with a gap": ["CmdSN behind the window", "CmdSN beyond the window", "CmdSN with a gap"],
    "CmdSN that wraps": "test_cmd_sn_wraps",
    "initiator task tags": ["a tag in use", "the reserved tag"],
    "an unknown target transfer tag": ["data under an unknown transfer tag"],
    "DataSN and offset": ["a wrong DataSN", "a wrong buffer offset", "data that overlaps"],
    "too much and too little data": ["data beyond the burst", "the last of a burst too early"],
    "unsolicited data": ["more unsolicited data than FirstBurstLength", "more immediate data than is announced"],
    "data after an abort": ["data after its task was aborted"],
    "lengths that differ": ["a read that expects less than it reads", "a write that announces less than it writes"],
    "both directions at once": ["a read that also writes", "a write that also reads"],
    "a flood of immediate commands": ["300 immediate commands that wait"],
    "NOP-Out with a transfer tag": ["NOP-Out that answers no ping", "NOP-Out with a tag and a transfer tag"],
    "aborts of nothing": ["an abort of no task", "an abort of itself", "a reset of a unit that is not there"],
    "SNACK": ["SNACK"],
    "text without end": ["text that is to go on without end", "text that begins anew without end"],
    "logouts": ["commands after a logout", "a logout of another connection"],
    "LUNs of every form": [f"a read of LUN field {field:#06x}" for field in (0xFF, 0x7FFF, 0xC101)],
}


def test_every_kind_of_bad_input_has_its_rows():
    rows = HEADERS.keys() | NUMBERS.keys() | DATA.keys() | MANAGEMENT.keys() | LUNS.keys()
    for kind, tests in LISTED.items():
        known = callable(globals().get(tests)) if isinstance(tests, str) else rows >= set(tests)
        assert known, kind


def test_a_header_that_ends_half_way_is_a_close(process, good):
    with initiator_of(process, "bad") as bad:
        bad.sock.sendall(read()[:47])
        bad.sock.shutdown(1)
        assert bad.receive() is None
    good.goes_on()


def test_cmd_sn_wraps(process, good):
    with initiator_of(process, "bad", cmd_sn=0xFFFFFFFE) as bad:
        early = read(sn=0, blocks=2) + read(sn=1, blocks=3)
        assert say(bad, early + read(sn=0xFFFFFFFF, tag=1)) == ["data 512", "data 1024", "data 1536"]
    good.goes_on()


def test_one_isid_that_logs_in_again_and_again_has_one_session(process, good):
    with ExitStack() as stack:
        initiators = [stack.enter_context(initiator_of(process, "bad")) for _ in range(50)]
        assert say(initiators[-1], read()) == ["data 512"]
        assert [hear(initiator) for initiator in initiators[:-1]] == [["closed"]] * 49
        sessions = process.run(lambda client: client.status()).sessions
        assert len([session for session in sessions if session.target.endswith("bad")]) == 1
    good.goes_on()


def test_nothing_grew(process, good):
    """All of the above again, and neither descriptors nor threads of the process are left over."""

    def threads():
        return len(list(Path(f"/proc/{process.process.pid}/task").iterdir()))

    def files():
        return len(list(Path(f"/proc/{process.process.pid}/fd").iterdir()))

    before = threads(), files()
    for rows in (HEADERS, NUMBERS, DATA, MANAGEMENT, LUNS, COMMANDS):
        for octets, _ in rows.values():
            with initiator_of(process, "bad") as bad:
                say(bad, octets)
    good.goes_on()
    until(lambda: (threads(), files()) <= before, f"threads and files are {before} again")
