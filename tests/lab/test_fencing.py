"""Fencing on the living: whatever the old machine still does, none of it reaches the disk or the network.

The victim writes its tag (server, epoch, counter) to its disk without pause.  Its power switch is broken where it has
to live on. What stands in the volume when the fence is complete is read back; nothing of the old epoch may ever be
added to it.
"""

import signal
import time

import pytest

from support.lab import ONE, OUTGOING, LabInTest, Sniffer, is_from, running_lab
from support.waiting import until

pytestmark = [pytest.mark.machine, pytest.mark.timeout(240)]
MAC, ADDRESS = "02:50:4c:00:00:01", "10.1.0.11"


@pytest.fixture
def lab(tmp_path):
    with running_lab(tmp_path, nodes=2, writer=True) as running:
        yield running


def is_writing(lab: LabInTest, epoch: int) -> bool:
    return sum(known == epoch for known, _ in lab.tags().values()) > 20


def victim_that_writes(lab: LabInTest):
    """Boot web1 and wait until its tags pour in; return the node it is on."""
    lab.apply(ONE)
    row = lab.until_up("shop/web1")
    lab.until_answers("shop/web1")
    until(lambda: is_writing(lab, 1), "the victim writes", seconds=30)
    lab.until_adopted(row["node"])
    return row["node"]


def frames_that_passed(lab: LabInTest, other_port: str):
    """Listen for frames with the server's MAC or address that the bridge let through to another port."""
    return Sniffer(
        lab.inside, other_port, lambda frame, direction: direction == OUTGOING and is_from(frame, MAC, ADDRESS)
    )


def fence_of(lab: LabInTest, since: int):
    """Wait until the fence is complete; return what the volume holds of the old epoch then."""
    lab.until_event("fence complete", after=since, server="shop/web1")
    return {sector: tag for sector, tag in lab.tags().items() if tag[0] == 1}


def assert_nothing_was_added(lab: LabInTest, at_fence):
    """Every tag of the old epoch that stands in the volume stood there when the fence was complete."""
    for sector, (epoch, counter) in lab.tags().items():
        if epoch == 1:
            assert at_fence.get(sector) == (1, counter)


def assert_served_by(lab: LabInTest, node: str, *, hardware: str):
    page = lab.until_answers("shop/web1", epoch=2)
    assert (page["node"], page["mac"], page["address"], page["boots"]) == (node, MAC, ADDRESS, "2")
    assert lab.node(node)["mac"] == hardware
    # The spare keeps its own MAC on the wire: the control node knows its storage address by it.
    neighbour = lab.inside.run("ip", "neigh", "show", lab.node(node)["address"]).stdout.decode()
    assert hardware in neighbour


def test_cap_192_195_a_killed_machine_leaves_nothing_behind(lab):
    victim = victim_that_writes(lab)
    (spare,) = {"n1", "n2"} - {victim}
    hardware = lab.node(spare)["mac"]
    since = lab.last_event()
    lab.power(victim, "kill")
    at_fence = fence_of(lab, since)
    assert at_fence
    lab.until_up("shop/web1", not_on={victim})
    assert_served_by(lab, spare, hardware=hardware)
    until(lambda: is_writing(lab, 2), "the spare writes", seconds=30)
    assert_nothing_was_added(lab, at_fence)
    steps = [event["text"] for event in lab.events("fenced", after=since, server="shop/web1")]
    assert steps == ["refuse logins", "drop sessions", "drain writes", "filter port", "power off"]
    # Switched on again it is nobody: no session, no boot script of the server, a spare.
    since = lab.last_event()
    lab.power(victim, "on")
    lab.until_event("waiting", after=since, seconds=40, node=victim)
    assert lab.node(victim)["state"] == "spare"
    assert lab.call(lab.lab.sessions_of(victim)) == []
    assert not lab.events("boot", after=since, node=victim, text="script")


