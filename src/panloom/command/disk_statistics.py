"""What a disk has done, as lines for a person."""

from collections.abc import Iterator, Mapping
from typing import Any

from panloom.command.columns import age, at_clock
from panloom.values import format_size


def statistics_lines(row: Mapping[str, Any], *, now: float) -> Iterator[tuple[str, str]]:
    """Return what each line is about and its text; ``now`` is the wall clock."""
    yield "operations", f"{row['operations']}, {format_size(row['octets'])}"
    yield "reads", f"{row['reads']}, {format_size(row['read_octets'])}{_latency(row, 'read')}"
    yield "writes", f"{row['writes']}, {format_size(row['written_octets'])}{_latency(row, 'write')}"
    yield "flushes", str(row["flushes"])
    yield "unmaps", f"{row['unmaps']}, {format_size(row['unmapped_octets'])}"
    yield "failed", str(row["failed"])
    yield "in progress", took(row["in_progress_seconds"])
    if row["since"] is not None:
        yield "counted since", f"{at_clock(row['since'])} ({age(now - row['since'])} ago)"


def limits_text(limits: Mapping[str, int]) -> str:
    """Return what a disk may do in a second, in words."""
    parts = [f"{limits['operations']} operations" if limits["operations"] else ""]
    parts.append(format_size(limits["octets"]) if limits["octets"] else "")
    told = " and ".join(filter(None, parts))
    return f"{told} a second" if told else "none"


def took(seconds: float) -> str:
    """Return ``131 µs``, ``2.5 ms`` or ``90 s``."""
    for length, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}" if seconds >= 100 * length else f"{seconds / length:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _latency(row: Mapping[str, Any], what: str) -> str:
    median, most = row[f"{what}_median_seconds"], row[f"{what}_p99_seconds"]
    return "" if median is None else f"; half took {took(median)} at most, 99 of 100 {took(most)}"
