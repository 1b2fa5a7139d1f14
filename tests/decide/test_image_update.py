"""Whatever becomes of the servers, whenever the control process dies: each ends on one disk, and none is lost.

A model platform carries the steps out; hypothesis says which servers get well on which disk, who is deleted, and when.
"""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.decide.image_update import (
    ENDED,
    UNDER_WAY,
    Begin,
    Discard,
    End,
    ImageUpdate,
    Prepare,
    Seen,
    Stage,
    Stop,
    Swap,
    SwapBack,
    Turn,
    is_on_trial,
    is_shut_out,
    next_steps,
    story,
    with_stage,
)

NAMES = ("shop/a", "shop/b", "shop/c", "shop/d")


def update_of(*turns, width=1, **fields):
    return ImageUpdate("web", "web@2", "web@2", width, "ada", 1.0, tuple(turns), **fields)


def fresh(width=1, names=NAMES):
    return update_of(*(Turn(name) for name in names), width=width)


class Platform:
    """Servers with disks: what each step does to them, and what is seen of them."""

    def __init__(self, update, *, well_on_new, makes, deleted):
        self.update = update
        self.well_on_new = well_on_new
        self.makes = makes
        self.deleted = deleted
        self.disk = dict.fromkeys(NAMES, "old")
        self.new = {}  # server → whether it is made
        self.node = dict.fromkeys(NAMES, True)
        self.lasted = dict.fromkeys(NAMES, 0.0)
        self.swapped_with_a_node = []
        self.history = [update]

    def seen(self, server):
        turn = self.update.turn(server)
        on_old = self.disk[server] == "old"
        well = self.node[server] and (on_old or server in self.well_on_new)
        return Seen(
            wanted=server not in self.deleted,
            image="web@1" if on_old else "web@2",
            ready=self.new.get(server, False),
            fenced=not self.node[server],
            up=well,
            well=well and turn.stage is Stage.ON_TRIAL,
            trouble="" if server in self.makes or turn.stage is not Stage.MAKING else "no space",
            lasted_seconds=self.lasted[server],
            within_seconds=5.0,
        )

    def turn_to(self, server, stage, **facts):
        self.lasted[server] = 0.0
        self.update = with_stage(self.update, server, stage, wall=2.0, **facts)
        self.history.append(self.update)

    def do(self, step):
        match step:
            case Prepare(server):
                self.new[server] = False
                self.turn_to(server, Stage.MAKING, old=server, new=f"{server}-disk-2")
            case Begin(server, stage, why):
                self.turn_to(server, stage, why=why)
            case Discard(server, why):
                assert self.disk[server] == "old"
                self.new.pop(server, None)
                self.turn_to(server, Stage.LEFT, why=why)
            case Swap(server) | SwapBack(server):
                if self.node[server]:
                    self.swapped_with_a_node.append(server)
                self.disk[server] = "new" if isinstance(step, Swap) else "old"
                self.turn_to(server, Stage.ON_TRIAL if isinstance(step, Swap) else Stage.COMING_BACK)
            case Stop(why):
                self.update = msgspec.structs.replace(self.update, stopped=why)
            case End():
                self.update = msgspec.structs.replace(self.update, ended_at=3.0)

    def go_on(self, seconds):
        """Let the reconciler and time do their part: shut out who is to be shut out, give nodes to others."""
        for server in NAMES:
            self.lasted[server] += seconds
            self.node[server] = not is_shut_out(server, [self.update])
            if server in self.new and server in self.makes:
                self.new[server] = True


@given(
    width=st.integers(1, 3),
    well=st.sets(st.sampled_from(NAMES)),
    makes=st.sets(st.sampled_from(NAMES), min_size=3),
    deleted=st.dictionaries(st.integers(0, 20), st.sampled_from(NAMES), max_size=2),
    cuts=st.lists(st.integers(0, 3), max_size=30),
)
def test_each_server_ends_on_one_disk_and_no_more_are_at_risk_than_asked(width, well, makes, deleted, cuts):
    """``cuts``: after how many steps of a round the process dies; the next one asks again from what is durable."""
    platform = Platform(fresh(width), well_on_new=well, makes=makes, deleted=set())
    for number in range(200):
        if number in deleted:
            platform.deleted.add(deleted[number])
        steps = next_steps(platform.update, {name: platform.seen(name) for name in NAMES})
        cut = cuts[number] if number < len(cuts) else None
        for step in steps[:cut]:
            platform.do(step)
        platform.go_on(1.0)
        if platform.update.ended_at is not None:
            break
    assert platform.update.ended_at is not None
    assert platform.swapped_with_a_node == []
    for past in platform.history:
        assert sum(turn.stage in UNDER_WAY for turn in past.turns) <= width
    for turn in platform.update.turns:
        assert turn.stage in ENDED
        if turn.server not in platform.deleted:
            assert platform.disk[turn.server] == ("new" if turn.stage is Stage.UPDATED else "old")
            assert turn.stage is not Stage.UPDATED or turn.server in well
    failed = [turn.server for turn in platform.update.turns if turn.stage is Stage.WENT_BACK]
    assert bool(failed) <= bool(platform.update.stopped)
    assert next_steps(platform.update, {}) == ()


