"""Node sets: ``web[1-3]``, ``n[01-16,20]``, ``rack[1-2]n[1-4]`` for many names in one.

The same brackets in a value beside such a name go with it in step: the third name takes the third value::

    web[1-2]:
      nics: [{lan: front, address: 10.1.0.1[1-2]}]      web1 has 10.1.0.11, web2 has 10.1.0.12

Leading zeros are kept.  In a MAC address the bounds are hexadecimal: ``52:54:00:00:00:[0a-1f]``.
"""

import re
from itertools import product

MAX_MEMBERS = 4096
_PART = r"[0-9a-fA-F]+(?:-[0-9a-fA-F]+)?"
_SET = re.compile(rf"\[({_PART}(?:,{_PART})*)\]")


def is_set(text: str) -> bool:
    """Whether the text stands for several."""
    return _SET.search(text) is not None


def expand(text: str) -> tuple[str, ...]:
    """Return what the text stands for, in order; ``ValueError`` for a bound that is none or more than 4096 members."""
    pieces = _SET.split(text)
    base = 16 if ":" in text else 10
    columns = [_members(piece, base) if index % 2 else (piece,) for index, piece in enumerate(pieces)]
    count = 1
    for column in columns:
        count *= len(column)
    if count > MAX_MEMBERS:
        raise ValueError(f"{text} stands for {count}; at most {MAX_MEMBERS} at once")
    return tuple("".join(parts) for parts in product(*columns))


def _members(inner: str, base: int) -> tuple[str, ...]:
    found: list[str] = []
    for part in inner.split(","):
        first, _, last = part.partition("-")
        last = last or first
        try:
            low, high = _number(first, base), _number(last, base)
        except ValueError as error:
            raise ValueError(f"[{inner}]: {part} is no number or range like 1-4") from error
        if low > high:
            raise ValueError(f"[{inner}]: {part} runs backwards; write {last}-{first}")
        if high - low >= MAX_MEMBERS:
            raise ValueError(f"[{inner}]: {part} stands for {high - low + 1}; at most {MAX_MEMBERS} at once")
        width = len(first)
        form = f"0{width}x" if base == 16 else f"0{width}d"
        found.extend(format(number, form) for number in range(low, high + 1))
    return tuple(found)


def _number(text: str, base: int) -> int:
    if len(text) > 12:
        raise ValueError("too long")
    return int(text, base)
