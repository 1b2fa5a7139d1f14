"""A whole chassis, 24 servers of three PANs and two spares, all writing marks on their disks from boot to end.

The machines are emulated; firmware's requests, sessions, ports and disks are real.  A machine dies in one of two ways:

    break          it loses power, and runs nothing when it has power again: spares of this kind are found wanting
    refuse, stop   it hangs, and its power switch does not answer: shut out, and no spare until it is seen off.  When
                   its server runs elsewhere it goes on, and would write
"""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from panloom.decide.records import initiator_of, personality_target_of, target_of
from panloom.initiator import LoginRefusedError, Session, discover
from panloom.lab.board import Board
from panloom.lab.chassis import Chassis
from panloom.lab.disk_marks import RING_MARKS, Mark
from panloom.lab.firmware import connect
from panloom.storage.exports import Access
from panloom.values import Iqn, MacAddress
from support.evidence import acknowledged_writes, lost_writes, second_writers
from support.lab import LabInTest, pan, running_lab
from support.waiting import until

pytestmark = [pytest.mark.machine, pytest.mark.timeout(300)]
PANS = {"shop": "10.1.0", "mail": "10.2.0", "data": "10.3.0"}  # the first octets of their LAN
SERVERS = [f"{name}/web{number}" for name in PANS for number in range(1, 9)]
PORTAL = ("10.77.0.1", 3260)
STANDSTILL_SECONDS = 2.0  # the time-out for silence is 1 s in a chassis of emulated machines
LOAD_SECONDS = 0.1


def chassis() -> Chassis:
    """26 machines that write ten marks a second; the first is a process of its own, so that a test can step into it."""
    made = Chassis.of(nodes=26, qemu=0, load_seconds=LOAD_SECONDS)
    first, *others = made.machines
    return msgspec.structs.replace(made, machines=(msgspec.structs.replace(first, kind="lone"), *others))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with running_lab(tmp_path_factory.mktemp("chassis"), chassis=chassis()) as running:
        running.apply(
            "---".join(
                pan(name=name, subnet=f"{octets}.0/24", servers="web[1-8]", address=f"{octets}.1[1-8]")
                for name, octets in PANS.items()
            )
        )
        for octets in ("10.2.0", "10.3.0"):  # a visitor of the other LANs
            running.inside.ip(f"address add {octets}.254/24 dev lab0")
        for server in SERVERS:
            running.until_answers(server)
            running.until_up(server)
        yield running


def nodes(lab: LabInTest) -> list[Mapping[str, object]]:
    return lab.call(lab.lab.get("resources", "node"))["rows"]


def servers(lab: LabInTest) -> Mapping[str, Mapping[str, object]]:
    return {row["name"]: row for row in lab.call(lab.lab.get("resources", "server"))["rows"]}


def status_of(lab: LabInTest, part: str) -> str:
    return next(each["why"] for each in lab.call(lab.lab.get("status"))["parts"] if each["part"] == part)


def acknowledged(lab: LabInTest) -> Mapping[str, set[tuple[int, int]]]:
    return acknowledged_writes(lab.console(machine.name) for machine in lab.lab.chassis.machines)


# ── up ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_cap_079_24_servers_boot_together_on_machines_without_a_disk(lab):
    """The inventory says so, and each machine's only disk is the one that the control node serves it."""
    shown = nodes(lab)
    assert len(shown) == len({row["mac"] for row in shown}) == 26
    carries = {row["server"]: row["name"] for row in shown if row["state"] == "in use"}
    assert sorted(carries) == sorted(SERVERS)
    assert [row["power"] for row in shown if row["state"] == "spare"] == ["off", "off"]
    assert status_of(lab, "nodes") == "2 spare"
    assert status_of(lab, "control nodes") == "there is one"
    known = servers(lab)
    assert len({row["mac"][0] for row in known.values()}) == 24
    for server, node in carries.items():
        assert (known[server]["node"], known[server]["epoch"]) == (node, 1)
        page = lab.page(known[server]["address"][0])
        assert (page["server"], page["node"], page["boots"]) == (server, node, "1")
        targets = {str(target_of(server)), str(personality_target_of(server))}
        assert set(lab.call(lab.lab.sessions_of(node))) == targets
    before = {server: len(writes) for server, writes in acknowledged(lab).items()}
    assert sorted(before) == sorted(SERVERS)

    def all_write():
        return all(len(writes) > before[server] + 5 for server, writes in acknowledged(lab).items())

    until(all_write, "every server writes on its disk", seconds=30)


