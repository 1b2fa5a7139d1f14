"""iSCSI: a login under any requests, a session under any stream, a disk under any command.

A stream is written as PDUs.  Most of them are put right before they are sent (CmdSN in order, lengths true), so that
what is wrong with them is one thing at a time; the others go out as they are.
"""

from contextlib import suppress

import msgspec

from fuzz.tape import Script, Tape
from fuzz.target import target
from panloom.errors import MalformedError
from panloom.protocol.chap import MD5, ChapTarget, Credentials, response
from panloom.protocol.iscsi_command_order import MAX_HELD_OCTETS
from panloom.protocol.iscsi_keys import SessionParameters
from panloom.protocol.iscsi_login import (
    COMMAND_WINDOW,
    MAX_REQUESTS,
    MAX_TEXT_OCTETS,
    Answer,
    AskAdmission,
    AskCredentials,
    IscsiLogin,
    State,
)
from panloom.protocol.iscsi_session import MAX_IMMEDIATE, IscsiSession
from panloom.protocol.scsi_disk import Data, LogicalUnits, Wants
from panloom.protocol.scsi_pages import MAX_UNMAP_BLOCKS, Disk
from panloom.protocol.scsi_verdicts import (
    MAX_WANTED_OCTETS,
    Busy,
    Check,
    CompareAndWrite,
    Conflict,
    Copy,
    Deallocate,
    Erase,
    Fill,
    Flush,
    LookUp,
    Perform,
    Quiesce,
    Read,
    Store,
    Then,
    Use,
    WriteAtomic,
)
from panloom.wire import iscsi, scsi_cdb
from panloom.wire.iscsi import FINAL, READ, WRITE, LoginRequest, ScsiCommand
from panloom.wire.iscsi_text import decode_text, encode_binary, encode_text
from panloom.wire.scsi_cdb import BlockCommand, Operation
from panloom.wire.scsi_sense import Sense
from support.iscsi_peer import BLOCKS, FIRMWARE, LINUX, CarefulSession, Conversation, MemoryDisk
from support.units import tell

# ── login ────────────────────────────────────────────────────────────────────────────────────────────────────────────

USER, SECRET, CHALLENGE, IDENTIFIER = "web1", "secret-of-web1", bytes(range(16)), 7
PROOF = encode_binary(response(IDENTIFIER, SECRET.encode(), CHALLENGE))
NAMES = (("InitiatorName", "iqn.2026-11.dev.panloom:node.n1"), ("TargetName", "iqn.2026-11.dev.panloom:shop.web1"))
PAIRS = (
    *NAMES,
    *(("SessionType", "Normal"), ("SessionType", "Discovery"), ("AuthMethod", "CHAP,None"), ("AuthMethod", "None")),
    *(("CHAP_A", "5"), ("CHAP_A", "7,5"), ("CHAP_N", USER), ("CHAP_R", PROOF), ("CHAP_R", encode_binary(CHALLENGE))),
    *(("CHAP_I", "7"), ("CHAP_C", encode_binary(CHALLENGE)), ("HeaderDigest", "CRC32C,None"), ("X-other", "y")),
    *(("MaxRecvDataSegmentLength", "262144"), ("FirstBurstLength", "512"), ("ImmediateData", "No")),
)
FLAGS = (0x81, 0x87, 0x00, 0x04, 0x83, 0x40, 0x44)
WANTED = (Credentials(USER, SECRET), Credentials(), None)


def _login_script(wanted, *requests):
    script = Script().number(WANTED.index(wanted))
    for flags, *pairs in requests:
        script.number(FLAGS.index(flags)).number(len(pairs))
        for pair in pairs:
            script.number(PAIRS.index(pair))
    return script.octets


def _login_seeds():
    proof = (0x81, ("CHAP_N", USER), ("CHAP_R", PROOF))
    asked = ((0x81, *NAMES, ("AuthMethod", "CHAP,None")), (0x81, ("CHAP_A", "5")))
    keys = (0x87, ("ImmediateData", "No"), ("FirstBurstLength", "512"), ("HeaderDigest", "CRC32C,None"))
    yield _login_script(WANTED[0], *asked, proof, keys)
    yield _login_script(WANTED[0], *asked, (0x81, ("CHAP_N", USER), ("CHAP_R", encode_binary(CHALLENGE))))
    yield _login_script(WANTED[1], (0x87, *NAMES, ("MaxRecvDataSegmentLength", "262144")))
    yield _login_script(WANTED[2], (0x87, NAMES[0], ("SessionType", "Discovery")))
    yield _login_script(WANTED[0], (0x40, NAMES[0]), (0x81, NAMES[1], ("AuthMethod", "None")))


