"""Giving the servers of an image new disks of another version, a few at a time, with a way back for each.

    WAITING ─▶ MAKING ─▶ FENCING ─▶ ON TRIAL ─▶ UPDATED
       │          │         │           └─ not well in time ─▶ FENCING BACK ─▶ COMING BACK ─▶ WENT BACK
       └──────────┴─────────┴─ the server is deleted, or the update stopped before ─▶ LEFT

A server's disk is a clone, so a new version is a new clone: ``MAKING`` makes it while the server goes on, ``FENCING``
shuts the node out, and only then one commit puts the new disk in the place of the old.  The old one stays as it is,
with all that was ever acknowledged, and nobody writes to it again unless the server goes back to it.  So does the new
one of a server that went back: what was written there while it was up is still there.

Each stage is durable before what follows from it is done, and may be done twice; ``next_steps`` is asked again after
every commit and every start.  Whoever asks counts how long a stage has lasted while he was awake, so that a control
process that was killed or paused costs no server its trial.
"""

from collections.abc import Iterable, Mapping
from enum import Enum

import msgspec


class Stage(Enum):
    """Where a server's turn stands; see the picture above."""

    WAITING = "waiting"
    MAKING = "making its new disk"
    FENCING = "fencing"
    ON_TRIAL = "on trial"
    UPDATED = "updated"
    FENCING_BACK = "fencing, to go back"
    COMING_BACK = "coming back"
    WENT_BACK = "went back"
    LEFT = "left as it is"


UNDER_WAY = frozenset((Stage.MAKING, Stage.FENCING, Stage.ON_TRIAL, Stage.FENCING_BACK, Stage.COMING_BACK))
ENDED = frozenset((Stage.UPDATED, Stage.WENT_BACK, Stage.LEFT))
SHUT_OUT = frozenset((Stage.FENCING, Stage.FENCING_BACK))
"""While it is in one of these, a server's node is to be fenced and no other to be given to it."""


class Turn(msgspec.Struct, frozen=True, omit_defaults=True):
    """One server's part; volumes by their labels.  ``written``: the image as its document said before."""

    server: str
    stage: Stage = Stage.WAITING
    old: str = ""
    new: str = ""
    written: str = ""
    since: float = 0.0  # wall clock, seconds
    why: str = ""


class ImageUpdate(msgspec.Struct, frozen=True, omit_defaults=True):
    """An update of an image's servers to ``version``, ``width`` at a time.

    ``asked`` is how the version was named; ``stopped`` says why no further server begins, and nothing while they do.
    """

    image: str
    asked: str
    version: str
    width: int
    who: str
    at: float  # wall clock, seconds
    turns: tuple[Turn, ...]
    stopped: str = ""
    ended_at: float | None = None

    def turn(self, server: str) -> Turn | None:
        """Return a server's part, None if it has none."""
        return next((turn for turn in self.turns if turn.server == server), None)


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen of a server now.

    ``image``: what its disk is a clone of.  ``ready``: its new disk is made.  ``fenced``: no node is its own.
    ``well``: it is up, has been long enough, and its checks pass; else ``trouble`` says what is amiss.  ``hopeless``:
    why it can never have the disk that it is to have next.  ``lasted_seconds``: how long we have seen it in this stage.
    """

    wanted: bool = True
    image: str = ""
    ready: bool = False
    fenced: bool = False
    up: bool = False
    well: bool = False
    trouble: str = ""
    hopeless: str = ""
    lasted_seconds: float = 0.0
    within_seconds: float = 180.0


class Prepare(msgspec.Struct, frozen=True):
    """Want a new disk beside the server's own: ``MAKING``."""

    server: str


class Begin(msgspec.Struct, frozen=True):
    """Note a stage that the reconciler then brings about, or that is an end."""

    server: str
    stage: Stage
    why: str = ""


class Discard(msgspec.Struct, frozen=True):
    """Destroy the new disk, which nobody ever had, and leave the server as it is."""

    server: str
    why: str


class Swap(msgspec.Struct, frozen=True):
    """Put the new disk in the place of the old: ``ON_TRIAL``."""

    server: str


class SwapBack(msgspec.Struct, frozen=True):
    """Put the old disk back: ``COMING_BACK``."""

    server: str


class Stop(msgspec.Struct, frozen=True):
    """Begin no further server, and say why."""

    why: str


class End(msgspec.Struct, frozen=True):
    """Every server's turn has come to its end."""


Step = Prepare | Begin | Discard | Swap | SwapBack | Stop | End


def next_steps(update: ImageUpdate, seen: Mapping[str, Seen]) -> tuple[Step, ...]:
    """Return what to do now; each step is a commit of its own, and after the first that fails one asks again."""
    if update.ended_at is not None:
        return ()
    steps: list[Step] = []
    room = update.width - sum(turn.stage in UNDER_WAY for turn in update.turns)
    for turn in update.turns:
        found = seen.get(turn.server, Seen(wanted=False))
        if turn.stage is not Stage.WAITING:
            steps += _steps(turn, found, update)
        elif why := _why_left(found, update):
            steps.append(Begin(turn.server, Stage.LEFT, why))
        elif room > 0:
            room -= 1
            steps.append(Prepare(turn.server))
    if not steps and all(turn.stage in ENDED for turn in update.turns):
        return (End(),)
    stop = next((step for step in steps if isinstance(step, Stop)), None)
    if stop:  # in this very commit nobody begins any more
        return (stop, *(step for step in steps if not isinstance(step, Prepare | Stop)))
    return tuple(steps)