def test_a_machine_that_hangs_for_30_seconds_and_goes_on_finds_itself_shut_out(lab):
    victim = victim_that_writes(lab)
    (spare,) = {"n1", "n2"} - {victim}
    hardware = lab.node(spare)["mac"]
    since = lab.last_event()
    lab.power(victim, "refuse")
    sniffer = frames_that_passed(lab, spare)
    lab.power(victim, "stop")
    stopped = time.monotonic()
    at_fence = fence_of(lab, since)
    fenced = time.monotonic()
    assert lab.events("power off failed", after=since, node=victim)
    lab.until_up("shop/web1", not_on={victim})
    assert_served_by(lab, spare, hardware=hardware)
    until(lambda: time.monotonic() - stopped > 30, "it has hung for 30 s", seconds=40)
    woken = lab.last_event()
    lab.power(victim, "continue")
    assert_it_is_refused(lab, victim, woken)
    passed = [frame for at, frame in sniffer.close() if at > fenced]
    assert passed == []
    assert_nothing_was_added(lab, at_fence)
    assert_served_by(lab, spare, hardware=hardware)


def test_a_machine_cut_off_but_alive_and_writing_is_shut_out_before_it_comes_back(lab):
    victim = victim_that_writes(lab)
    (spare,) = {"n1", "n2"} - {victim}
    hardware = lab.node(spare)["mac"]
    since = lab.last_event()
    lab.power(victim, "refuse")
    sniffer = frames_that_passed(lab, spare)
    lab.inside.ip(f"link set {victim} nomaster")
    at_fence = fence_of(lab, since)
    fenced = time.monotonic()
    lab.until_up("shop/web1", not_on={victim})
    assert lab.power(victim, "status"), "the victim lives"
    back = lab.last_event()
    lab.inside.ip(f"link set {victim} master lab0")
    assert_it_is_refused(lab, victim, back)
    assert_served_by(lab, spare, hardware=hardware)
    passed = [frame for at, frame in sniffer.close() if at > fenced]
    assert passed == []
    assert_nothing_was_added(lab, at_fence)


def assert_it_is_refused(lab: LabInTest, victim: str, since: int):
    """Wait until the old machine's kernel has tried to log in again and was refused."""
    lab.until_event("login refused", after=since, seconds=45, node=victim)
    assert lab.call(lab.lab.sessions_of(victim)) == []
    assert lab.node(victim)["state"] == "fenced"
    assert lab.server("shop/web1")["node"] != victim


def test_under_fence_power_nothing_starts_until_the_machine_is_known_to_be_off(lab):
    text = ONE + "    failover: {fence: power}\n"
    lab.apply(text)
    victim = lab.until_up("shop/web1")["node"]
    since = lab.last_event()
    lab.power(victim, "refuse")
    lab.power(victim, "stop")
    lab.until_event("fenced", after=since, text="filter port")
    held = lab.until_event("held up", after=since, server="shop/web1")
    assert "power switch" in held["text"]
    assert lab.server("shop/web1")["state"] == "fencing (filter port done)"
    assert not lab.events("placed", after=since)
    lab.power(victim, "obey")
    lab.until_event("placed", after=since, seconds=30, server="shop/web1")


def test_the_control_process_paused_for_60_seconds_fails_nobody_over(lab):
    """SIGSTOP of the control process is no evidence against anybody; disks and pages go on meanwhile."""
    victim = victim_that_writes(lab)
    since = lab.last_event()
    processes = lab.lab
    processes.signal("control", signal.SIGSTOP)
    before = max(counter for _, counter in lab.tags().values())
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 60, "a minute has passed", seconds=70)
    assert lab.page() is not None
    assert max(counter for _, counter in lab.tags().values()) > before
    processes.signal("control", signal.SIGCONT)
    held = lab.until_event("held", after=since)
    assert "late ourselves" in held["text"]
    # It judges again from here on: well past the time-out, still nobody is fenced …
    resumed = time.monotonic()
    until(lambda: time.monotonic() - resumed > 6, "three time-outs have passed", seconds=10)
    assert not lab.events("fence", after=since)
    # … and a machine that really dies is.
    lab.power(victim, "kill")
    lab.until_event("fence complete", after=since)
