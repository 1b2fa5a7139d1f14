"""Why a machine's boot does not come up: from what was seen of it to the likely cause, and to what mends that.

    stages and their times ─┐
    what was seen of it:    │        1  the first row of ``boot_signs.SIGNS`` that something seen fits
      the control node's    ├──▶        after the last stage that was reached
      own state, events,    │        2  no row: the last stage itself, once the next one is late
      console lines         │
    power, server           ┘  ──▶  Judgement(state, cause, mend, seen)

A sign counts only when it was seen after the last stage: what was overcome stopped nothing.  A machine that begins
again and again has passed its stages each time, so there what was seen last counts.
"""

from collections.abc import Sequence
from enum import Enum

import msgspec

from panloom.decide.boot_signs import LATE, SIGNS, Seen, Sign
from panloom.decide.records import STAGES

SLACK_SECONDS = 1.0
"""By how much console, events and stages may disagree about when something was."""
ROUND_SECONDS = 60.0
"""How far back a machine that begins again and again is looked at; an event is told again only after a minute."""


class BootState(Enum):
    """How a machine's last boot stands."""

    UP = "up"
    BOOTING = "booting"
    WAITING = "waiting"  # it carries no server and was told to wait for one
    STOPPED = "stopped"
    OFF = "off"


class BootFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One machine's last boot as it was seen; all times are seconds since it began, ``now`` as well.

    ``server``: what the machine carries now.  ``tries``: how often it began again by itself before this.  ``given_up``:
    it is quarantined, and what came after, its power going off, was our own doing.  ``seen`` is in order of time.
    """

    node: str
    stages: Sequence[tuple[str, float]]
    now: float
    server: str | None = None
    tries: int = 0
    power: bool | None = None
    given_up: bool = False
    seen: Sequence[Seen] = ()


class Judgement(msgspec.Struct, frozen=True):
    """How a boot stands; if it has stopped, the likely cause, the mend, and what of the things seen shows it."""

    state: BootState
    cause: str = ""
    mend: str = ""
    seen: Seen | None = None


def judge(facts: BootFacts) -> Judgement:
    """Return how the boot stands and, where it has stopped, why that is likely so."""
    stage, at = max(facts.stages, key=_position, default=("", 0.0))
    if facts.power is False and not facts.given_up:
        if facts.server is None or stage == STAGES[-1]:
            return Judgement(BootState.OFF)
        mend = f"find out who or what did that; then: panloom node power on {facts.node}"
        return Judgement(BootState.STOPPED, "it went off, or was switched off, while it booted", mend)
    for sign in SIGNS:
        if stage in sign.stages and (fits := _newest(sign, facts, since=_since(facts, at))) is not None:
            return fits
    if stage == STAGES[-1]:
        return Judgement(BootState.UP)
    if facts.server is None and not facts.given_up and stage not in ("", "power"):
        return Judgement(BootState.WAITING)
    late = LATE[stage] if stage in LATE else LATE[""]
    if facts.given_up or facts.now - at > late.seconds:
        return Judgement(BootState.STOPPED, late.cause, late.mend.format(node=facts.node))
    return Judgement(BootState.BOOTING)


def next_stage(stages: Sequence[tuple[str, float]]) -> str | None:
    """Return the stage that a boot has yet to reach first, None if it has come up."""
    position = max((_position(reached) for reached in stages), default=-1)
    return STAGES[position + 1] if position + 1 < len(STAGES) else None


def _position(reached: tuple[str, float]) -> int:
    return STAGES.index(reached[0]) if reached[0] in STAGES else -1


def _since(facts: BootFacts, last_stage_at: float) -> float:
    if not facts.tries:
        return last_stage_at - SLACK_SECONDS
    return max([last_stage_at, *(seen.seconds for seen in facts.seen)]) - ROUND_SECONDS


def _newest(sign: Sign, facts: BootFacts, *, since: float) -> Judgement | None:
    for seen in reversed(facts.seen):
        if seen.source is not sign.source or seen.seconds < since:
            continue
        found = sign.pattern.search(seen.text)
        if found:
            words = {"node": facts.node, **{name: (text or "").strip() for name, text in found.groupdict().items()}}
            return Judgement(BootState.STOPPED, sign.cause.format(**words), sign.mend.format(**words), seen)
    return None
