"""Act by act, whatever happens in between, a server comes up on one node and never on two.

A plain model of the platform carries the acts out: a dictionary of what is granted to whom, which ports are open,
what is powered. Disturbances (a death, a deleted document, a crash between the act and its record) come at any time.
"""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from panloom.decide import failover
from panloom.decide.records import Phase, ServerRecord, Step
from panloom.decide.server_plan import (
    Admit,
    BeginFence,
    FailTrial,
    FenceStep,
    Finish,
    Forget,
    MakeVolume,
    MarkUp,
    OpenPort,
    PowerOn,
    Quarantine,
    Reset,
    Revive,
    ServerView,
    next_act,
    why_slow,
)

WAITING = ServerRecord(phase=Phase.WAITING, epoch=1, personality="p")


def view(record, **facts):
    return ServerView(name="a/x", record=record, personality="p", **({"wanted": True} | facts))


class Model:
    """One server, two nodes, and what the world would look like."""

    def __init__(self):
        self.record = WAITING
        self.wanted = True
        self.volume = False
        self.prepared = False
        self.granted = None  # (node, epoch)
        self.open = None  # node
        self.power = {"n1": False, "n2": False}
        self.writes_possible = set()  # nodes whose old session could still write
        self.alive = False
        self.dead = None
        self.quarantined = set()

    def place(self):
        if self.record.phase is Phase.WAITING and self.prepared and self.wanted:
            free = [n for n in self.power if n not in self.quarantined]
            if free:
                self.record = msgspec.structs.replace(self.record, phase=Phase.BOOTING, node=free[-1], personality="p")

    def view(self):
        r = self.record
        return view(
            r,
            wanted=self.wanted,
            volume_ready=self.volume,
            volume_prepared=self.prepared,
            admitted=self.granted == (r.node, r.epoch),
            port_open=self.open == r.node,
            power=self.power.get(r.node),
            alive=self.alive,
            dead=self.dead,
        )

    def carry_out(self, act, *, crash):
        """Do the act; ``crash``: the process dies before the record is written."""
        r = self.record
        changed = r
        match act:
            case MakeVolume():
                self.volume = True
                self.prepared = not crash
            case Admit():
                assert not self.writes_possible - {r.node}, "granted while another node could still write"
                self.granted = (r.node, r.epoch)
            case OpenPort():
                self.open = r.node
            case PowerOn() | Reset():
                self.power[r.node] = True
                self.writes_possible.add(r.node)
                self.alive = True
                attempt = act.attempt if isinstance(act, Reset) else r.boot_attempts
                changed = msgspec.structs.replace(r, started=True, boot_attempts=attempt)
            case MarkUp():
                changed = msgspec.structs.replace(r, phase=Phase.UP)
            case BeginFence() | Quarantine():
                if isinstance(act, Quarantine):
                    self.quarantined.add(r.node)
                self.alive, self.dead = False, None
                changed = failover.begin(r, cause="x", secret="s", beacon_key="k", wall=0.0)
            case FenceStep(step):
                if step is Step.REFUSE_LOGINS:
                    self.granted = None
                elif step is Step.DRAIN_WRITES:
                    assert self.granted is None
                    self.writes_possible.clear()
                elif step is Step.FILTER_PORT:
                    assert not self.writes_possible
                    self.open = None
                elif step is Step.POWER_OFF:
                    self.power[r.fence.node] = False
                changed = failover.advance(r, step)
            case Finish():
                assert not self.writes_possible
                assert self.granted is None
                assert self.open is None
                changed = failover.finish(r, wall=0.0)
            case Forget():
                changed = msgspec.structs.replace(r, phase=Phase.GONE)
            case Revive():
                changed = msgspec.structs.replace(r, phase=Phase.WAITING)
        assert changed.epoch >= r.epoch
        if not crash:
            self.record = changed

    def settle(self, crashes=()):
        crashes = list(crashes)
        for _ in range(200):
            self.place()
            act = next_act(self.view())
            if act is None:
                if self.record.phase is Phase.WAITING and self.volume and self.wanted and len(self.quarantined) < 2:
                    continue
                return
            self.carry_out(act, crash=bool(crashes and crashes.pop()))
        raise AssertionError(f"never comes to rest: {self.record}, next {act}")


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.sampled_from(["die", "delete", "want", "off", "nothing"]), st.lists(st.booleans(), max_size=12)),
        max_size=8,
    )
)
def test_whatever_happens_it_comes_to_rest_on_one_node_or_none(history):
    model = Model()
    model.settle()
    assert model.record.phase is Phase.UP
    for disturbance, crashes in history:
        if disturbance == "die":
            model.dead = "silent" if model.record.phase is Phase.UP else None
        elif disturbance == "off" and model.record.node and model.record.phase is Phase.UP:
            model.power[model.record.node] = False
            model.alive, model.dead = False, "off"
        elif disturbance in ("delete", "want"):
            model.wanted = disturbance == "want"
        model.settle(crashes)
        if model.wanted:
            assert model.record.phase is Phase.UP
            assert model.granted == (model.record.node, model.record.epoch)
        else:
            assert model.record.phase is Phase.GONE
            assert model.granted is None


BOOTING = ServerRecord(phase=Phase.BOOTING, epoch=1, node="n1", personality="p", started=True)
SET_UP = {"admitted": True, "port_open": True, "boot_timeout_seconds": 30.0, "max_boot_attempts": 3}