def _login_request(tape, number):
    chosen, count = tape.number(), tape.number()
    if chosen & 0x80:  # header and text as they come
        fields = {"version_min": tape.number(), "tsih": tape.number(2), "initiator_task_tag": tape.number()}
        return LoginRequest(flags=tape.number(), isid=bytes(6), cmd_sn=number, data=tape.piece(), **fields)
    text = encode_text([tape.pick(PAIRS) for _ in range(count % 16)])
    if count & 0x80:
        text += tape.piece()
    return LoginRequest(flags=FLAGS[chosen % len(FLAGS)], isid=bytes(6), initiator_task_tag=0, cmd_sn=1, data=text)


@target(seeds=_login_seeds)
def login(octets):
    """No requests end a login in success without the secret that it asks for, nor do they go on for ever."""
    tape = Tape(octets)
    wanted = tape.pick(WANTED)
    machine, sent = IscsiLogin(identifier=IDENTIFIER, challenge=CHALLENGE), []
    while not tape.is_over and machine.state not in (State.FINISHED, State.REFUSED):
        sent.append(_login_request(tape, len(sent)))
        step = machine.receive(sent[-1])
        while not isinstance(step, Answer):
            match step:
                case AskCredentials():
                    step = machine.may_prove((wanted,) if wanted else () if machine.target else (Credentials(),))
                case AskAdmission():
                    step = machine.admit(1)
        answer = step.response
        decode_text(answer.data)
        iscsi.encode(answer)
        assert (answer.status_class == 0) == (machine.state is not State.REFUSED)
        assert len(machine._text) <= MAX_TEXT_OCTETS
        assert not answer.tsih or machine.state is State.FINISHED
    assert len(sent) <= MAX_REQUESTS + 1
    if machine.state is State.FINISHED and machine.target is not None:
        assert wanted is not None
        assert machine.proved == wanted
        said = b"".join(bytes(request.data) for request in sent).lower()
        assert wanted.secret is None or PROOF[2:].encode() in said or b"chap_r=0b" in said
    if machine.state is State.FINISHED:
        _check_parameters(machine.parameters)


def _check_parameters(parameters):
    assert 512 <= parameters.max_recv_data_segment_length <= 0xFFFFFF
    assert 512 <= parameters.first_burst_length <= parameters.max_burst_length <= 16776192


@target(seeds=lambda: (b"\0" + encode_text([("CHAP_A", "5"), ("CHAP_N", USER), ("CHAP_R", PROOF)]),))
def chap(octets):
    """Whatever is answered, only the secret proves a user, and the challenge goes out whole."""
    with suppress(MalformedError):
        keys = decode_text(octets[1:])
        machine = ChapTarget(
            (Credentials(USER, SECRET, "target", "target-secret"), Credentials("other", "other-secret")),
            identifier=IDENTIFIER,
            challenge=CHALLENGE,
        )
        asked = machine.ask(keys)
        assert asked is None or dict(asked)["CHAP_C"] == encode_binary(CHALLENGE)
        proof = machine.verify(keys)
        if proof is not None:
            proved, algorithm = proof.credentials, dict(asked)["CHAP_A"] if asked else MD5
            assert keys["CHAP_N"] == proved.user
            assert not proof.answers or (proved.target_secret and encode_binary(CHALLENGE) != keys["CHAP_C"])
            expected = response(IDENTIFIER, (proved.secret or "").encode(), CHALLENGE, algorithm)
            assert keys["CHAP_R"][:2].lower() == "0b" or bytes.fromhex(keys["CHAP_R"][2:]) == expected


# ── session ──────────────────────────────────────────────────────────────────────────────────────────────────────────

PARAMETERS = (
    LINUX,
    FIRMWARE,
    SessionParameters(False, True, 512, 1024, 512),
    SessionParameters(True, True, 8192, 512, 512),
)
AS_IT_IS, SILENCE, LENGTH_ONLY = 0x80, 0x40, 0x20
"""How a PDU of a script goes out, instead of with its numbers put right."""


