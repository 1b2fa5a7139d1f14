"""Full feature phase but for plain READ and WRITE: data that comes in pieces, order, pings, text, aborts, logout."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.protocol.iscsi_keys import SessionParameters
from panloom.wire import iscsi, scsi_cdb, scsi_sense
from panloom.wire.iscsi import (
    NO_TAG,
    DataIn,
    DataOut,
    LogoutRequest,
    LogoutResponse,
    NopIn,
    NopOut,
    ReadyToTransfer,
    Reject,
    ScsiCommand,
    ScsiResponse,
    TaskManagementRequest,
    TaskManagementResponse,
    TextRequest,
    TextResponse,
)
from panloom.wire.scsi_cdb import BlockCommand, Operation
from support.iscsi_peer import FIRMWARE, LINUX, Conversation, MemoryDisk, split, talk

FINAL, READ, WRITE = iscsi.FINAL, iscsi.READ, iscsi.WRITE
TARGETS = (("iqn.2026-11.dev.panloom:a", "192.0.2.1:3260,1"), ("iqn.2026-11.dev.panloom:b", "192.0.2.1:3260,1"))


def command(operation, lba, blocks, *, flags, data=b"", expected=None, tag=1, cmd_sn=1, bits=0, **fields):
    return ScsiCommand(
        flags=flags,
        initiator_task_tag=tag,
        expected_data_transfer_length=blocks * 512 if expected is None else expected,
        cmd_sn=cmd_sn,
        cdb=scsi_cdb.encode(BlockCommand(operation, bits, lba, blocks)),
        data=data,
        **fields,
    )


def write(blocks, data=b"", *, lba=0, final=FINAL, **fields):
    return command(Operation.WRITE_10, lba, blocks, flags=final | WRITE, data=data, **fields)


def read(blocks, **fields):
    return command(Operation.READ_10, 0, blocks, flags=FINAL | READ, **fields)


def data_out(data, offset=0, *, tag=1, ttt=NO_TAG, data_sn=0, final=True):
    return DataOut(
        flags=FINAL if final else 0,
        initiator_task_tag=tag,
        target_transfer_tag=ttt,
        data_sn=data_sn,
        buffer_offset=offset,
        data=data,
    )


def sense_of(answer):
    assert isinstance(answer, ScsiResponse)
    assert answer.status == 2
    assert int.from_bytes(answer.data[:2], "big") == len(answer.data) - 2
    return scsi_sense.decode(answer.data[2:])


def kinds(talked):
    return [type(answer) for answer in talked.answers]


# -- data in pieces ------------------------------------------------------------------------------------------------


def test_firmware_is_asked_for_every_octet():
    talked = talk(write(2), data_out(b"a" * 512, ttt=1, final=False), data_out(b"b" * 512, 512, ttt=1, data_sn=1),
                  parameters=FIRMWARE)  # fmt: skip
    assert kinds(talked) == [ReadyToTransfer, ScsiResponse]
    r2t, answer = talked.answers
    assert (r2t.buffer_offset, r2t.desired_data_transfer_length, r2t.r2t_sn, r2t.target_transfer_tag) == (0, 1024, 0, 1)
    assert (r2t.stat_sn, answer.stat_sn, answer.status, answer.exp_data_sn) == (1, 1, 0, 1)
    assert talked.disks[0].octets[:1024] == b"a" * 512 + b"b" * 512


def test_one_burst_at_a_time():
    parameters = SessionParameters(True, True, 8192, 1024, 512)
    talked = talk(
        write(4, b"a" * 512),
        data_out(b"b" * 1024, 512, ttt=1),
        data_out(b"c" * 512, 1536, ttt=2),
        parameters=parameters,
    )
    bursts = [(each.buffer_offset, each.desired_data_transfer_length, each.r2t_sn) for each in talked.answers[:2]]
    assert bursts == [(512, 1024, 0), (1536, 512, 1)]
    assert talked.answers[2].status == 0
    assert talked.disks[0].octets[:2048] == b"a" * 512 + b"b" * 1024 + b"c" * 512


def test_unsolicited_data_needs_no_question():
    talked = talk(
        write(3, b"a" * 512, final=0), data_out(b"b" * 512, 512, final=False), data_out(b"c" * 512, 1024, data_sn=1)
    )
    assert kinds(talked) == [ScsiResponse]
    assert talked.disks[0].octets[:1536] == b"a" * 512 + b"b" * 512 + b"c" * 512


@given(st.lists(st.integers(1, 700), min_size=1, max_size=8))
def test_segments_need_not_be_blocks(lengths):
    """However a burst is cut into segments, whole blocks arrive (the disk refuses others), and all of them."""
    total = sum(lengths)
    blocks = -(-total // 512)
    content = bytes(index % 253 for index in range(blocks * 512))
    edges = [sum(lengths[:n]) for n in range(len(lengths) + 1)] + [blocks * 512]
    pieces = [(a, content[a:b]) for a, b in itertools.pairwise(edges) if a < b]
    said = [
        data_out(piece, at, ttt=1, data_sn=number, final=number == len(pieces) - 1)
        for number, (at, piece) in enumerate(pieces)
    ]
    talked = talk(write(blocks), *said, parameters=FIRMWARE)
    assert talked.answers[-1].status == 0
    assert talked.disks[0].octets[: blocks * 512] == content


@pytest.mark.parametrize(
    ("said", "parameters", "sense"),
    [
        ([write(1, b"x" * 512)], FIRMWARE, scsi_sense.UNEXPECTED_UNSOLICITED_DATA),
        ([write(1, final=0)], FIRMWARE, scsi_sense.UNEXPECTED_UNSOLICITED_DATA),
        ([write(1, b"x" * 1024)], LINUX, scsi_sense.INCORRECT_AMOUNT_OF_DATA),
        ([write(2, b"x" * 1024)], SessionParameters(False, True, 8192, 8192, 512), scsi_sense.INCORRECT_AMOUNT_OF_DATA),
        ([write(2), data_out(b"x" * 1024, ttt=77)], FIRMWARE, scsi_sense.UNEXPECTED_UNSOLICITED_DATA),
        ([write(2), data_out(b"x" * 1024, ttt=1, data_sn=27)], FIRMWARE, scsi_sense.DATA_OUT_OF_ORDER),
        ([write(2), data_out(b"x" * 512, 512, ttt=1)], FIRMWARE, scsi_sense.DATA_OUT_OF_ORDER),
        ([write(2), data_out(b"x" * 512, ttt=1)], FIRMWARE, scsi_sense.INCORRECT_AMOUNT_OF_DATA),
        ([write(2), data_out(b"x" * 2048, ttt=1)], FIRMWARE, scsi_sense.INCORRECT_AMOUNT_OF_DATA),
        (
            [write(4, b"x" * 512, final=0), data_out(b"x" * 1024, 512)],
            SessionParameters(False, True, 8192, 8192, 1024),
            scsi_sense.INCORRECT_AMOUNT_OF_DATA,
        ),
    ],
)
def test_wrong_data_ends_the_task_and_nothing_else(said, parameters, sense):
    talked = talk(*said, read(1, tag=2, cmd_sn=2), parameters=parameters)
    assert [sense_of(each) for each in talked.answers if isinstance(each, ScsiResponse)] == [sense]
    assert isinstance(talked.answers[-1], DataIn)


def test_data_of_no_task_is_ignored():
    assert talk(data_out(b"x" * 512), data_out(b"", tag=NO_TAG)).answers == []


def test_a_full_window_narrows_and_opens_again():
    said = [write(1, tag=tag, cmd_sn=tag, lba=tag) for tag in range(1, 129)]
    data = [data_out(b"x" * 512, tag=tag, ttt=tag) for tag in range(1, 129)]
    talked = talk(*said, *data, parameters=FIRMWARE, disks={0: MemoryDisk(129)})
    assert [each.max_cmd_sn for each in talked.answers[:128]] == [128] * 128
    assert [each.max_cmd_sn for each in talked.answers[128:]] == list(range(129, 257))


def test_nothing_is_taken_or_held_while_the_window_is_full():
    said = [write(1, tag=tag, cmd_sn=tag, lba=tag) for tag in range(1, 129)]
    said += [read(1, tag=999, cmd_sn=cmd_sn) for cmd_sn in (129, 131, 257, 1 << 31, 0xFFFFFFFF, 128)]
    said += [manage(1, referenced=9999, ref_cmd_sn=ref_cmd_sn, cmd_sn=130) for ref_cmd_sn in (0, 128, 129, 131)]
    conversation = talk(*said, parameters=FIRMWARE, disks={0: MemoryDisk(129)})
    assert kinds(conversation) == [ReadyToTransfer] * 128 + [TaskManagementResponse] * 4
    assert {answer.response for answer in conversation.answers[128:]} == {1}  # no such task
    assert conversation.session._order.held == {}


def test_commands_of_the_window_are_taken_beside_as_many_immediate_ones():
    said = [write(1, tag=1000 + number, immediate=True, lba=number) for number in range(128)]
    said += [write(1, tag=tag, cmd_sn=tag, lba=127 + tag) for tag in range(1, 129)]
    talked = talk(*said, parameters=FIRMWARE, disks={0: MemoryDisk(256)})
    assert kinds(talked) == [ReadyToTransfer] * 256
    assert {each.max_cmd_sn for each in talked.answers} == {128}


# -- residuals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "flags", "residual", "octets"),
    [
        (read(1, expected=200), 0x85, 312, 200),
        (read(2, expected=512), 0x85, 512, 512),
        (read(1, expected=10000), 0x83, 9488, 512),
        (command(Operation.READ_10, 0, 1, flags=FINAL), 0x84, 512, None),
        (read(0, expected=512), 0x82, 512, None),
    ],
)
def test_residuals_of_reads(said, flags, residual, octets):
    talked = talk(said)
    (answer,) = talked.answers
    assert (answer.flags, answer.residual_count) == (flags, residual)
    if octets is not None:
        assert answer.data == talked.disks[0].octets[:octets]


@pytest.mark.parametrize(
    ("said", "flags", "residual", "written"),
    [
        (write(2, b"x" * 512, expected=512), 0x84, 512, 512),
        (write(1, expected=0), 0x84, 512, 0),
        (write(1, b"x" * 1024, expected=1024), 0x82, 512, 512),
        (command(Operation.WRITE_10, 0, 1, flags=FINAL), 0x84, 512, 0),
        (command(Operation.VERIFY_10, 0, 1, flags=FINAL | READ), 0x82, 512, 0),
        (
            command(Operation.SYNCHRONIZE_CACHE_10, 0, 1, flags=FINAL | READ | WRITE, expected=(1 << 32) - 1),
            0x82,
            (1 << 32) - 1,
            0,
        ),
    ],
)
def test_residuals_of_writes(said, flags, residual, written):
    talked = talk(said)
    (answer,) = talked.answers
    assert (answer.status, answer.flags, answer.residual_count) == (0, flags, residual)
    assert talked.disks[0].octets[:written] == b"x" * written
    assert talked.disks[0].octets[written:] == MemoryDisk().octets[written:]


@pytest.mark.parametrize(
    ("blocks", "expected", "residual"),
    [(1, 200, 312), (2, 512 + 188, 324), (2, 1023, 1)],
)
@pytest.mark.parametrize("operation", [Operation.WRITE_10, Operation.WRITE_12, Operation.WRITE_16])
@pytest.mark.parametrize("session", [LINUX, FIRMWARE], ids=["immediate", "R2T"])
def test_a_write_that_ends_inside_a_block_is_refused_and_writes_nothing(operation, blocks, expected, residual, session):
    data = b"x" * expected if session.immediate_data else b""
    talked = talk(command(operation, 0, blocks, flags=FINAL | WRITE, data=data, expected=expected), parameters=session)
    (answer,) = talked.answers
    assert sense_of(answer) == scsi_sense.INVALID_FIELD_IN_COMMAND_IU
    assert (answer.flags, answer.residual_count) == (0x84, residual)
    assert talked.disks[0].octets == MemoryDisk().octets


def test_data_that_comes_after_such_a_refusal_is_passed_over():
    talked = talk(write(1, final=0, expected=200), data_out(b"x" * 200), read(1, tag=2, cmd_sn=2))
    refused, answer = talked.answers
    assert sense_of(refused) == scsi_sense.INVALID_FIELD_IN_COMMAND_IU
    assert answer.data == MemoryDisk().octets[:512]


# -- order ---------------------------------------------------------------------------------------------------------


def test_commands_before_their_turn_wait_for_it():
    talked = talk(read(1, tag=3, cmd_sn=3), write(1, b"x" * 512, tag=2, cmd_sn=2), read(1, tag=1, cmd_sn=1))
    assert [answer.initiator_task_tag for answer in talked.answers] == [1, 2, 3]
    assert talked.answers[0].data != talked.answers[2].data == b"x" * 512


@pytest.mark.parametrize("cmd_sn", [0, 129, 200, 0x80000001, 0xFFFFFFFF])
def test_commands_outside_the_window_are_ignored(cmd_sn):
    talked = talk(read(1, cmd_sn=cmd_sn, tag=9), read(1))
    assert [answer.initiator_task_tag for answer in talked.answers] == [1]


def test_a_command_that_comes_twice_is_carried_out_once():
    assert len(talk(read(1), read(1)).answers) == 1
    assert len(talk(read(1, cmd_sn=2, tag=2), read(1, cmd_sn=2, tag=2), read(1)).answers) == 2


@pytest.mark.parametrize(
    ("said", "quiet"),
    [
        ([read(1)], True),
        ([write(1), data_out(b"x" * 512, ttt=1)], True),
        ([read(1, cmd_sn=2)], False),
        ([read(1, tag=2, cmd_sn=2), read(1)], True),
    ],
)
def test_plain_commands_are_asked_about_only_while_one_waits_for_its_turn(said, quiet):
    assert talk(*said).session.quiet is quiet


def test_numbers_wrap():
    conversation = Conversation([b"".join(
        iscsi.encode(read(1, tag=tag, cmd_sn=(0xFFFFFFFE + tag) & 0xFFFFFFFF)) for tag in range(4)
    )])  # fmt: skip
    numbers = conversation.session.numbers
    numbers.exp_cmd_sn = numbers.stat_sn = 0xFFFFFFFE
    answers = conversation.run().answers
    assert [answer.stat_sn for answer in answers] == [0xFFFFFFFE, 0xFFFFFFFF, 0, 1]
    assert [answer.exp_cmd_sn for answer in answers] == [0xFFFFFFFF, 0, 1, 2]
    assert answers[0].max_cmd_sn == 126


def test_immediate_commands_are_outside_the_order():
    talked = talk(read(1, immediate=True, cmd_sn=1, tag=5), read(1))
    assert [answer.initiator_task_tag for answer in talked.answers] == [5, 1]
    assert [answer.exp_cmd_sn for answer in talked.answers] == [1, 2]


def test_a_flood_of_immediate_commands_is_rejected():
    said = [write(1, tag=tag, immediate=True, lba=tag) for tag in range(300)]
    talked = talk(*said, parameters=FIRMWARE, disks={0: MemoryDisk(300)})
    assert kinds(talked) == [ReadyToTransfer] * 128 + [Reject] * 172
    assert {each.max_cmd_sn for each in talked.answers} == {128}  # it never goes back


def test_holding_has_an_end():
    said = [write(512, b"x" * 262144, tag=number, cmd_sn=number) for number in range(2, 10)]
    talked = talk(*said, disks={0: MemoryDisk(1024)})
    assert kinds(talked) == [Reject]
    assert "before its turn" in talked.why


def test_a_tag_in_use_is_rejected():
    talked = talk(write(1), read(1, cmd_sn=2), data_out(b"x" * 512, ttt=1), parameters=FIRMWARE)
    assert kinds(talked) == [ReadyToTransfer, Reject, ScsiResponse]
    assert talked.answers[1].reason == 7
    assert talk(read(1, tag=NO_TAG)).answers[0].reason == 0x09


# -- additional headers --------------------------------------------------------------------------------------------


def test_a_longer_command_is_refused():
    ahs = bytes([0, 5, 1, 0, 1, 2, 3, 4])
    assert sense_of(talk(read(1, ahs=ahs)).answers[0]) == scsi_sense.INVALID_FIELD_IN_CDB


def test_an_additional_header_where_none_belongs_ends_the_connection():
    header = bytearray(iscsi.encode(NopOut(initiator_task_tag=1, cmd_sn=1)))
    header[4] = 255
    talked = Conversation([bytes(header) + bytes(255 * 4)]).run()
    assert kinds(talked) == [Reject]
    assert "additional header" in talked.why


# -- NOP, text, logout ---------------------------------------------------------------------------------------------


def test_nop_out_comes_back():
    talked = talk(NopOut(initiator_task_tag=7, cmd_sn=1, data=b"ping"), NopOut(initiator_task_tag=8, cmd_sn=2))
    assert [(each.initiator_task_tag, each.target_transfer_tag, each.data) for each in talked.answers] == [
        (7, NO_TAG, b"ping"),
        (8, NO_TAG, b""),
    ]
    assert talked.answers[-1].exp_cmd_sn == 3


def test_nop_out_is_cut_to_what_the_initiator_takes():
    parameters = SessionParameters(True, True, 512, 262144, 512)
    assert (
        len(talk(NopOut(initiator_task_tag=7, cmd_sn=1, data=b"x" * 4096), parameters=parameters).answers[0].data)
        == 512
    )


def test_an_answer_to_no_ping_of_ours_is_ignored():
    talked = talk(
        NopOut(initiator_task_tag=NO_TAG, cmd_sn=1, immediate=True),
        NopOut(initiator_task_tag=NO_TAG, target_transfer_tag=99, cmd_sn=1, immediate=True),
    )
    assert talked.answers == []
    assert not talked.facts.answers_nop


def text(keys, *, cmd_sn=1, **fields):
    return TextRequest(initiator_task_tag=1, cmd_sn=cmd_sn, data=keys, **fields)


def test_discovery_lists_the_targets():
    talked = talk(text(b"SendTargets=All\0"), discovery=TARGETS)
    assert talked.answers[0].data == (
        b"TargetName=iqn.2026-11.dev.panloom:a\0TargetAddress=192.0.2.1:3260,1\0"
        b"TargetName=iqn.2026-11.dev.panloom:b\0TargetAddress=192.0.2.1:3260,1\0"
    )
    named = talk(text(b"SendTargets=iqn.2026-11.dev.panloom:b\0"), discovery=TARGETS)
    assert named.answers[0].data == b"TargetName=iqn.2026-11.dev.panloom:b\0TargetAddress=192.0.2.1:3260,1\0"
    assert talk(text(b"SendTargets=\0"), discovery=TARGETS).answers[0].data == b"SendTargets=Reject\0"


def test_a_normal_session_sees_its_own_target():
    own = b"TargetName=iqn.2026-11.dev.panloom:shop.web1\0TargetAddress=127.0.0.1:3260,1\0"
    assert talk(text(b"SendTargets=\0")).answers[0].data == own
    assert talk(text(b"SendTargets=All\0")).answers[0].data == b"SendTargets=Reject\0"
    assert talk(text(b"SendTargets=iqn.2026-11.dev.panloom:other\0")).answers[0].data == b""


def test_a_long_list_goes_on():
    targets = tuple((f"iqn.2026-11.dev.panloom:server{number}", "192.0.2.1:3260,1") for number in range(20))
    parameters = SessionParameters(max_recv_data_segment_length=512)
    said = [text(b"SendTargets=All\0")]
    said += [text(b"", cmd_sn=number + 2, target_transfer_tag=number + 1) for number in range(2)]
    talked = talk(*said, discovery=targets, parameters=parameters)
    assert [each.flags for each in talked.answers] == [iscsi.CONTINUE, iscsi.CONTINUE, FINAL]
    whole = b"".join(each.data for each in talked.answers)
    assert whole.count(b"TargetName=") == 20


@pytest.mark.parametrize(
    "request_",
    [
        text(b"\xff"),
        text(b"no equals"),
        text(b"", target_transfer_tag=5),
        text(b"MaxRecvDataSegmentLength=511\0"),
        text(b"X" * 16385),
    ],
)
def test_bad_text_is_rejected(request_):
    talked = talk(request_, text(b"X-a=1\0", cmd_sn=2))
    assert kinds(talked) == [Reject, TextResponse]
    assert talked.answers[1].data == b"X-a=NotUnderstood\0"


def test_the_initiator_is_asked_to_log_out_and_told_of_the_end():
    conversation = Conversation([None])
    session = conversation.session
    session.announce(iscsi.AsyncEvent.LOGOUT_REQUEST, 3)
    assert session.closing is None
    session.announce(iscsi.AsyncEvent.SESSION_DROPPED)
    asked, told = split(b"".join(session.output))
    assert (asked.async_event, asked.parameter3, asked.initiator_task_tag) == (1, 3, NO_TAG)
    assert (told.async_event, told.stat_sn - asked.stat_sn) == (3, 1)
    assert session.closing == "dropped"


def test_text_may_come_in_pieces():
    said = (text(b"Send", flags=iscsi.CONTINUE),
            text(b"Targets=", flags=iscsi.CONTINUE, cmd_sn=2, target_transfer_tag=1),
            text(b"\0", cmd_sn=3, target_transfer_tag=2))  # fmt: skip
    first, second, last = talk(*said).answers
    assert (first.flags, first.data, first.target_transfer_tag) == (0, b"", 1)
    assert (second.flags, second.data, second.target_transfer_tag) == (0, b"", 2)
    assert (last.flags, last.target_transfer_tag) == (FINAL, NO_TAG)
    assert last.data.startswith(b"TargetName=iqn.2026-11.dev.panloom:shop.web1\0")


def test_text_in_pieces_has_an_end():
    said = [text(b"X-a=" + b"y" * 8000, flags=iscsi.CONTINUE, cmd_sn=n + 1, target_transfer_tag=n or NO_TAG)
            for n in range(3)]  # fmt: skip
    assert kinds(talk(*said)) == [TextResponse, TextResponse, Reject]


def test_text_without_the_end_of_a_negotiation_keeps_it_open():
    said = text(b"X-a=1\0", flags=0), text(b"X-b=2\0", cmd_sn=2, target_transfer_tag=1)
    first, last = talk(*said).answers
    assert (first.flags, first.target_transfer_tag, first.data) == (0, 1, b"X-a=NotUnderstood\0")
    assert (last.flags, last.target_transfer_tag, last.data) == (FINAL, NO_TAG, b"X-b=NotUnderstood\0")


def test_a_new_exchange_ends_the_open_one():
    said = (text(b"SendTa", flags=iscsi.CONTINUE), text(b"X-a=1\0", cmd_sn=2),
            text(b"rgets=\0", cmd_sn=3, target_transfer_tag=1))  # fmt: skip
    assert kinds(talk(*said)) == [TextResponse, TextResponse, Reject]


def test_another_tag_cannot_go_on_with_an_exchange():
    other = TextRequest(initiator_task_tag=2, cmd_sn=2, target_transfer_tag=1, data=b"rgets=\0")
    assert kinds(talk(text(b"SendTa", flags=iscsi.CONTINUE), other)) == [TextResponse, Reject]


def test_the_initiator_may_take_shorter_segments_from_now_on():
    said = read(4), text(b"MaxRecvDataSegmentLength=512\0", cmd_sn=2), read(4, tag=3, cmd_sn=3)
    answers = talk(*said).answers
    assert [len(each.data) for each in answers] == [2048, 0, 512, 512, 512, 512]


@pytest.mark.parametrize("key", ["MaxBurstLength=512", "HeaderDigest=CRC32C", "InitiatorName=iqn.2026-11.x:y"])
def test_what_was_agreed_at_login_does_not_change(key):
    (answer,) = talk(text(key.encode() + b"\0")).answers
    assert answer.data == key.partition("=")[0].encode() + b"=Reject\0"


def test_logout_ends_it():
    talked = talk(LogoutRequest(initiator_task_tag=1, cmd_sn=1), read(1, cmd_sn=2))
    assert kinds(talked) == [LogoutResponse]
    assert talked.why == "logout"
    assert talked.units.nexuses[0].left  # before the answer, so that nobody who has it meets what the session held


def test_logout_of_something_else_does_not():
    talked = talk(
        LogoutRequest(flags=FINAL | 1, cid=99, initiator_task_tag=1, cmd_sn=1),
        LogoutRequest(flags=FINAL | 2, cid=1, initiator_task_tag=2, cmd_sn=2),
        LogoutRequest(flags=FINAL | 1, cid=1, initiator_task_tag=3, cmd_sn=3),
    )
    assert [each.response for each in talked.answers] == [1, 2, 0]
    assert talked.why == "logout"


def test_commands_do_not_belong_into_discovery():
    talked = talk(read(1), discovery=TARGETS)
    assert kinds(talked) == [Reject]
    assert talked.why == "a SCSI command in a discovery session"


@pytest.mark.parametrize(
    "pdu",
    [
        iscsi.LoginRequest(flags=0x87, isid=bytes(6), initiator_task_tag=1, cmd_sn=1),
        NopIn(stat_sn=1, exp_cmd_sn=1, max_cmd_sn=1),
    ],
)
def test_what_an_initiator_never_sends_now_ends_the_connection(pdu):
    talked = talk(pdu, read(1))
    assert kinds(talked) == [Reject]
    assert "full feature phase" in talked.why


def test_snack_is_rejected():
    talked = talk(iscsi.Snack(initiator_task_tag=1), read(1))
    assert kinds(talked) == [Reject, DataIn]
    assert talked.answers[0].reason == 3


# -- task management -----------------------------------------------------------------------------------------------


def manage(function, *, lun=0, referenced=NO_TAG, ref_cmd_sn=0, cmd_sn=2):
    return TaskManagementRequest(
        flags=FINAL | function,
        lun=iscsi.lun_field(lun),
        initiator_task_tag=50,
        referenced_task_tag=referenced,
        ref_cmd_sn=ref_cmd_sn,
        cmd_sn=cmd_sn,
    )


@pytest.mark.parametrize("function", [1, 2, 4, 5, 6])
def test_nothing_of_an_aborted_write_lands(function):
    talked = talk(write(2), manage(function, referenced=1), data_out(b"x" * 1024, ttt=1), parameters=FIRMWARE)
    assert kinds(talked) == [ReadyToTransfer, TaskManagementResponse]
    assert talked.answers[1].response == 0
    assert talked.disks[0].octets == MemoryDisk().octets
    assert talked.answers[1].max_cmd_sn == 129


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (manage(1, referenced=99), 1),
        (manage(1, referenced=50), 1),
        (manage(2, lun=9), 2),
        (manage(5, lun=9), 2),
        (manage(8, referenced=1), 4),
        (manage(3), 5),
        (manage(0), 5),
        (manage(0x7F), 5),
    ],
)
def test_what_cannot_be_managed(request_, response):
    assert talk(request_).answers[0].response == response


def test_a_reset_is_told_once():
    talked = talk(manage(5), read(1), read(1, tag=2, cmd_sn=2))
    assert sense_of(talked.answers[1]) == scsi_sense.UNIT_RESET
    assert isinstance(talked.answers[2], DataIn)


def test_a_command_that_has_not_come_yet_is_aborted():
    """RFC 7143 section 11.6.1, b: it counts as received, so those behind it go on, and it is never carried out."""
    said = (read(1, tag=2, cmd_sn=2), manage(1, referenced=1, ref_cmd_sn=1), read(1, tag=1, cmd_sn=1),
            read(1, tag=3, cmd_sn=3))  # fmt: skip
    talked = talk(*said)
    assert [each.initiator_task_tag for each in talked.answers] == [50, 2, 3]
    assert talked.answers[0].response == 0


@pytest.mark.parametrize("ref_cmd_sn", [0, 2, 3, 129, 1 << 31])
def test_a_command_that_cannot_come_any_more_is_no_task(ref_cmd_sn):
    assert talk(manage(1, referenced=9, ref_cmd_sn=ref_cmd_sn)).answers[0].response == 1


def test_a_cold_reset_ends_the_connection():
    talked = talk(write(1), manage(7), read(1, tag=2, cmd_sn=2), parameters=FIRMWARE)
    assert kinds(talked) == [ReadyToTransfer, TaskManagementResponse]
    assert (talked.answers[1].response, talked.why) == (0, "cold reset")