def test_cap_081_pans_with_the_same_names_and_unit_numbers_keep_their_disks_apart(lab):
    """Each has a server web1 in a LAN front with its disk at unit 0; no machine reaches another's disk."""
    same = {tuple((nic["lan"], server.partition("/")[2]) for nic in lab.server(server)["nics"]) for server in SERVERS}
    assert same == {(("front", f"web{number}"),) for number in range(1, 9)}
    (own,) = [row["server"] for row in nodes(lab) if row["name"] == "n1"]
    grants = access_of_all(lab)
    board = hardware_of(lab, "n1")

    async def work():
        mine = grants[str(target_of(own))]
        found = await discover(PORTAL, **proof(mine, initiator_of("n1")), connect=connection)
        assert {str(each.name) for each in found} == {str(target_of(own)), str(personality_target_of(own))}
        for server in set(SERVERS) - {own}:
            theirs = grants[str(target_of(server))]  # as if their secrets were known
            names = ((mine, initiator_of("n1")), (theirs, initiator_of("n1")), (theirs, Iqn.parse(theirs.initiator)))
            for facts in (proof(access, name) for access, name in names):
                with pytest.raises(LoginRefusedError):
                    await Session.open(PORTAL, target=target_of(server), **facts, connect=connection)

    async def connection(address, port):
        return await connect(board, address, port)

    refused = lab.last_event()
    try:
        lab.call(work())
    finally:
        board.close()
    assert lab.events("login refused", after=refused)
    for server, writes in acknowledged(lab).items():
        assert writes, server
    assert servers(lab)[own]["epoch"] == 1


def proof(access: Access, initiator: Iqn) -> dict[str, object]:
    return {"initiator": initiator, "user": access.user, "secret": access.secret}


def access_of_all(lab: LabInTest) -> dict[str, Access]:
    """Return target → who may log in and what proves it, from the storage process's own file."""
    exports = msgspec.json.decode((lab.lab.directory / "volumes" / "exports.json").read_bytes())["exports"]
    return {export["target"]: msgspec.convert(export["access"], Access) for export in exports}


def hardware_of(lab: LabInTest, node: str) -> Board:
    """Return the hardware of a machine that is a process of its own and runs."""
    log = (lab.lab.directory / "supervisor.log").read_text().splitlines()
    pid = next(line for line in reversed(log) if f"node={node} power=on" in line).rpartition("pid=")[2]
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    inside = words[words.index("--namespaces") + 1].split(",")
    first, second = (os.open(f"/proc/{pid}/fd/{number}", os.O_RDONLY | os.O_CLOEXEC) for number in inside)
    return Board(MacAddress.parse(lab.node(node)["mac"]), (first, second))


# ── safeguards ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("process", "why"),
    [("control", "late ourselves"), ("storage", None), ("supervisor", "servers fell silent at once")],
)
def test_no_process_that_stands_still_costs_anybody_a_node(lab, process, why):
    """The control process; the disks of all servers; nearly all machines, which are the supervisor's own."""
    since = lab.last_event()
    lab.lab.signal(process, signal.SIGSTOP)
    stopped = time.monotonic()
    until(lambda: time.monotonic() - stopped > STANDSTILL_SECONDS, "it has stood still")
    lab.lab.signal(process, signal.SIGCONT)
    if why:
        assert why in lab.until_event("held", after=since)["text"]
    before = {server: len(writes) for server, writes in acknowledged(lab).items()}
    resumed = time.monotonic()
    until(lambda: time.monotonic() - resumed > STANDSTILL_SECONDS, "silence would have been judged")
    assert not lab.events("fence", after=since)
    now = acknowledged(lab)
    assert all(len(now[server]) > before[server] for server in SERVERS)