def session_script(*pdus, parameters=LINUX, how=0):
    """Return the input of ``session`` that says these PDUs."""
    script = Script().number(PARAMETERS.index(parameters)).number(0)
    for pdu in pdus:
        octets = iscsi.encode(pdu)
        script.number(how).piece(octets[:48]).piece(octets[48:])
    return script.octets


def block(operation, lba, blocks, data=b"", *, tag=1, bits=0, **fields):
    """Return a command for a range of blocks."""
    way = WRITE if operation.name.startswith(("WRITE", "VERIFY")) else READ
    fields = {"flags": FINAL | way, "expected_data_transfer_length": blocks * 512, **fields}
    cdb = scsi_cdb.encode(BlockCommand(operation, bits, lba, blocks))
    return ScsiCommand(initiator_task_tag=tag, cmd_sn=1, cdb=cdb, data=data, **fields)


def _session_seeds():
    read, write = Operation.READ_10, Operation.WRITE_16
    yield session_script(block(read, 0, 4), block(write, 8, 2, b"x" * 1024, tag=2, bits=8), block(read, 9, 1, tag=3))
    unsolicited = iscsi.DataOut(initiator_task_tag=1, buffer_offset=512, data=b"y" * 512)
    yield session_script(block(write, 4, 2, b"x" * 512, flags=WRITE), unsolicited)
    asked = iscsi.DataOut(initiator_task_tag=1, target_transfer_tag=1, data=b"y" * 512)
    yield session_script(block(write, 0, 1), asked, parameters=FIRMWARE)
    yield session_script(
        block(write, 0, 4),
        iscsi.TaskManagementRequest(flags=0x81, initiator_task_tag=9, cmd_sn=1, referenced_task_tag=1),
    )
    yield session_script(block(Operation.WRITE_SAME_16, 0, 8, b"z" * 512, bits=8, expected_data_transfer_length=512))
    ranges = scsi_cdb.encode_unmap_list(((0, 8), (16, 8)))
    unmap = scsi_cdb.encode(scsi_cdb.Unmap(0, len(ranges)))
    sized = {"flags": FINAL | WRITE, "expected_data_transfer_length": len(ranges), "initiator_task_tag": 1}
    yield session_script(ScsiCommand(cmd_sn=1, cdb=unmap, data=ranges, **sized))
    yield session_script(
        iscsi.NopOut(initiator_task_tag=1, cmd_sn=1, data=b"ping"),
        iscsi.TextRequest(initiator_task_tag=2, cmd_sn=1, data=b"SendTargets=\0"),
        iscsi.Snack(initiator_task_tag=3),
        iscsi.LogoutRequest(initiator_task_tag=4, cmd_sn=1),
    )
    yield session_script(block(read, 0, 1), block(read, 1, 1), how=AS_IT_IS)


