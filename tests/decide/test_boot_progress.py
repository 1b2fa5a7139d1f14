"""A boot that goes round in circles is as stuck as one that stands still; one that is slow is neither."""

from hypothesis import given
from hypothesis import strategies as st

from panloom.decide.boot_progress import BootProgress
from panloom.decide.records import STAGES

ROUND = ("dhcp", "script", "login")
WAIT_SECONDS = 90.0


def progress(*stages, since=0.0):
    """Return the progress of n1, of which a boot is expected; ``stages`` with the time of each."""
    made = BootProgress(STAGES)
    made.expect("n1", "web1", since)
    for stage, at in stages:
        made.reached("n1", stage, at)
    return made


def rounds(seconds, count):
    """Return what a machine passes that begins again and again, each round ``seconds`` long."""
    return [(stage, number * seconds + at) for number in range(count) for at, stage in enumerate(ROUND, start=1)]


def test_going_round_is_no_progress_however_often():
    boot = progress(("power", 0.0), *rounds(10.0, 30))
    assert (boot.stage("n1"), boot.stalled_seconds("n1", 300.0)) == ("login", 297.0)


def test_a_round_that_comes_further_is_progress():
    boot = progress(*rounds(10.0, 3), ("dhcp", 31.0), ("first read", 34.0))
    assert (boot.stage("n1"), boot.stalled_seconds("n1", 40.0)) == ("first read", 6.0)


@given(st.lists(st.floats(0.1, WAIT_SECONDS - 0.1), min_size=len(STAGES), max_size=len(STAGES)), st.data())
def test_a_slow_boot_never_looks_stuck_whatever_its_firmware_repeats(pauses, data):
    """UEFI asks for one address to load iPXE and iPXE for another, and each asks again where an answer is lost."""
    boot, now = progress(), 0.0
    for stage, pause in zip(STAGES, pauses, strict=True):
        assert boot.stalled_seconds("n1", now + pause) < WAIT_SECONDS
        now += pause
        boot.reached("n1", stage, now)
        for again in data.draw(st.lists(st.sampled_from(STAGES[1:4]), max_size=3)):
            if STAGES.index(again) <= STAGES.index(stage):
                boot.reached("n1", again, now)
    assert boot.stage("n1") == STAGES[-1]


def test_each_power_on_and_each_placement_begins_anew():
    boot = progress(("dhcp", 1.0), ("login", 2.0))
    boot.reached("n1", "power", 50.0)
    assert (boot.stage("n1"), boot.stalled_seconds("n1", 60.0)) == ("power", 10.0)
    boot.reached("n1", "script", 70.0)
    boot.expect("n1", "web1", 75.0)
    assert (boot.stage("n1"), boot.stalled_seconds("n1", 80.0)) == ("script", 10.0)
    boot.expect("n1", "web2", 80.0)
    assert (boot.stage("n1"), boot.stalled_seconds("n1", 85.0)) == (None, 5.0)


def test_a_machine_that_nobody_could_see_has_all_its_time_from_then_on():
    """It may have asked in vain for an hour, or have come up to its kernel and begun again."""
    boot = BootProgress(STAGES)
    boot.reached("n1", "kernel", 10.0)
    boot.expect("n1", "web1", 3600.0)
    assert boot.stalled_seconds("n1", 3600.0 + WAIT_SECONDS) == WAIT_SECONDS
    boot.reached("n1", "dhcp", 3650.0)
    assert (boot.stage("n1"), boot.stalled_seconds("n1", 3651.0)) == ("dhcp", 1.0)


def test_time_in_which_nobody_could_get_on_is_left_out():
    boot = progress(("script", 10.0))
    boot.excuse(500.0)
    assert boot.stalled_seconds("n1", 100.0) == 0.0
    assert boot.stalled_seconds("n1", 530.0) == 20.0
    boot.reached("n1", "login", 520.0)
    assert boot.stalled_seconds("n1", 530.0) == 10.0


def test_of_a_machine_never_seen_nothing_is_known():
    boot = BootProgress(STAGES)
    assert (boot.stage("n9"), boot.stalled_seconds("n9", 1e9)) == (None, 0.0)
