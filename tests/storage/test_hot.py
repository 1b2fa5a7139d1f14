"""The hot path answers as the careful session does, octet for octet, however the stream is cut."""

import errno
import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panloom.protocol.iscsi_keys import SessionParameters
from panloom.storage.descriptor import StaleEpochError
from panloom.storage.frame import answer
from panloom.storage.hot import FLUSH_OCTETS, INPUT_OCTETS
from panloom.wire import iscsi, scsi_cdb, scsi_sense
from panloom.wire.iscsi import DataIn, DataOut, NopOut, ScsiCommand, ScsiResponse
from panloom.wire.scsi_cdb import BlockCommand, Operation
from support import iscsi_peer
from support.builds import BUILDS, hot_module
from support.iscsi_peer import BLOCKS, FIRMWARE, LINUX, CarefulSession, Conversation, MemoryDisk, split, talk
from support.iscsi_strategies import any_command, any_pdu


@pytest.fixture(autouse=True, scope="module", params=BUILDS)
def loop(request):
    """Have every conversation here served by each build."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iscsi_peer, "HotLoop", hot_module(request.param).HotLoop)
        yield


READ, WRITE = iscsi.FINAL | iscsi.READ, iscsi.FINAL | iscsi.WRITE


def read(lba, blocks, *, tag=1, cmd_sn=1, operation=Operation.READ_10, bits=0, **fields):
    cdb = scsi_cdb.encode(BlockCommand(operation, bits, lba, blocks))
    return ScsiCommand(**{
        "flags": READ, "initiator_task_tag": tag, "expected_data_transfer_length": blocks * 512,
        "cmd_sn": cmd_sn, "cdb": cdb, **fields,
    })  # fmt: skip


def write(lba, data, *, tag=1, cmd_sn=1, operation=Operation.WRITE_10, bits=0, blocks=None, **fields):
    blocks = len(data) // 512 if blocks is None else blocks
    cdb = scsi_cdb.encode(BlockCommand(operation, bits, lba, blocks))
    return ScsiCommand(**{
        "flags": WRITE, "initiator_task_tag": tag, "expected_data_transfer_length": blocks * 512,
        "cmd_sn": cmd_sn, "cdb": cdb, "data": data, **fields,
    })  # fmt: skip


def test_a_read_is_one_data_in_with_status():
    talked = talk(read(3, 2))
    (answer,) = talked.answers
    assert answer == DataIn(
        flags=0x81, initiator_task_tag=1, stat_sn=1, exp_cmd_sn=2, max_cmd_sn=129, data=b"\3" * 512 + b"\4" * 512
    )
    assert (talked.facts.reads, talked.facts.read_octets, talked.first_reads) == (1, 1024, 1)
    assert talked.why == "closed"


@pytest.mark.parametrize(("expected", "flags", "residual"), [(512, 0x85, 1536), (2048, 0x81, 0), (4096, 0x83, 2048)])
def test_a_block_has_the_octets_that_its_unit_says(expected, flags, residual):
    """Also where the initiator expects as much as if it had 512, as for a disk."""
    disk = MemoryDisk(8, block_octets=2048)
    (answer,) = talk(read(3, 1, expected_data_transfer_length=expected), disks={0: disk}).answers
    assert (answer.flags, answer.residual_count) == (flags, residual)
    assert answer.data == b"\3" * min(expected, 2048)


def test_a_read_honours_the_initiators_limits():
    parameters = SessionParameters(True, True, 1000, 1100, 512)
    answers = talk(read(0, 5), parameters=parameters).answers
    assert [len(answer.data) for answer in answers] == [512] * 5
    assert [answer.flags for answer in answers] == [0, 0x80, 0, 0x80, 0x81]
    assert [answer.data_sn for answer in answers] == [0, 1, 2, 3, 4]
    assert [answer.buffer_offset for answer in answers] == [0, 512, 1024, 1536, 2048]


def test_a_long_read_goes_out_in_pieces():
    blocks = 37632  # what EFI asks for at once
    disk = MemoryDisk(blocks)
    talked = talk(read(0, blocks), disks={0: disk}, parameters=FIRMWARE)
    assert b"".join(answer.data for answer in talked.answers) == disk.octets
    assert sum(bool(answer.flags & 1) for answer in talked.answers) == 1
    assert sum(bool(answer.flags & 0x80) for answer in talked.answers) == -(-blocks * 512 // FIRMWARE.max_burst_length)
    assert talked.wire.sends >= blocks * 512 // (FLUSH_OCTETS + 8192 + 48)


def test_many_commands_share_a_receive_and_a_send():
    talked = talk(*(read(number, 1, tag=number, cmd_sn=number + 1) for number in range(32)))
    assert [answer.initiator_task_tag for answer in talked.answers] == list(range(32))
    assert talked.wire.sends == 1


def test_a_write_is_written_before_it_is_answered():
    talked = talk(write(4, b"x" * 1024))
    assert talked.answers == [ScsiResponse(initiator_task_tag=1, stat_sn=1, exp_cmd_sn=2, max_cmd_sn=129)]
    assert talked.disks[0].octets[2048:3072] == b"x" * 1024
    assert talked.disks[0].calls == [("write", 2048, 1024)]
    assert (talked.facts.writes, talked.facts.written_octets) == (1, 1024)


@pytest.mark.parametrize("operation", [Operation.WRITE_10, Operation.WRITE_16])
def test_fua_is_durable_before_it_is_answered(operation):
    talked = talk(write(4, b"x" * 512, operation=operation, bits=scsi_cdb.FUA))
    assert talked.disks[0].calls == [("write", 2048, 512), ("flush", 0, 0)]
    assert talked.answers[0].status == 0


@pytest.mark.parametrize(
    ("call", "error", "sense"),
    [
        ("write", errno.ENOSPC, scsi_sense.NO_SPACE),
        ("write", errno.EDQUOT, scsi_sense.NO_SPACE),
        ("write", errno.EIO, scsi_sense.WRITE_FAILED),
        ("write", errno.EROFS, scsi_sense.WRITE_PROTECTED),
        ("flush", errno.EIO, scsi_sense.WRITE_FAILED),
    ],
)
@pytest.mark.parametrize("parameters", [LINUX, FIRMWARE])
def test_what_could_not_be_written_is_not_good(call, error, sense, parameters):
    disk = MemoryDisk()
    disk.errors[call] = error
    if parameters is LINUX:
        said = [write(0, b"x" * 512, bits=scsi_cdb.FUA)]
    else:
        said = [
            write(0, b"", blocks=1, bits=scsi_cdb.FUA),
            DataOut(initiator_task_tag=1, target_transfer_tag=1, data=b"x" * 512),
        ]
    talked = talk(*said, disks={0: disk}, parameters=parameters)
    answer = talked.answers[-1]
    assert answer.status == 2
    assert scsi_sense.decode(answer.data[2:]) == sense
    assert talked.facts.writes == (1 if call == "flush" else 0)


def test_a_read_that_fails_half_way():
    disk = MemoryDisk()
    parameters = SessionParameters(True, True, 512, 262144, 512)
    reads = []

    def fail_third(context, frame):
        reads.append(frame.offset)
        if len(reads) == 3:
            frame.error = OSError(errno.EIO, "injected")
        answer(frame)

    object.__setattr__(disk.descriptor, "send_handler", fail_third)
    answers = talk(read(0, 4), read(0, 1, tag=2, cmd_sn=2), disks={0: disk}, parameters=parameters).answers
    assert [type(answer) for answer in answers] == [DataIn, DataIn, ScsiResponse, DataIn]
    assert scsi_sense.decode(answers[2].data[2:]) == scsi_sense.UNRECOVERED_READ
    assert (answers[2].stat_sn, answers[2].exp_data_sn, answers[3].stat_sn) == (1, 2, 2)


@pytest.mark.parametrize("parameters", [LINUX, FIRMWARE])
def test_a_fenced_write_is_never_answered(parameters):
    disk = MemoryDisk()
    disk.fenced = True
    said = write(0, b"x" * 512) if parameters is LINUX else write(0, b"", blocks=1)
    data = DataOut(initiator_task_tag=1, target_transfer_tag=1, data=b"x" * 512)
    conversation = Conversation([iscsi.encode(said), iscsi.encode(data)], {0: disk}, parameters=parameters)
    with pytest.raises(StaleEpochError):
        conversation.run()
    assert not any(isinstance(answer, ScsiResponse) for answer in split(conversation.wire.sent))


def test_silence_is_a_ping_and_nothing_worse():
    asked = Conversation([None, None, None], pings=True).run()
    assert [type(answer) for answer in asked.answers] == [iscsi.NopIn]  # one question is enough
    assert not asked.facts.answers_nop
    tag = asked.answers[0].target_transfer_tag
    pong = iscsi.encode(NopOut(initiator_task_tag=iscsi.NO_TAG, target_transfer_tag=tag, cmd_sn=1, immediate=True))
    answered = Conversation([None, pong, None], pings=True).run()
    assert len(answered.answers) == 2
    assert answered.facts.answers_nop
    assert answered.answers[0].stat_sn == answered.answers[1].stat_sn == 1
    assert Conversation([None, None], pings=False).run().answers == []


def test_a_unit_that_was_left_out_may_grow():
    conversation = Conversation([iscsi.encode(read(3, 1))])
    conversation.loop.resize(7, 2 * BLOCKS)
    assert [type(answer) for answer in conversation.run().answers] == [DataIn]


def test_the_input_is_used_again_and_again():
    data = bytes(range(256)) * 2
    said = b"".join(iscsi.encode(write(n % BLOCKS, data, tag=n, cmd_sn=n + 1)) for n in range(4 * INPUT_OCTETS // 560))
    talked = Conversation([said]).run()
    assert talked.facts.writes == 4 * INPUT_OCTETS // 560
    assert talked.disks[0].octets == data * BLOCKS


@pytest.mark.parametrize("header", [
    bytes([0x01, 0x80, 0, 0, 0, 0xFF, 0xFF, 0xFF]).ljust(48, b"\0"),
    bytes([0x05, 0x80, 0, 0, 0, 0x04, 0x00, 0x01]).ljust(48, b"\0"),
])  # fmt: skip
def test_a_data_segment_beyond_what_we_take_ends_the_connection(header):
    talked = Conversation([header + b"x" * 100]).run()
    assert isinstance(talked.answers[0], iscsi.Reject)
    assert talked.answers[0].data == header
    assert talked.why.startswith("a data segment")


def test_unknown_opcodes_are_rejected_one_by_one():
    said = [bytes([opcode]).ljust(48, b"\0") for opcode in (0x07, 0x1C, 0x2F, 0x3E)]
    talked = Conversation([b"".join(said) + iscsi.encode(read(0, 1))]).run()
    assert [type(answer) for answer in talked.answers] == [iscsi.Reject] * 4 + [DataIn]
    assert {answer.reason for answer in talked.answers[:4]} == {5}
    assert [answer.data for answer in talked.answers[:4]] == said
    assert [answer.stat_sn for answer in talked.answers] == list(range(1, 6))


# -- the slow twin -------------------------------------------------------------------------------------------------

OPERATIONS = (
    *(Operation.READ_6, Operation.READ_10, Operation.READ_12, Operation.READ_16),
    *(Operation.WRITE_6, Operation.WRITE_10, Operation.WRITE_12, Operation.WRITE_16),
)


@st.composite
def commands(draw):
    operation = draw(st.sampled_from(OPERATIONS[1:4:2] * 4 + OPERATIONS[5::2] * 4 + OPERATIONS))
    lba = draw(st.integers(0, BLOCKS) | st.sampled_from([BLOCKS - 1, BLOCKS + 1, 2**20]))
    blocks = draw(st.integers(0, 12))
    writes = operation in OPERATIONS[4:]
    flags = draw(st.sampled_from([WRITE if writes else READ] * 6 + [READ, WRITE, 0x80, 0x60, 0xA1, 0xC1]))
    expected = draw(st.sampled_from([blocks * 512] * 6 + [0, 200, 512, 4096, 10000]))
    bits = draw(st.sampled_from([0] * 6 + [0x08, 0x10, 0x18, 0x20]))
    immediate = draw(st.sampled_from([expected] * 4 + [0, 100, 512])) if flags & iscsi.WRITE else 0
    return operation, lba, blocks, flags, expected, bits, immediate, draw(st.sampled_from([0] * 8 + [1, 2]))


def encoded(drawn):
    octets = []
    for number, (operation, lba, blocks, flags, expected, bits, immediate, lun) in enumerate(drawn):
        data = bytes([number % 250 + 1]) * min(immediate, expected)
        cdb = scsi_cdb.encode(BlockCommand(operation, bits if operation > 0x0A else 0, lba, blocks))
        octets.append(iscsi.encode(ScsiCommand(
            flags=flags, lun=iscsi.lun_field(lun), initiator_task_tag=number, expected_data_transfer_length=expected,
            cmd_sn=number + 1, cdb=cdb, data=data,
        )))  # fmt: skip
    return b"".join(octets)


def cut(octets, places):
    edges = [0, *sorted(place % (len(octets) + 1) for place in places), len(octets)]
    return [octets[a:b] for a, b in itertools.pairwise(edges) if a < b]


@settings(max_examples=200)
@given(
    st.lists(commands(), min_size=1, max_size=12),
    st.lists(st.integers(0, 10**6), max_size=8),
    st.sampled_from([LINUX, FIRMWARE, SessionParameters(False, True, 700, 1500, 1024)]),
)
def test_the_slow_twin_answers_the_same_however_the_stream_is_cut(drawn, places, parameters):
    octets = encoded(drawn)
    units = [{0: MemoryDisk(), 1: MemoryDisk(read_only=True)} for _ in range(2)]
    fast = Conversation([octets], units[0], parameters=parameters).run()
    slow = Conversation(cut(octets, places), units[1], parameters=parameters, session=CarefulSession).run()

    def but_the_window(conversation):
        return [
            (type(answer), *(value for name, value in zip(answer.__struct_fields__, fields(answer), strict=True)
                             if name != "max_cmd_sn"))
            for answer in conversation.answers
        ]  # fmt: skip

    def fields(answer):
        return [getattr(answer, name) for name in answer.__struct_fields__]

    assert but_the_window(fast) == but_the_window(slow)
    assert fast.why == slow.why
    for lun in (0, 1):
        assert units[0][lun].octets == units[1][lun].octets
    assert (fast.facts.reads, fast.facts.read_octets) == (slow.facts.reads, slow.facts.read_octets)


@settings(max_examples=300)
@given(st.lists(any_pdu, max_size=8), st.binary(max_size=60), st.lists(st.integers(0, 10**6), max_size=4))
def test_any_octets_end_in_answers_or_a_close(pdus, rest, places):
    """Nothing escapes, and the disk (which checks it) is touched nowhere but inside."""
    said = b"".join(map(iscsi.encode, pdus)) + rest
    Conversation(cut(said, places)).run()


@settings(max_examples=300)
@given(st.lists(st.tuples(any_command, st.integers(0, 2)), min_size=1, max_size=10))
def test_any_commands_and_data_end_in_answers_or_a_close(said):
    """As above, but in order, so that the commands are carried out, with Data-Outs that may or may not be theirs."""
    octets = b""
    for number, (command, data_outs) in enumerate(said):
        octets += iscsi.encode(msgspec.structs.replace(command, cmd_sn=number + 1, initiator_task_tag=number))
        for data_sn in range(data_outs):
            octets += iscsi.encode(
                DataOut(initiator_task_tag=number, target_transfer_tag=1, data_sn=data_sn, data=b"d" * 512)
            )
    Conversation([octets]).run()
