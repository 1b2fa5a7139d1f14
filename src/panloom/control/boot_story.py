"""A node's last boot as it is told: its stages, how it stands, and why it goes no further.

Boots ── stages ───────────────┐
Consoles ── what it said ──────┤
EventLog ── what it was refused├──▶ decide.boot_diagnosis.judge ──▶ the ``boot`` of a node's row
Edge, Observer ── our own state┘
"""

import time
from typing import Any

from panloom.control.boots import Boot
from panloom.control.consoles import Consoles
from panloom.control.edge import Edge
from panloom.control.events import EventLog
from panloom.control.observer import Observer
from panloom.decide.boot_diagnosis import ROUND_SECONDS, BootFacts, BootState, judge, next_stage
from panloom.decide.boot_signs import Seen, Source
from panloom.decide.records import NodeRecord

_KINDS = ("login refused", "refused", "declined", "no loader", "no file", "broken file", "file")


class BootStory:
    """Tells it from what the parts know now; it keeps nothing."""

    def __init__(self, observer: Observer, events: EventLog, consoles: Consoles, edge: Edge) -> None:
        self._observer = observer
        self._events = events
        self._consoles = consoles
        self._edge = edge

    def tell(self, node: str, record: NodeRecord) -> dict[str, Any] | None:
        """Return a node's last boot in JSON types, None if none was seen; times are seconds since it began."""
        boot = self._observer.boots.under_way(node)
        if boot is None:
            return None
        now = time.monotonic() - boot.began
        stages = [(stage, round(at - boot.began, 3)) for stage, at in boot.stages]
        seen = self._seen(node, boot, now)
        facts = BootFacts(
            node=node,
            stages=stages,
            now=now,
            server=record.server,
            tries=boot.tries,
            power=self._observer.power.get(node),
            given_up=record.quarantined is not None,
            seen=seen,
        )
        judgement = judge(facts)
        runs = judgement.state in (BootState.BOOTING, BootState.STOPPED)
        since = [one for one in seen if one.seconds >= 0.0 and one.source is not Source.CONTROL]
        said = [one for one in since if one.source is Source.CONSOLE] or since
        shown = judgement.seen or (said[-1] if runs and said else None)
        return {
            "at": boot.began_wall,
            "stages": stages,
            "server": boot.server,
            "epoch": boot.epoch,
            "tries": boot.tries,
            "state": judgement.state.value,
            "seconds": round(now, 1),
            "waits_for": next_stage(stages) if judgement.state is BootState.BOOTING else None,
            "seen": _row(shown) if shown else None,
            "likely": judgement.cause or None,
            "mend": judgement.mend or None,
        }

    def _seen(self, node: str, boot: Boot, now: float) -> list[Seen]:
        """Return all that was seen since the boot began, or since shortly before if it is one of many tries."""
        since = -ROUND_SECONDS if boot.tries else 0.0
        wall = time.time() - now  # when it began, by a clock that may have been set meanwhile
        seen = [
            Seen(Source.CONSOLE, line.at - boot.began, line.text)
            for line in self._consoles.said(node)
            if line.at - boot.began >= since
        ]
        seen += [
            Seen(Source.EVENT, event.at - wall, f"{event.kind}: {event.text}")
            for event in self._events.about(node, since=wall + since)
            if event.kind in _KINDS
        ]
        if self._edge.trouble:
            seen.append(Seen(Source.CONTROL, now, f"boot services: {self._edge.trouble}"))
        if not self._observer.has_storage:
            seen.append(Seen(Source.CONTROL, now, "storage: it does not answer"))
        return sorted(seen, key=lambda one: one.seconds)


def _row(seen: Seen) -> dict[str, Any]:
    return {"source": seen.source.value, "seconds": round(seen.seconds, 1), "text": seen.text}