@given(width=st.integers(1, 4))
def test_after_the_first_that_is_not_well_nobody_begins(width):
    update = fresh(width)
    for name in NAMES[:width]:
        update = with_stage(update, name, Stage.ON_TRIAL, wall=2.0, old=name, new=f"{name}-disk-2")
    seen = {name: Seen(image="web@1") for name in NAMES}
    seen[NAMES[0]] = Seen(image="web@2", lasted_seconds=9.0, within_seconds=8.0, trouble="port 80 refuses")
    stop, begin, *rest = next_steps(update, seen)
    assert stop == Stop("shop/a is not well with web@2: port 80 refuses, 8 s after it got its new disk")
    assert begin == Begin("shop/a", Stage.FENCING_BACK, "port 80 refuses, 8 s after it got its new disk")
    assert rest == []
    update = msgspec.structs.replace(with_stage(update, "shop/a", Stage.FENCING_BACK, wall=3.0), stopped=stop.why)
    left = [step.server for step in next_steps(update, seen) if isinstance(step, Begin) and step.stage is Stage.LEFT]
    assert left == list(NAMES[width:])


def test_a_server_that_has_the_version_and_one_that_is_gone_are_left():
    seen = {"shop/a": Seen(image="web@2"), "shop/b": Seen(wanted=False)}
    steps = next_steps(fresh(names=NAMES[:2]), seen)
    assert steps == (
        Begin("shop/a", Stage.LEFT, "its disk is a clone of web@2"),
        Begin("shop/b", Stage.LEFT, "it is deleted"),
    )


def test_a_server_of_another_image_by_now_is_left():
    seen = {"shop/a": Seen(image="db@1"), "shop/b": Seen(image="")}
    why = "its disk is no clone of web any more"
    steps = next_steps(fresh(names=NAMES[:2]), seen)
    assert steps == (Begin("shop/a", Stage.LEFT, why), Begin("shop/b", Stage.LEFT, why))


def test_who_cannot_go_back_is_not_shut_out_for_ever():
    update = with_stage(fresh(names=NAMES[:1]), "shop/a", Stage.FENCING_BACK, wall=2.0, why="bad")
    (step,) = next_steps(update, {"shop/a": Seen(hopeless="volume shop/a is gone", fenced=True)})
    assert step == Begin("shop/a", Stage.LEFT, "bad; it cannot go back: volume shop/a is gone")


def test_a_server_that_is_well_late_is_well_all_the_same():
    """After a start the checks come before the clock."""
    update = with_stage(fresh(names=NAMES[:1]), "shop/a", Stage.ON_TRIAL, wall=2.0)
    seen = Seen(up=True, well=True, lasted_seconds=99.0, within_seconds=5.0)
    assert next_steps(update, {"shop/a": seen}) == (Begin("shop/a", Stage.UPDATED),)


def test_who_does_not_come_up_on_the_old_disk_either_holds_nobody_up():
    update = with_stage(fresh(names=NAMES[:1]), "shop/a", Stage.COMING_BACK, wall=2.0, why="bad")
    (step,) = next_steps(update, {"shop/a": Seen(lasted_seconds=9.0, within_seconds=8.0)})
    assert step == Begin("shop/a", Stage.WENT_BACK, "bad; and it is not up yet")


@pytest.mark.parametrize("stage", Stage)
def test_only_a_server_between_its_disks_is_shut_out_and_only_one_on_trial_is_tried(stage):
    update = with_stage(fresh(), "shop/a", stage, wall=2.0)
    assert is_shut_out("shop/a", [update]) == (stage in (Stage.FENCING, Stage.FENCING_BACK))
    assert is_on_trial("shop/a", [update]) == (stage is Stage.ON_TRIAL)
    over = msgspec.structs.replace(update, ended_at=3.0)
    assert not is_shut_out("shop/a", [over])
    assert not is_shut_out("shop/b", [update])


def test_a_disk_that_takes_long_is_waited_for_and_one_that_cannot_be_made_is_not():
    update = update_of(Turn("shop/a", Stage.MAKING, "shop/a", "shop/a-disk-2"))
    making = Seen(image="web@1", lasted_seconds=3600.0, within_seconds=180.0)
    assert next_steps(update, {"shop/a": making}) == ()
    stop, discard = next_steps(update, {"shop/a": msgspec.structs.replace(making, trouble="no space")})
    assert (stop, discard) == (Stop("shop/a keeps its disk: no space"), Discard("shop/a", "no space"))


def test_the_story_says_who_has_what_and_how_to_go_on():
    update = update_of(
        Turn("shop/a", Stage.UPDATED, "shop/a", "shop/a-disk-2"),
        Turn("shop/b", Stage.WENT_BACK, "shop/b", "shop/b-disk-2", why="bad"),
        Turn("shop/c", Stage.LEFT),
        stopped="shop/b is not well with web@2: bad",
        ended_at=9.0,
    )
    assert story(update) == (
        "stopped: shop/b is not well with web@2: bad; 1 of 3 servers have web@2; shop/b went back to shop/b; "
        "1 left as they are; go on: panloom image update web@2"
    )
