"""Fencing on the living: whatever the old machine still does, none of it reaches the disk or the network.

The victim writes its tag (server, epoch, counter) to its disk without pause, and calls all hosts from the server's MAC
and address.  Its power switch is broken where it has to live on. What stands in the volume when the fence is complete
is read back; nothing of the old epoch may ever be added to it, and no call may come out of another port.
"""

import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from panloom.decide.port_filter import TABLE, refused
from panloom.fabric.nftables import Nftables
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


@dataclass(frozen=True)
class Scene:
    """A server that writes without pause on one of two machines, before anything happens to it."""

    victim: str
    spare: str
    hardware: str  # the spare's own MAC
    since: int  # the last event so far


@pytest.fixture
def scene(lab) -> Scene:
    """Boot web1 and wait until its tags pour in and its calls are heard."""
    lab.apply(ONE)
    victim = lab.until_up("shop/web1")["node"]
    lab.until_answers("shop/web1")
    until(lambda: is_writing(lab, 1), "the victim writes", seconds=30)
    calls = Sniffer(lab.inside, "lab0", lambda frame, _: is_call(frame))
    until(lambda: calls.seen, "the bridge lets the victim's calls in")
    calls.close()
    lab.until_adopted(victim)
    (spare,) = {"n1", "n2"} - {victim}
    return Scene(victim, spare, lab.node(spare)["mac"], lab.last_event())


def is_call(frame: bytes) -> bool:
    """Whether it is a call of the server to all hosts, which leaves the bridge at every port but its own."""
    return is_from(frame, MAC, ADDRESS) and frame[:6] == bytes.fromhex("01005e000001")


def until_calls_are_refused(lab: LabInTest, victim: str):
    """Wait until the victim has called, and the filter at its port has dropped it."""
    ruleset = Nftables(Path("/run/netns") / lab.inside.name)

    def are_refused() -> bool:
        return refused(ruleset.run({"nftables": [{"list": {"table": TABLE}}]}))[victim] > 3

    until(are_refused, "the victim's calls are refused", seconds=20)
    ruleset.close()


def frames_that_passed(lab: LabInTest, other_port: str):
    """Listen for frames with the server's MAC or address that the bridge let through to another port."""
    return Sniffer(
        lab.inside, other_port, lambda frame, direction: direction == OUTGOING and is_from(frame, MAC, ADDRESS)
    )


def fence_of(lab: LabInTest, scene: Scene):
    """Wait until the fence is complete; return what the volume holds of the old epoch then."""
    lab.until_event("fence complete", after=scene.since, server="shop/web1")
    return {sector: tag for sector, tag in lab.tags().items() if tag[0] == 1}


def assert_nothing_was_added(lab: LabInTest, at_fence):
    """Every tag of the old epoch that stands in the volume stood there when the fence was complete."""
    for sector, (epoch, counter) in lab.tags().items():
        if epoch == 1:
            assert at_fence.get(sector) == (1, counter)


def assert_the_spare_serves(lab: LabInTest, scene: Scene):
    lab.until_up("shop/web1", not_on={scene.victim})
    page = lab.until_answers("shop/web1", epoch=2)
    assert (page["node"], page["mac"], page["address"], page["boots"]) == (scene.spare, MAC, ADDRESS, "2")
    assert lab.node(scene.spare)["mac"] == scene.hardware
    # The spare keeps its own MAC on the wire: the control node knows its storage address by it.
    neighbour = lab.inside.run("ip", "neigh", "show", lab.node(scene.spare)["address"]).stdout.decode()
    assert scene.hardware in neighbour


def test_cap_192_195_a_killed_machine_leaves_nothing_behind(lab, scene):
    lab.power(scene.victim, "kill")
    at_fence = fence_of(lab, scene)
    assert at_fence
    assert_the_spare_serves(lab, scene)
    until(lambda: is_writing(lab, 2), "the spare writes", seconds=30)
    assert_nothing_was_added(lab, at_fence)
    steps = [event["text"] for event in lab.events("fenced", after=scene.since, server="shop/web1")]
    assert steps == ["refuse logins", "drop sessions", "drain writes", "filter port", "power off"]
    # Switched on again it is nobody: no session, no boot script of the server, a spare.
    again = lab.last_event()
    lab.power(scene.victim, "on")
    lab.until_event("waiting", after=again, seconds=40, node=scene.victim)
    assert lab.node(scene.victim)["state"] == "spare"
    assert lab.call(lab.lab.sessions_of(scene.victim)) == []
    assert not lab.events("boot", after=again, node=scene.victim, text="script")


def test_a_machine_that_hangs_for_30_seconds_and_goes_on_finds_itself_shut_out(lab, scene):
    lab.power(scene.victim, "refuse")
    sniffer = frames_that_passed(lab, scene.spare)
    lab.power(scene.victim, "stop")
    stopped = time.monotonic()
    at_fence = fence_of(lab, scene)
    fenced = time.monotonic()
    assert lab.events("power off failed", after=scene.since, node=scene.victim)
    assert_the_spare_serves(lab, scene)
    until(lambda: time.monotonic() - stopped > 30, "it has hung for 30 s", seconds=40)
    woken = lab.last_event()
    lab.power(scene.victim, "continue")
    assert_it_is_refused(lab, scene.victim, woken)
    until_calls_are_refused(lab, scene.victim)
    passed = [frame for at, frame in sniffer.close() if at > fenced]
    assert passed == []
    assert_nothing_was_added(lab, at_fence)
    assert_the_spare_serves(lab, scene)


def test_a_machine_cut_off_but_alive_and_writing_is_shut_out_before_it_comes_back(lab, scene):
    lab.power(scene.victim, "refuse")
    sniffer = frames_that_passed(lab, scene.spare)
    lab.inside.ip(f"link set {scene.victim} nomaster")
    at_fence = fence_of(lab, scene)
    fenced = time.monotonic()
    lab.until_up("shop/web1", not_on={scene.victim})
    assert lab.power(scene.victim, "status"), "the victim lives"
    back = lab.last_event()
    lab.inside.ip(f"link set {scene.victim} master lab0")
    assert_it_is_refused(lab, scene.victim, back)
    until_calls_are_refused(lab, scene.victim)
    assert_the_spare_serves(lab, scene)
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
    server = lab.server("shop/web1")
    assert (server["state"], server["detail"]) == ("fencing", "filter port done")
    assert not lab.events("placed", after=since)
    lab.power(victim, "obey")
    lab.until_event("placed", after=since, seconds=30, server="shop/web1")


def test_the_control_process_paused_for_60_seconds_fails_nobody_over(lab, scene):
    """SIGSTOP of the control process is no evidence against anybody; disks and pages go on meanwhile."""
    processes = lab.lab
    processes.signal("control", signal.SIGSTOP)
    before = max(counter for _, counter in lab.tags().values())
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 60, "a minute has passed", seconds=70)
    assert lab.page() is not None
    assert max(counter for _, counter in lab.tags().values()) > before
    processes.signal("control", signal.SIGCONT)
    held = lab.until_event("held", after=scene.since)
    assert "late ourselves" in held["text"]
    # It judges again from here on: well past the time-out, still nobody is fenced …
    resumed = time.monotonic()
    until(lambda: time.monotonic() - resumed > 6, "three time-outs have passed", seconds=10)
    assert not lab.events("fence", after=scene.since)
    # … and a machine that really dies is.
    lab.power(scene.victim, "kill")
    lab.until_event("fence complete", after=scene.since)