# ── deaths ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def breaks(lab: LabInTest, node: str) -> None:
    lab.power(node, "break")


def hangs(lab: LabInTest, node: str) -> None:
    lab.power(node, "refuse")
    lab.power(node, "stop")


def repair(lab: LabInTest, node: str) -> None:
    """Mend whatever it has; it is switched off then."""
    lab.power(node, "mend")
    lab.power(node, "obey")
    lab.power(node, "kill")
    if lab.node(node)["state"] == "quarantined":
        lab.call(lab.lab.post("nodes", node, "release"))


def test_cap_191_196_five_machines_of_three_pans_die_and_two_spares_and_three_repaired_ones_take_their_servers(lab):
    lab.declare(
        boot_timeout="5s", max_boot_attempts=2
    )  # of those with power that run nothing; others have to boot in it
    since = lab.last_event()
    before = servers(lab)
    deaths = [("shop/web1", breaks), ("mail/web2", hangs), ("data/web3", breaks), ("shop/web4", hangs)]
    deaths.append(("mail/web5", breaks))
    dead: list[str] = []
    spares = [row["name"] for row in nodes(lab) if row["state"] == "spare"]
    for number, (server, dies) in enumerate(deaths):
        victim, epoch, last = before[server]["node"], before[server]["epoch"], lab.last_event()
        dies(lab, victim)
        dead.append(victim)
        if number < 2:
            row = lab.until_up(server, not_on={victim})
            assert row["node"] in spares
        else:
            assert_waits_for_a_spare(lab, server, last, others=24 - 1)
            mended = dead[number - 2]
            repair(lab, mended)
            row = lab.until_up(server)
            assert row["node"] == mended
            until(lambda server=server: lab.server(server)["why"] is None, "nothing holds it up any more")
            assert status_of(lab, "servers") == ""
        page = lab.until_answers(server, epoch=epoch + 1)
        if dies is hangs:
            assert_goes_on_and_is_refused(lab, victim)
        assert (page["boots"], page["mac"]) == (str(int(epoch) + 1), before[server]["mac"][0])
    lab.declare()
    moved = {server for server, _ in deaths}
    assert {event["server"] for event in lab.events("fence", after=since)} == moved
    after = servers(lab)
    for server in set(SERVERS) - moved:
        assert (after[server]["node"], after[server]["epoch"]) == (before[server]["node"], before[server]["epoch"])
        assert lab.page(after[server]["address"][0])["boots"] == str(before[server]["epoch"])
    assert status_of(lab, "nodes").startswith("0 spare")


def assert_goes_on_and_is_refused(lab: LabInTest, victim: str) -> None:
    """Its system is as it was, with a session that it has not closed and a mark that it was about to write.

    It may still hear that one write was done which was done before the fence.
    """
    woken = lab.last_event()
    said = len(lab.console(victim))
    lab.power(victim, "continue")
    lab.until_event("login refused", after=woken, node=victim)
    assert lab.call(lab.lab.sessions_of(victim)) == []
    assert sum("wrote=" in line for line in lab.console(victim)[said:]) <= 1
    assert lab.node(victim)["state"] == "fenced"


def assert_waits_for_a_spare(lab: LabInTest, server: str, last: int, *, others: int) -> None:
    """Its trouble is told, the other servers run, and on its disk is all that it was told is there."""

    def held():
        told = lab.events("held up", after=last, server=server)
        return told and told[-1]["text"].startswith("no spare: n1 ") and lab.server(server)["state"] == "waiting"

    until(held, f"{server} has no spare", seconds=60)
    assert status_of(lab, "servers") == f"look at {server} (waiting)"
    why = lab.server(server)["why"]
    assert why.count(" carries ") == others
    assert "quarantined" in why or "fenced" in why
    assert lost_writes(server, acknowledged(lab)[server], lab.marks(server)) == ()


