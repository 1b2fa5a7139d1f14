"""The initiator's session against our own target: whatever the link does, every command is answered once."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import PanloomError, RefusedError, UnavailableError
from panloom.protocol.chap import Credentials, Secrets
from panloom.protocol.iscsi_initiator import State
from panloom.protocol.iscsi_initiator_connection import Timing
from panloom.protocol.iscsi_initiator_events import Connect, Ended
from panloom.protocol.iscsi_initiator_keys import Wishes
from panloom.protocol.iscsi_initiator_login import LoginRefusedError
from panloom.protocol.iscsi_initiator_task import Command, CommandLostError, Outcome
from panloom.wire import iscsi, scsi_cdb
from panloom.wire.iscsi_text import Portal, encode_text
from panloom.wire.scsi_cdb import BlockCommand, Operation
from support.initiator_link import BLOCKS, ISID, PORTAL, TARGET, Link, own_target
from support.iscsi_peer import MemoryDisk
from support.iscsi_strategies import any_pdu

WEB1 = Credentials("web1", "secret-of-web1")
AREA = 64  # blocks that each command has to itself
NO_PING = Timing(ping_seconds=1e6, command_seconds=1e9)

cuts = st.lists(st.integers(1, 600), max_size=60)
wishes = st.builds(
    Wishes,
    initial_r2t=st.booleans(),
    immediate_data=st.booleans(),
    first_burst_length=st.sampled_from([512, 1024, 5000, 8192]),
    max_burst_length=st.sampled_from([8192, 10000, 16384]),
)


def read(lba, blocks):
    cdb = scsi_cdb.encode(BlockCommand(Operation.READ_10, 0, lba, blocks))
    return Command(0, cdb, data_in_octets=blocks * 512)


def write(lba, data):
    return Command(0, scsi_cdb.encode(BlockCommand(Operation.WRITE_10, 0, lba, len(data) // 512)), data_out=data)


READY = Command(0, scsi_cdb.encode(scsi_cdb.Plain(Operation.TEST_UNIT_READY)))


@st.composite
def commands(draw):
    """Commands, each in an area of its own, and what they must give back or leave behind."""
    made = []
    for number in range(draw(st.integers(1, 12))):
        lba, blocks = number * AREA, draw(st.integers(1, AREA))
        if draw(st.booleans()):
            made.append((write(lba, bytes([number + 1]) * (blocks * 512)), lba))
        else:
            made.append((read(lba, blocks), lba))
    return made


def check(link, disk, numbered, before):
    """Every command was answered, as if each had been carried out once."""
    for number, (command, lba) in numbered.items():
        outcome = link.answers[number]
        assert isinstance(outcome, Outcome), outcome
        assert (outcome.status, outcome.residual) == (0, 0)
        start = lba * 512
        if command.data_out:
            assert disk.octets[start : start + len(command.data_out)] == command.data_out
        else:
            assert outcome.data == before[start : start + command.data_in_octets]


@given(commands(), wishes, cuts, st.sampled_from([1, 0, 0xFFFFFFFE, 0x7FFFFFFF]), st.booleans())
def test_cut_anywhere_the_same_answers(made, wishes, cuts, cmd_sn, early):
    """``early``: the commands are there before the login is over."""
    disk = MemoryDisk(BLOCKS)
    before = bytes(disk.octets)
    link = Link(own_target(disk), wishes=wishes, cuts=cuts, cmd_sn=cmd_sn, timing=NO_PING)
    if not early:
        link.settle()
    numbered = {link.execute(command): (command, lba) for command, lba in made}
    link.settle()
    check(link, disk, numbered, before)
    link.core.close(link.now)
    assert link.settle().ended == (None,)
    assert link.logins == 1


@given(commands(), wishes, cuts, st.lists(st.integers(600, 60000), max_size=6))
def test_broken_anywhere_the_same_answers(made, wishes, cuts, breaks):
    disk = MemoryDisk(BLOCKS)
    before = bytes(disk.octets)
    serve = own_target(disk)
    link = Link(serve, wishes=wishes, cuts=cuts, breaks=[1e9, *breaks], timing=NO_PING)
    link.settle()
    numbered = {link.execute(command): (command, lba) for command, lba in made}
    link.core.lost("the first break", link.now)
    link.pass_time()
    check(link, disk, numbered, before)
    assert link.logins >= 2
    assert link.ended == ()


@given(commands(), st.data())
def test_a_cancelled_command_upsets_no_other(made, data):
    disk = MemoryDisk(BLOCKS)
    before = bytes(disk.octets)
    link = Link(own_target(disk), breaks=data.draw(st.just(()) | st.just((1e9, 5000, 40000))), timing=NO_PING)
    link.settle()
    numbered = {link.execute(command): (command, lba) for command, lba in made}
    cancelled = data.draw(st.sets(st.sampled_from(sorted(numbered)), max_size=len(numbered) - 1))
    if data.draw(st.booleans()):
        link.core.lost("the first break", link.now)
    for number in cancelled:
        link.core.cancel(number, link.now)
    link.pass_time()
    assert not cancelled & set(link.answers)
    check(link, disk, {number: each for number, each in numbered.items() if number not in cancelled}, before)
    assert link.core.idle


@given(st.lists(any_pdu.map(iscsi.encode) | st.binary(max_size=100), max_size=8), st.booleans(), cuts)
def test_any_octets_are_refused_with_one_clear_error_and_nobody_waits_for_ever(octets, logged_in, cuts):
    link = Link(own_target(), cuts=cuts)
    link.settle() if logged_in else link.core.events()
    if not logged_in:
        link.core.connected(identifier=1, challenge=bytes(16))
        link.target = object()
    numbers = [link.execute(command) for command in (read(0, 8), write(0, bytes(4096)), READY)]
    link.core.octets_to_send()  # which the target never takes
    link.receive(b"".join(octets))
    link._serve = lambda: None
    link.target = None
    link.pass_time()
    for number in numbers:
        outcome = link.answers[number]
        assert isinstance(outcome, (Outcome, PanloomError))
        assert isinstance(outcome, Outcome) or str(outcome)
    assert link.core.state is State.ENDED or logged_in


@given(commands(), st.integers(0), st.integers(1, 255), st.integers(0, 3))
def test_answers_with_a_flipped_octet_end_too(made, at, flip, times):
    """A target that lies once in a while: each command ends, in an outcome or in one clear error."""
    serve = own_target()
    lies = iter([True] * times)

    def lying():
        target = serve()
        take = target.take

        def flipped(octets):
            answers = bytearray(take(octets))
            if answers and target.login.state.name == "FINISHED" and next(lies, False):
                answers[at % len(answers)] ^= flip
            return bytes(answers)

        target.take = flipped
        return target

    link = Link(lying)
    link.settle()
    numbers = [link.execute(command) for command, _ in made]
    link.pass_time(300)
    for number in numbers:
        assert isinstance(link.answers[number], (Outcome, PanloomError))


# -- logins ------------------------------------------------------------------------------------------------------


def test_a_wrong_secret_ends_it_at_once_and_tells_all_who_wait():
    link = Link(own_target(credentials=WEB1), secrets=Secrets("web1", "guessed"))
    numbers = [link.execute(READY), link.execute(read(0, 1))]
    link.settle()
    (why,) = link.ended
    assert isinstance(why, LoginRefusedError)
    assert [link.answers[number] for number in numbers] == [why, why]
    assert link.answers.get(link.execute(READY)) is None
    link.settle()
    assert link.answers[3] is why


def test_a_refusal_after_an_outage_ends_it_at_once():
    credentials = [WEB1, Credentials("web1", "changed")]
    disk = MemoryDisk(BLOCKS)
    link = Link(
        lambda: own_target(disk, credentials=credentials.pop(0))(), secrets=Secrets("web1", "secret-of-web1")
    ).settle()
    link.core.lost("the link is broken", link.now)
    number = link.execute(READY)
    link.pass_time(1)
    assert isinstance(link.answers[number], LoginRefusedError)
    assert len(link.ended) == 1


def test_a_target_that_comes_up_late_is_tried_again():
    serve = own_target()
    away = [serve, None, None, None, serve]
    link = Link(lambda: make() if (make := away.pop(0)) else None).settle()
    link.core.lost("the link is broken", link.now)
    number = link.execute(READY)
    link.pass_time()
    assert link.answers[number].status == 0
    connects = [event for event in link.events if isinstance(event, Connect)]
    assert len(connects) == 5


@pytest.mark.parametrize("seconds", [0.0, 0.5, 30.0])
def test_reconnect_seconds_bound_the_wait(seconds):
    serve = [own_target()]
    link = Link(lambda: serve.pop()() if serve else None, timing=Timing(reconnect_seconds=seconds)).settle()
    begun = link.now
    number = link.execute(READY)
    link.core.lost("the link is broken", link.now)
    link.pass_time()
    assert isinstance(link.answers[number], UnavailableError)
    assert "no way back" in str(link.answers[number])
    assert link.now - begun == seconds


def test_the_first_attempt_is_the_only_one():
    link = Link(lambda: None).settle()
    (why,) = link.ended
    assert str(why) == f"{PORTAL}: nobody is there"


def test_a_target_that_lets_us_in_and_answers_nothing_is_given_up():
    serve = own_target()

    def silent():
        target = serve()
        take = target.take
        target.take = lambda octets: b"" if target.login.state.name == "FINISHED" else take(octets)
        return target

    link = Link(silent, timing=Timing(ping_seconds=1, answer_seconds=1, reconnect_seconds=20)).settle()
    begun = link.now
    number = link.execute(READY)
    link.pass_time()
    assert isinstance(link.answers[number], UnavailableError)
    assert "no answer to a ping" in str(link.answers[number])
    assert 20 <= link.now - begun <= 30


def test_a_login_that_takes_too_long():
    link = Link(own_target())
    link.core.events()
    link.core.connected(identifier=1, challenge=bytes(16))
    link.core.octets_to_send()
    link.pass_time()
    assert [str(why) for why in link.ended] == [f"{PORTAL}: no login in 15 s"]


class Redirecting:
    """A portal that sends everybody elsewhere."""

    def __init__(self, detail):
        self.detail = detail

    def take(self, octets):
        return iscsi.encode(
            iscsi.LoginResponse(
                flags=0, isid=ISID, initiator_task_tag=0, stat_sn=0, exp_cmd_sn=1, max_cmd_sn=1,
                status_class=1, status_detail=self.detail, data=encode_text([("TargetAddress", "198.51.100.7:3261,1")]),
            )
        )  # fmt: skip


@pytest.mark.parametrize(("detail", "later"), [(1, PORTAL), (2, Portal("198.51.100.7", 3261, 1))])
def test_a_redirection_is_followed_once_or_for_good(detail, later):
    """Section 11.13.5: 0101 sends us elsewhere this time, 0102 from now on."""
    serve = own_target()
    redirecting = [True, False, False]
    link = Link(lambda: Redirecting(detail) if redirecting.pop(0) else serve()).settle()
    link.core.lost("the link is broken", link.now)
    link.pass_time(1)
    connects = [event.portal for event in link.events if isinstance(event, Connect)]
    assert connects == [PORTAL, Portal("198.51.100.7", 3261, 1), later]
    assert link.logins == 2


def test_redirections_without_end():
    (why,) = Link(lambda: Redirecting(1)).settle().ended
    assert isinstance(why, RefusedError)
    assert "elsewhere more than 4 times" in str(why)


# -- commands ----------------------------------------------------------------------------------------------------


def test_what_may_not_be_sent_twice_is_not():
    link = Link(own_target()).settle()
    number = link.execute(Command(0, b"\x53" + bytes(9)))  # an operation code that nobody knows
    link.core.octets_to_send()  # it has gone
    waiting = link.execute(read(0, 1))
    link.core.lost("the link is broken", link.now)
    link.pass_time()
    assert isinstance(link.answers[number], CommandLostError)
    assert link.answers[waiting].status == 0


def test_attention_is_seen_by_who_does_not_insist():
    link = Link(own_target()).settle()
    number = link.execute(msgspec.structs.replace(READY, insistent=False))
    link.settle()
    assert str(link.answers[number].sense) == "06/2900"


@pytest.mark.parametrize(("busy", "attempts", "status"), [(3, 4, 0), (100, 13, 8)])
def test_a_busy_unit_is_asked_again_in_a_while_and_not_for_ever(busy, attempts, status):
    target = own_target()()
    take, asked = target.take, []

    def occupied(octets):
        if target.login.state.name != "FINISHED":
            return take(octets)
        asked.append(octets)
        answers = take(octets)
        return answers if len(asked) > busy else answers[:1] + b"\x80\x00\x08" + bytes(4) + answers[8:48]

    target.take = occupied
    link = Link(lambda: target, timing=NO_PING).settle()
    number = link.execute(READY)
    link.pass_time()
    assert len(asked) == attempts
    assert link.answers[number].status == status


def test_close_ends_what_is_under_way_and_logs_out():
    link = Link(own_target())
    number = link.execute(READY)
    link.core.close(link.now)
    link.settle()
    assert str(link.answers[number]) == "the session is closed"
    assert link.ended == (None,)

    link = Link(own_target()).settle()
    number = link.execute(READY)
    target = link.target
    link.core.close(link.now)
    link.settle()
    assert str(link.answers[number]) == "the session is closed"
    assert target._conversation.session.closing == "logout"
    assert isinstance(link.events[-1], Ended)


def test_discovery():
    link = Link(own_target(), target=None).settle()
    number = link.core.send_targets(link.now)
    assert link.settle().answers[number] == encode_text(
        [("TargetName", str(TARGET)), ("TargetAddress", "192.0.2.1:3260,1"), ("TargetAddress", "192.0.2.2:3260,1")]
    )
    link.core.close(link.now)
    assert link.settle().ended == (None,)


def test_requests_of_a_connection_end_with_it():
    link = Link(own_target()).settle()
    number = link.core.reset_unit(0, link.now)
    link.core.lost("the link is broken", link.now)
    assert str(link.settle().answers[number]) == f"{PORTAL}: the link is broken"
    number = link.core.reset_unit(0, link.now)
    assert str(link.settle().answers[number]) == "the session has no connection now"


def test_a_reset_ends_what_is_under_way_at_the_unit():
    link = Link(own_target()).settle()
    number = link.execute(READY)
    link.core.octets_to_send()  # lost on its way
    reset = link.core.reset_unit(0, link.now)
    link.settle()
    assert isinstance(link.answers[number], CommandLostError)
    assert link.answers[reset] is None
