"""Silence is evidence only while we were awake and only for few servers at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.decide.liveness import MAX_BEACON_SECONDS, Liveness, Verdict, beacon_seconds


def watching(*servers, now=0.0, max_simultaneous=2):
    liveness = Liveness(interval_seconds=0.5, timeout_seconds=2.0, max_simultaneous=max_simultaneous)
    for server in servers:
        liveness.watch(server, now)
    return liveness


def run(liveness, start, end, hears=()):
    """Tick every half second from start to end; servers in ``hears`` speak just before each tick."""
    findings, now = [], start
    while now <= end:
        for server in hears:
            liveness.heard(server, now)
        findings += liveness.verdicts(now)
        now += 0.5
    return findings


def test_a_silent_server_is_dead_after_the_timeout_and_not_before():
    liveness = watching("a", "b")
    assert run(liveness, 0.0, 2.0, hears=["b"]) == []
    (finding,) = run(liveness, 2.5, 2.5, hears=["b"])
    assert (finding.verdict, finding.servers) == (Verdict.DEAD, ("a",))


def test_what_was_heard_last_counts_whatever_grace_there_is():
    liveness = Liveness(interval_seconds=0.5, timeout_seconds=2.0, max_simultaneous=2)
    liveness.watch("a", 1.0, grace_seconds=5.0)
    assert (liveness.silence("a", 4.0), liveness.unheard("a", 4.0)) == (0.0, 3.0)
    liveness.heard("a", 4.5)
    assert liveness.unheard("a", 5.0) == 0.5
    liveness.heard("a", 6.5)
    assert liveness.unheard("a", 7.0) == 0.5
    assert liveness.unheard("b", 7.0) == float("inf")


def test_a_pause_of_our_own_proves_nothing_and_silence_begins_anew():
    liveness = watching("a")
    assert run(liveness, 0.0, 1.0, hears=["a"]) == []
    (finding,) = liveness.verdicts(61.0)
    assert finding.verdict is Verdict.HELD
    assert run(liveness, 61.5, 63.0) == []
    assert [f.verdict for f in run(liveness, 63.5, 63.5)] == [Verdict.DEAD]


def test_more_than_max_simultaneous_at_once_are_held_told_of_once_and_probed_again():
    liveness = watching("a", "b", "c")
    findings = run(liveness, 0.0, 10.0)
    assert {f.verdict for f in findings} == {Verdict.HELD}
    assert len(findings) == 1
    assert findings[0].servers == ("a", "b", "c")


def test_servers_that_fall_silent_just_after_one_another_count_as_at_once():
    liveness = watching("a", "b", "c")
    for server, at in (("a", 1.0), ("b", 1.4), ("c", 1.8)):
        liveness.heard(server, at)
    findings = run(liveness, 1.0, 12.0)
    assert findings
    assert all(f.verdict is Verdict.HELD for f in findings)


def test_when_enough_of_them_speak_again_the_one_that_stays_silent_is_dead():
    liveness = watching("a", "b", "c")
    run(liveness, 0.0, 2.5)
    findings = run(liveness, 3.0, 6.0, hears=["b", "c"])
    assert [(f.verdict, f.servers) for f in findings][:1] == [(Verdict.DEAD, ("a",))]


@pytest.mark.parametrize("timeout", [1.0, 2.0, 3.0, 10.0])
@given(phases=st.lists(st.floats(0, 1), min_size=23, max_size=23), late=st.floats(0, 0.9))
def test_a_silent_server_is_judged_among_any_number_of_living_ones_that_send_their_beacons(timeout, phases, late):
    """``late``: for what part of its period each beacon is on its way, at the most that a busy machine takes."""
    period = beacon_seconds(timeout)
    assert period <= MAX_BEACON_SECONDS
    liveness = Liveness(interval_seconds=timeout / 4, timeout_seconds=timeout, max_simultaneous=2)
    living = {f"s{number}": phase * period for number, phase in enumerate(phases)}
    for server in (*living, "silent"):
        liveness.watch(server, 0.0)
    ticks = (step * timeout / 20 for step in range(21, 40))
    for now in ticks:
        for server, phase in living.items():
            liveness.heard(server, phase + (now - phase - late * period) // period * period)
        findings = liveness.verdicts(now)
        if now > timeout:
            assert [(finding.verdict, finding.servers) for finding in findings] == [(Verdict.DEAD, ("silent",))]


def test_what_is_not_watched_is_never_judged():
    liveness = watching("a")
    liveness.forget("a")
    liveness.heard("a", 0.1)
    assert run(liveness, 0.0, 9.0) == []
    assert liveness.silence("a", 9.0) is None


def test_a_server_that_said_when_it_will_be_back_is_not_silent_until_then():
    liveness = watching("a", "b")
    liveness.excuse("a", 15.0)
    assert run(liveness, 0.0, 16.5, hears=["b"]) == []
    assert [f.servers for f in run(liveness, 17.5, 17.5, hears=["b"])] == [("a",)]
    liveness.excuse("never watched", 99.0)
    assert set(liveness.watched) == {"a", "b"}


def test_once_it_is_back_its_silence_counts_from_there():
    liveness = watching("a")
    liveness.excuse("a", 15.0)
    liveness.excuse("a", 1.0)
    assert [f.servers for f in run(liveness, 0.0, 3.5)] == [("a",)]


def young(*servers, now=0.0, max_simultaneous=2):
    liveness = watching(max_simultaneous=max_simultaneous)
    for server in servers:
        liveness.watch(server, now, grace_seconds=5.0)
    return liveness


def test_in_its_grace_a_server_s_silence_proves_nothing():
    liveness = young("a")
    assert run(liveness, 0.0, 7.0) == []
    assert [f.servers for f in run(liveness, 7.5, 7.5)] == [("a",)]


def test_once_settled_its_silence_counts_from_its_last_sign():
    liveness = young("a")
    liveness.settled("a", 1.0)
    assert run(liveness, 0.5, 3.0) == []
    assert [f.servers for f in run(liveness, 3.5, 3.5)] == [("a",)]


def test_settling_ends_the_grace_and_neither_a_hold_nor_an_excuse():
    held, excused = young("a"), young("a")
    held.hold(10.0)
    excused.excuse("a", 10.0)
    for liveness in (held, excused):
        liveness.settled("a", 1.0)
        assert run(liveness, 1.0, 12.0) == []
        assert [f.verdict for f in run(liveness, 12.5, 12.5)] == [Verdict.DEAD]


def test_the_young_that_are_not_heard_count_among_those_that_fall_at_once():
    liveness = watching("old")
    for server in "ab":
        liveness.watch(server, 0.0, grace_seconds=5.0)
    assert run(liveness, 0.0, 6.5) == []
    findings = run(liveness, 7.0, 12.0)
    assert {f.verdict for f in findings} == {Verdict.HELD}


def test_the_young_that_are_heard_keep_nobody_from_judgement():
    liveness = watching("old")
    for server in "ab":
        liveness.watch(server, 0.0, grace_seconds=5.0)
    assert [(f.verdict, f.servers) for f in run(liveness, 0.0, 2.5, hears=["a", "b"])] == [(Verdict.DEAD, ("old",))]


@pytest.mark.parametrize("pause", [1.2, 5.0, 60.0, 86_400.0])
def test_no_pause_of_ours_ever_condemns_anybody(pause):
    liveness = watching("a", "b")
    run(liveness, 0.0, 1.0, hears=["a", "b"])
    assert all(f.verdict is Verdict.HELD for f in liveness.verdicts(1.0 + pause))


@given(st.lists(st.tuples(st.floats(0.01, 3.0), st.sets(st.sampled_from("abc")), st.booleans()), max_size=60))
def test_nobody_dies_who_spoke_within_the_timeout(steps):
    liveness = watching("a", "b", "c")
    now, spoke = 0.0, dict.fromkeys("abc", 0.0)
    for pause, hears, tick in steps:
        now += pause
        for server in hears:
            liveness.heard(server, now)
            spoke[server] = now
        if tick:
            for finding in liveness.verdicts(now):
                if finding.verdict is Verdict.DEAD:
                    assert all(now - spoke[server] > 2.0 for server in finding.servers)
                    assert len(finding.servers) <= 2