def test_a_boot_without_progress_is_reset_three_times_with_growing_patience_then_the_node_is_quarantined():
    record, at = BOOTING, []
    for attempt in (1, 2, 3):
        patience = next(s for s in range(200) if next_act(view(record, power=True, stalled_seconds=s, **SET_UP)))
        at.append(patience)
        act = next_act(view(record, power=True, stalled_seconds=patience, **SET_UP))
        assert isinstance(act, Reset)
        assert act.attempt == attempt
        record = msgspec.structs.replace(record, boot_attempts=attempt)
    assert at == sorted(set(at))
    act = next_act(view(record, power=True, stalled_seconds=200, stage="login", **SET_UP))
    assert act == Quarantine("it did not boot a/x: no new stage for 200 s after login, after 3 resets")


def test_a_boot_that_is_late_says_where_it_stands():
    def slow(stalled, attempts=0):
        record = msgspec.structs.replace(BOOTING, boot_attempts=attempts)
        return why_slow(view(record, power=True, stalled_seconds=stalled, stage="script", **SET_UP))

    assert slow(14) is None
    assert slow(15) == "boots: no new stage for 15 s after script; 0 of 3 resets made"
    assert slow(1, attempts=2) == "boots: no new stage for 1 s after script; 2 of 3 resets made"
    assert why_slow(view(WAITING, stalled_seconds=999, **SET_UP)) is None


def test_a_machine_that_goes_off_while_booting_counts_as_an_attempt():
    act = next_act(view(BOOTING, power=False, **SET_UP))
    assert act == Reset(1, "it went off while booting")


def test_one_that_goes_off_again_and_again_is_switched_on_ever_later():
    for attempts in (1, 2, 3):
        record = msgspec.structs.replace(BOOTING, boot_attempts=attempts)
        facts = SET_UP | {"power": False, "boot_timeout_seconds": 80.0}
        assert next_act(view(record, stalled_seconds=attempts * 10.0 - 1, **facts)) is None
        assert isinstance(next_act(view(record, stalled_seconds=attempts * 10.0, **facts)), Reset | Quarantine)


def test_a_machine_that_cannot_be_switched_on_is_given_up_in_time_and_keeps_no_server_from_a_spare():
    record = msgspec.structs.replace(BOOTING, started=False)
    assert next_act(view(record, power=False, stalled_seconds=30, **SET_UP)) == PowerOn()
    assert next_act(view(record, power=False, stalled_seconds=31, **SET_UP)) == Reset(1, "no new stage for 31 s")
    record = msgspec.structs.replace(record, boot_attempts=3)
    assert isinstance(next_act(view(record, power=False, stalled_seconds=76, **SET_UP)), Quarantine)


def test_a_machine_that_only_a_person_can_switch_has_the_time_of_all_attempts_and_is_then_given_up():
    def act(stalled):
        return next_act(view(BOOTING, has_power=False, power=None, stalled_seconds=stalled, stage="script", **SET_UP))

    patience = 30 * (1 + 1.5 + 2 + 2.5)
    assert act(patience) is None
    why = "no new stage for 211 s after script, and it has no power driver to reset it by"
    assert act(patience + 1) == Quarantine(f"it did not boot a/x: {why}")
    slow = why_slow(view(BOOTING, has_power=False, stalled_seconds=120, **SET_UP))
    assert slow == "boots: no new stage for 120 s; switch it off and on by hand"


def test_a_changed_document_restarts_the_server_through_the_same_fence():
    up = msgspec.structs.replace(BOOTING, phase=Phase.UP)
    act = next_act(ServerView(name="a/x", wanted=True, record=up, personality="other", **SET_UP))
    assert act == BeginFence("its document changed", restart=True)


def test_fail_over_that_is_switched_off_leaves_a_dead_server_where_it_is():
    up = msgspec.structs.replace(BOOTING, phase=Phase.UP)
    assert next_act(view(up, dead="silent", enabled=False, **SET_UP)) is None
    assert next_act(view(up, dead="silent", **SET_UP)) == BeginFence("silent")


def test_a_disk_is_made_only_when_the_one_before_of_its_name_is_destroyed():
    assert next_act(view(WAITING)) == MakeVolume()
    assert next_act(view(WAITING, volume_doomed=True)) is None
    assert next_act(view(WAITING, image_ready=False)) is None
    assert next_act(view(WAITING, volume_ready=True)) is None
    assert next_act(view(WAITING, volume_ready=True, volume_prepared=False)) == MakeVolume()


def test_a_server_that_is_to_be_shut_out_is_fenced_wherever_it_stands_and_its_node_is_not_to_blame():
    for phase in (Phase.BOOTING, Phase.UP):
        record = msgspec.structs.replace(WAITING, phase=phase, node="n1")
        assert next_act(view(record, to_fence="its image is updated", **SET_UP)) == BeginFence(
            "its image is updated", restart=True
        )
    assert next_act(view(WAITING, volume_ready=True, to_fence="its image is updated")) is None


def test_of_a_server_on_trial_no_node_is_quarantined():
    record = msgspec.structs.replace(WAITING, phase=Phase.BOOTING, node="n1", boot_attempts=3, started=True)
    late = {"power": True, "stalled_seconds": 1000.0, **SET_UP}
    assert isinstance(next_act(view(record, **late)), Quarantine)
    found = next_act(view(record, on_trial=True, **late))
    assert found == FailTrial("no new stage for 1000 s, after 3 resets")