def _chunks(tape):
    """Return what the initiator says, None for a silence."""
    chunks, cmd_sn = [], 1
    while not tape.is_over:
        how = tape.number()
        if how & SILENCE:
            chunks.append(None)
            continue
        header, body = bytearray(tape.piece()[:48].ljust(48, b"\0")), tape.piece()
        if not how & AS_IT_IS:
            ahs = min(header[4] * 4, len(body) & ~3)
            header[4:8] = (ahs // 4 << 24 | len(body) - ahs).to_bytes(4, "big")
            body += bytes(-(len(body) - ahs) % 4)
            if header[0] & 0x3F in (0, 1, 2, 4, 6) and not how & LENGTH_ONLY:
                header[24:28] = cmd_sn.to_bytes(4, "big")
                cmd_sn += not header[0] & 0x40
        chunks.append(bytes(header) + body)
    return chunks


def _converse(chunks, parameters, session):
    disks = {0: MemoryDisk(), 1: MemoryDisk(read_only=True)}
    return Conversation(chunks, disks, parameters=parameters, session=session, pings=True).run()


def _but_the_window(conversation):
    """Return the answers; the slow path counts a command that it is carrying out, the fast one does not."""
    return [
        msgspec.structs.replace(answer, max_cmd_sn=0) if hasattr(answer, "max_cmd_sn") else answer
        for answer in conversation.answers
    ]


@target(seeds=_session_seeds)
def session(octets):
    """Any stream ends in answers or a close, the fast path answers like the slow one, and a read-only unit stays so."""
    tape = Tape(octets)
    parameters, cut = tape.pick(PARAMETERS), tape.number()
    chunks = _chunks(tape)
    fast = _converse(chunks, parameters, IscsiSession)
    whole = b"".join(chunk for chunk in chunks if chunk is not None)
    assert fast.disks[1].octets == MemoryDisk().octets
    assert len(fast.session._tasks) <= COMMAND_WINDOW + MAX_IMMEDIATE
    assert len(fast.session._order.held) <= COMMAND_WINDOW
    assert fast.session._order._octets <= MAX_HELD_OCTETS + 0xFFFFFF
    if None not in chunks:
        size = cut + (1 if len(whole) < 400 else 48)  # octet by octet is slow
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        slow = _converse(pieces, parameters, CarefulSession)
        assert _but_the_window(slow) == _but_the_window(fast)
        assert slow.why == fast.why
        assert slow.disks[0].octets == fast.disks[0].octets


# ── disk ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _disk_seeds():
    ranges = scsi_cdb.encode_unmap_list(((0, 8), (BLOCKS - 8, 8)))
    for operation in Operation:
        yield bytes((0, operation)).ljust(17, b"\0") + b"x" * 512
        yield bytes((1, operation)).ljust(17, b"\1")
    yield b"\0" + scsi_cdb.encode(scsi_cdb.Unmap(0, len(ranges))) + ranges
    yield b"\0" + scsi_cdb.encode(BlockCommand(Operation.WRITE_SAME_16, 8, 0, BLOCKS)) + bytes(512)


@target(seeds=_disk_seeds)
def disk(octets):
    """Any command and its parameters are a verdict within the unit, and none of them changes a read-only one."""
    tape = Tape(octets)
    lun = tape.pick((0, 1, 2, None))
    described = {
        number: Disk(blocks=BLOCKS, read_only=number == 1, identity=bytes(8), serial="1", product="x")
        for number in (0, 1)
    }
    units = LogicalUnits(described)
    tell(units)
    verdict = units.interpret(lun, tape.take(16).ljust(16, b"\0"))
    if isinstance(verdict, Wants):
        assert 0 <= verdict.octets <= MAX_WANTED_OCTETS
        verdict = verdict.then(tape.rest()[: verdict.octets].ljust(verdict.octets, b"\0"))
        assert not isinstance(verdict, Wants)
    while isinstance(verdict, Then):
        _check_reach(lun, verdict.deed)
        verdict = verdict.then()
    if not isinstance(verdict, Sense | Data | Conflict | Busy):
        assert lun in (0, 1)
        _check_reach(lun, verdict)


def _check_reach(lun, verdict):
    read, changed = _reach(lun, verdict)
    for number, offset, length in (*read, *changed):
        assert number in (0, 1)
        assert 0 <= offset <= offset + length <= BLOCKS * 512
        assert offset % 512 == length % 512 == 0
    assert all(number == 0 for number, _, _ in changed)


def _reach(lun, verdict):
    """Return what a verdict reads and what it changes: LUN, offset, octets."""
    match verdict:
        case Store(offset, octets, use=Use.COMPARE) | Read(offset, octets) | Check(offset, octets):
            return [(lun, offset, octets)], []
        case LookUp(offset, octets):
            return [(lun, offset, octets)], []
        case Store(offset, octets) | Fill(offset, octets):
            return [], [(lun, offset, octets)]
        case CompareAndWrite(offset, _, data) | WriteAtomic(offset, data):
            return [], [(lun, offset, len(data))]
        case Deallocate(ranges):
            assert sum(length for _, length in ranges) <= MAX_UNMAP_BLOCKS * 512
            return [], [(lun, *each) for each in ranges]
        case Copy(segments):
            return (
                [(each.source_lun, each.source_offset, each.octets) for each in segments],
                [(each.destination_lun, each.destination_offset, each.octets) for each in segments],
            )
        case Erase():
            return [], [(lun, 0, BLOCKS * 512)]
    assert isinstance(verdict, Flush | Perform | Quiesce)
    return [], []
