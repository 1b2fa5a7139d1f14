"""What to do next for one server: its document and record on one side, what is observed on the other.

``next_act`` looks at one ``ServerView`` and names one act, or nothing.  The reconciler carries it out, looks again
and asks again, until there is nothing to do.  A start, a crash half-way, an edited document and a fail-over are the
same loop:

    WAITING   make its volume · (placement, over all servers together, is ``placement.place``)
    BOOTING   admit the node to disk and port · power on · reset when no stage is reached for too long · give up
    UP        keep disk and port admitted · fence when the node is dead, its document changed, or it is not wanted
    FENCING   the next step of the fence · finish
    GONE      revive when it is wanted again
"""

import msgspec

from panloom.decide import failover
from panloom.decide.records import Phase, ServerRecord, Step

OFF_PART = 8
"""One that goes off while booting is reset at once, then an eighth of its time later, then two eighths, and so on."""


class ServerView(msgspec.Struct, frozen=True, kw_only=True):
    """One server as it should be and as it is.

    ``volume_doomed``: one of its name is being destroyed.  ``admitted``: the storage process grants exactly this epoch,
    node and personality.  ``port_open``: the kernel lets exactly its addresses pass.  ``power``: None when unknown.
    ``stage``: the furthest that the boot has reached since the node was placed or reset; ``stalled_seconds``: for how
    long it has come no further.  ``to_fence``: why its node is to be shut out though nothing is amiss.  ``on_trial``:
    its disk is new, and more likely at fault than a node.
    """

    name: str
    wanted: bool
    record: ServerRecord
    volume_ready: bool = False
    volume_prepared: bool = True
    volume_doomed: bool = False
    image_ready: bool = True
    admitted: bool = False
    port_open: bool = False
    has_power: bool = True
    power: bool | None = None
    alive: bool = False
    dead: str | None = None
    enabled: bool = True
    personality: str = ""
    stage: str | None = None
    stalled_seconds: float = 0.0
    to_fence: str | None = None
    on_trial: bool = False
    boot_timeout_seconds: float = 90.0
    max_boot_attempts: int = 3


class MakeVolume(msgspec.Struct, frozen=True):
    """Clone the server's disk from its image, or go on where that was cut off."""


class Admit(msgspec.Struct, frozen=True):
    """Grant disk and personality to the node under the record's epoch."""


class OpenPort(msgspec.Struct, frozen=True):
    """Let the server's addresses pass at the node's port."""


class PowerOn(msgspec.Struct, frozen=True):
    """Switch the node on."""


class Reset(msgspec.Struct, frozen=True):
    """Start the node's firmware again; ``attempt`` counts from 1."""

    attempt: int
    why: str


class Quarantine(msgspec.Struct, frozen=True):
    """Take the node out of use until a person releases it, and fence it."""

    why: str


class FailTrial(msgspec.Struct, frozen=True):
    """It does not come up with its new disk: it is to have its old one back."""

    why: str


class MarkUp(msgspec.Struct, frozen=True):
    """The server has shown a sign of life."""


class BeginFence(msgspec.Struct, frozen=True):
    """Raise the epoch and shut the node out; ``restart``: the node is not at fault."""

    cause: str
    restart: bool = False


class FenceStep(msgspec.Struct, frozen=True):
    """Carry out one step of the fence."""

    step: Step


class Finish(msgspec.Struct, frozen=True):
    """The fence is complete: the server waits for a node."""


class Forget(msgspec.Struct, frozen=True):
    """The server is not wanted and holds no node: take its exports away, leave its volume and its record."""


class Revive(msgspec.Struct, frozen=True):
    """The server is wanted again: its record goes on from the epoch it had."""


Act = (
    MakeVolume
    | Admit
    | OpenPort
    | PowerOn
    | Reset
    | Quarantine
    | FailTrial
    | MarkUp
    | BeginFence
    | FenceStep
    | Finish
    | Forget
    | Revive
)


def next_act(view: ServerView) -> Act | None:
    """Return the one thing to do now for this server, None when it is as it should be or must wait for something."""
    match view.record.phase:
        case Phase.WAITING:
            if not view.wanted:
                return Forget()
            if view.volume_ready:
                return None if view.volume_prepared else MakeVolume()
            return MakeVolume() if view.image_ready and not view.volume_doomed else None
        case Phase.BOOTING:
            return _booting(view)
        case Phase.UP:
            return _up(view)
        case Phase.FENCING:
            return fence_act(view.record)
        case Phase.GONE:
            return Revive() if view.wanted else None


def fence_act(record: ServerRecord) -> FenceStep | Finish:
    """Return what to do next for a server that is being fenced: its record alone says it, whatever is observed."""
    step = failover.next_step(record.fence) if record.fence else None
    return FenceStep(step) if step else Finish()


def _booting(view: ServerView) -> Act | None:
    if not view.wanted:
        return BeginFence("the server is deleted", restart=True)
    if view.personality != view.record.personality:
        return BeginFence("its document changed", restart=True)
    if view.to_fence:
        return BeginFence(view.to_fence, restart=True)
    if not view.admitted:
        return Admit()
    if not view.port_open:
        return OpenPort()
    if view.alive:
        return MarkUp()
    is_off = view.has_power and view.power is False
    if is_off and view.record.started:
        is_early = view.stalled_seconds < view.record.boot_attempts * view.boot_timeout_seconds / OFF_PART
        return None if is_early else _boot_failed(view, "it went off while booting")
    if view.stalled_seconds > _patience(view):  # one that cannot be switched on included
        return _boot_failed(view, _stalled(view))
    return PowerOn() if is_off else None


def _patience(view: ServerView) -> float:
    """Return for how many seconds a boot may come no further.

    Each attempt gets more time than the one before: a slow machine is not a broken one.  One that only a person can
    reset has the time of all attempts at once.
    """
    attempts = (view.record.boot_attempts,) if view.has_power else range(view.max_boot_attempts + 1)
    return sum(view.boot_timeout_seconds * (1 + 0.5 * attempt) for attempt in attempts)


def _stalled(view: ServerView) -> str:
    return f"no new stage for {view.stalled_seconds:.0f} s" + (f" after {view.stage}" if view.stage else "")


def why_slow(view: ServerView) -> str | None:
    """Return why a server that boots may be late, None while it gets on as it should."""
    attempts = view.record.boot_attempts
    if view.record.phase is not Phase.BOOTING or (not attempts and view.stalled_seconds < _patience(view) / 2):
        return None
    made = f"{attempts} of {view.max_boot_attempts} resets made" if view.has_power else "switch it off and on by hand"
    return f"boots: {_stalled(view)}; {made}"


def _boot_failed(view: ServerView, why: str) -> Act:
    attempts = view.record.boot_attempts
    if view.has_power and attempts < view.max_boot_attempts:
        return Reset(attempts + 1, why)
    tried = f"after {attempts} resets" if view.has_power else "and it has no power driver to reset it by"
    if view.on_trial:
        return FailTrial(f"{why}, {tried}")
    return Quarantine(f"it did not boot {view.name}: {why}, {tried}")


def _up(view: ServerView) -> Act | None:
    if not view.wanted:
        return BeginFence("the server is deleted", restart=True)
    if view.dead is not None and view.enabled:
        return BeginFence(view.dead)
    if view.personality != view.record.personality:
        return BeginFence("its document changed", restart=True)
    if view.to_fence:
        return BeginFence(view.to_fence, restart=True)
    if not view.admitted:
        return Admit()
    return None if view.port_open else OpenPort()