def test_nothing_acknowledged_is_lost_and_no_disk_has_ever_had_two_writers(lab):
    """After a power cut of the storage process: every disk is read back, and the log of all sessions."""
    lab.call(lab.lab.kill("storage"))
    writes = acknowledged(lab)
    for server in SERVERS:
        marks = lab.marks(server)
        assert lost_writes(server, writes[server], marks) == ()
        assert len(marks) == min(RING_MARKS, max(marks) + 1)
    said = [line for machine in lab.lab.chassis.machines for line in lab.console(machine.name)]
    assert [line for line in said if line.startswith(("PANLOOM fault", "PANLOOM failed"))] == []
    log = (lab.lab.directory / "storage.log").read_text().splitlines()
    assert sum("event=login" in line for line in log) >= 3 * len(SERVERS)
    assert second_writers(log) == ()


# ── the judges ───────────────────────────────────────────────────────────────────────────────────────────────────────


def of(*epochs: int) -> dict[int, Mark]:
    return {number: Mark("shop/web1", epoch, number) for number, epoch in enumerate(epochs)}


CONSOLES = (
    ["Panloom: n1 boots shop/web1, epoch 1", "PANLOOM found=nothing", "PANLOOM wrote=1:0", "PANLOOM wrote=1:1"],
    ["PANLOOM wrote=", "Panloom: n2 boots shop/web1, epoch 2", "PANLOOM wrote=2:2"],
    ["Panloom: n2 boots shop/web2, epoch 9", "Panloom: n2 boots mail/web1, epoch 7", "PANLOOM wrote=7:9"],
)


def test_the_consoles_tell_what_was_acknowledged():
    assert acknowledged_writes(CONSOLES) == {"shop/web1": {(1, 0), (1, 1), (2, 2)}, "mail/web1": {(7, 9)}}


@pytest.mark.parametrize(
    ("marks", "fault"),
    [
        (of(1, 1, 2), None),
        (of(1, 1, 2, 2), None),
        (of(1, 1), "mark 2 was acknowledged"),
        (of(1, 2, 2), "mark 1 was acknowledged under epoch 1 and is of epoch 2"),
        (of(1, 1, 1), "mark 2 was acknowledged under epoch 2 and is of epoch 1"),
        (of(1, 1, 2, 1), "mark 3 is of epoch 1, after one of epoch 2"),
    ],
)
def test_a_lost_or_late_write_is_found(marks, fault):
    found = lost_writes("shop/web1", {(1, 0), (1, 1), (2, 2)}, marks)
    assert [fault in text for text in found] == ([True] if fault else [])


@pytest.mark.parametrize("acknowledged", [{(1, 0), (1, 1), (2, 1)}, {(1, 0), (2, 3)}, {(1, 0), (1, 2)}])
def test_writes_acknowledged_to_two_machines_or_not_in_a_row_are_found(acknowledged):
    assert "was acknowledged under epoch" in lost_writes("shop/web1", acknowledged, of(1, 1, 2, 2))[-1]


LOGIN = "INFO event=login session={} peer=p initiator=i target=t epoch={} kind=kernel"
FENCE = "INFO target=t access=none epoch=2"


@pytest.mark.parametrize(
    ("log", "fault"),
    [
        ([LOGIN.format("a", 1), FENCE, "event=dropped session=a target=t", LOGIN.format("b", 2)], None),
        ([LOGIN.format("a", 1), FENCE, "event=end session=a peer=p", LOGIN.format("b", 2)], None),
        ([LOGIN.format("a", 1), LOGIN.format("b", 1)], None),
        ([LOGIN.format("a", 1), "started=yes directory=d", LOGIN.format("b", 2)], None),
        ([LOGIN.format("a", 1), FENCE, LOGIN.format("b", 2)], "t: sessions of epochs 2 and 1 at once"),
        ([FENCE, LOGIN.format("a", 1)], "t: a login under epoch 1 after the fence of epoch 2"),
    ],
)
def test_a_second_writer_is_found(log, fault):
    assert second_writers(log) == ((fault,) if fault else ())
