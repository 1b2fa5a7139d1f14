"""A node's last boot as ``panloom show node`` prints it.

boot of shop/web1, epoch 1, 2026-11-21 16:26:22: stopped after DHCP
     0.0 s  power on
     1.6 s  DHCP
         -  script
  seen     7.6 s, console: Could not open SAN device: Operation not permitted
  likely   it proved a secret that is not, or no longer, its own
  mend     let it fetch a new script: panloom node power reset n1
"""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from panloom.command.columns import at_clock

_STAGES = {"power": "power on", "dhcp": "DHCP"}
_WORD_COLUMNS = len("likely") + 3


def timeline(boot: Mapping[str, Any], *, columns: int) -> Iterator[str]:
    """Return the lines that tell of a boot, none wider than ``columns`` unless a word is."""
    yield from _wrapped(f"boot {_whose(boot)}{at_clock(boot['at'])}: {_state(boot)}", "     ", columns)
    for stage, seconds in boot["stages"]:
        yield f"  {seconds:8.1f} s  {_name(stage)}"
    waits_for = boot.get("waits_for")
    if waits_for:
        yield f"  {boot['seconds']:8.1f} s  … waits for {_name(waits_for)}"
    seen = boot.get("seen")
    if seen:
        yield from _told("seen", f"{seen['seconds']:.1f} s, {seen['source']}: {seen['text']}", columns)
    for word in ("likely", "mend"):
        if boot.get(word):
            yield from _told(word, boot[word], columns)


def _whose(boot: Mapping[str, Any]) -> str:
    return f"of {boot['server']}, epoch {boot['epoch']}, " if boot.get("server") else ""


def _state(boot: Mapping[str, Any]) -> str:
    last, seconds = boot["stages"][-1] if boot["stages"] else ("power", 0.0)
    tries = boot.get("tries") or 0
    again = f", begun {tries + 1} times" if tries else ""
    match boot.get("state"):
        case "up":
            return f"up after {seconds:.1f} s{again}"
        case "stopped":
            return f"stopped after {_name(last)}{again}"
        case "waiting":
            return "waits for a server"
        case "off":
            return f"over, it is off; it had reached {_name(last)}"
    return f"under way{again}"


def _name(stage: str) -> str:
    return _STAGES.get(stage, stage)


def _told(word: str, text: str, columns: int) -> Iterator[str]:
    yield from _wrapped(f"  {word:<{_WORD_COLUMNS}}{text}", " " * (_WORD_COLUMNS + 2), columns)


def _wrapped(text: str, indent: str, columns: int) -> list[str]:
    return textwrap.wrap(
        text, max(columns, 40), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