def _why_left(seen: Seen, update: ImageUpdate) -> str:
    if not seen.wanted:
        return "it is deleted"
    if seen.image == update.version:
        return f"its disk is a clone of {update.version}"
    if seen.image.partition("@")[0] != update.image:
        return f"its disk is no clone of {update.image} any more"
    return "the update stopped before its turn" if update.stopped else ""


def _steps(turn: Turn, seen: Seen, update: ImageUpdate) -> Iterable[Step]:
    """Yield what to do for a server whose turn has begun; a ``Stop`` comes before what follows from it."""
    late = seen.lasted_seconds > seen.within_seconds
    match turn.stage:
        case Stage.MAKING if not seen.wanted or update.stopped:
            yield Discard(turn.server, "the update stopped before its turn" if seen.wanted else "it is deleted")
        case Stage.MAKING if seen.ready:
            yield Begin(turn.server, Stage.FENCING)
        case Stage.MAKING if seen.hopeless or (late and seen.trouble):  # a thick disk may take long, and does no harm
            why = seen.hopeless or seen.trouble
            yield Stop(f"{turn.server} keeps its disk: {why}")
            yield Discard(turn.server, why)
        case Stage.FENCING if not seen.wanted or update.stopped:
            yield Discard(turn.server, "the update stopped before its turn" if seen.wanted else "it is deleted")
        case Stage.FENCING if seen.hopeless:
            yield Stop(f"{turn.server} keeps its disk: {seen.hopeless}")
            yield Discard(turn.server, seen.hopeless)
        case Stage.FENCING if seen.fenced:
            yield Swap(turn.server)
        case Stage.ON_TRIAL | Stage.FENCING_BACK | Stage.COMING_BACK if not seen.wanted:
            yield Begin(turn.server, Stage.LEFT, f"it is deleted; its disks {turn.old} and {turn.new} stay")
        case Stage.ON_TRIAL if seen.well:
            yield Begin(turn.server, Stage.UPDATED)
        case Stage.ON_TRIAL if late:
            why = f"{seen.trouble or 'it is not up'}, {seen.within_seconds:g} s after it got its new disk"
            yield Stop(_not_well(turn.server, update, why))
            yield Begin(turn.server, Stage.FENCING_BACK, why)
        case Stage.FENCING_BACK if seen.hopeless:
            yield Begin(turn.server, Stage.LEFT, f"{turn.why}; it cannot go back: {seen.hopeless}")
        case Stage.FENCING_BACK if seen.fenced:
            yield SwapBack(turn.server)
        case Stage.COMING_BACK if seen.up or late:
            yield Begin(turn.server, Stage.WENT_BACK, turn.why if seen.up else f"{turn.why}; and it is not up yet")


def _not_well(server: str, update: ImageUpdate, why: str) -> str:
    return f"{server} is not well with {update.version}: {why}"


def failed(update: ImageUpdate, server: str, why: str, *, wall: float) -> ImageUpdate:
    """Return the update when a server on trial cannot become well any more: it goes back, and nobody else begins."""
    stopped = msgspec.structs.replace(update, stopped=update.stopped or _not_well(server, update, why))
    return with_stage(stopped, server, Stage.FENCING_BACK, wall=wall, why=why)


def with_stage(update: ImageUpdate, server: str, stage: Stage, *, wall: float, **facts: str) -> ImageUpdate:
    """Return the update with a server's turn in another stage, and other facts of it."""
    turns = [
        msgspec.structs.replace(turn, stage=stage, since=wall, **facts) if turn.server == server else turn
        for turn in update.turns
    ]
    return msgspec.structs.replace(update, turns=tuple(turns))


def story(update: ImageUpdate) -> str:
    """Return in one line how an update stands: what came of it, who has what, and how to go on."""
    names = {stage: [turn.server for turn in update.turns if turn.stage is stage] for stage in Stage}
    updated, total = names[Stage.UPDATED], len(update.turns)
    told = f"{len(updated)} of {total} servers have {update.version}"
    back = [f"{turn.server} went back to {turn.old}" for turn in update.turns if turn.stage is Stage.WENT_BACK]
    left = len(names[Stage.LEFT])
    more = [*back, *([f"{left} left as they are"] if left else [])]
    how = f"; go on: panloom image update {update.asked}" if update.ended_at and update.stopped else ""
    return "; ".join([*([f"stopped: {update.stopped}"] if update.stopped else []), told, *more]) + how


def is_shut_out(server: str, updates: Iterable[ImageUpdate]) -> bool:
    """Whether a server's node is to be fenced, and no other to be given to it, for an update."""
    return _has_stage(server, updates, SHUT_OUT)


def shut_out_for(server: str, updates: Iterable[ImageUpdate]) -> str | None:
    """Return why a server's node is to be fenced for an update, None if it is not."""
    update = next((update for update in updates if is_shut_out(server, [update])), None)
    return f"its image is updated to {update.version}" if update else None


def is_on_trial(server: str, updates: Iterable[ImageUpdate]) -> bool:
    """Whether it is a server's new disk that is tried, so that no node is to blame if it does not come up."""
    return _has_stage(server, updates, frozenset((Stage.ON_TRIAL,)))


def stage_of(server: str, updates: Iterable[ImageUpdate]) -> str | None:
    """Return in words how far the update of a server's image is with it, None while none is under way."""
    turns = ((update, update.turn(server)) for update in updates if update.ended_at is None)
    return next((f"{turn.stage.value}, to {update.version}" for update, turn in turns if turn is not None), None)


def _has_stage(server: str, updates: Iterable[ImageUpdate], stages: frozenset[Stage]) -> bool:
    turns = (update.turn(server) for update in updates if update.ended_at is None)
    return any(turn.stage in stages for turn in turns if turn is not None)
