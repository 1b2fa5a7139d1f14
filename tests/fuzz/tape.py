"""Octets read as a script of choices, so that a machine can be driven by any octets at all.

``Tape`` reads one, ``Script`` writes one by the same calls: a seed is written as the target reads it.
"""

from collections.abc import Sequence
from typing import TypeVar

Choice = TypeVar("Choice")


class Tape:
    """Reads; where the octets end there are only zeroes."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    @property
    def is_over(self) -> bool:
        """Whether everything has been read."""
        return self._at >= len(self._octets)

    def number(self, octets: int = 1) -> int:
        """Return an unsigned number."""
        return int.from_bytes(self.take(octets).ljust(octets, b"\0"), "big")

    def take(self, octets: int) -> bytes:
        """Return so many octets, fewer at the end."""
        taken = self._octets[self._at : self._at + octets]
        self._at += octets
        return taken

    def piece(self) -> bytes:
        """Return octets behind their own length."""
        return self.take(self.number(2))

    def rest(self) -> bytes:
        """Return what is left."""
        return self.take(len(self._octets))

    def pick(self, choices: Sequence[Choice]) -> Choice:
        """Return one of the choices."""
        return choices[self.number() % len(choices)]


class Script:
    """Writes what ``Tape`` reads."""

    def __init__(self) -> None:
        self.octets = b""

    def number(self, value: int, octets: int = 1) -> "Script":
        self.octets += value.to_bytes(octets, "big")
        return self

    def piece(self, octets: bytes) -> "Script":
        self.octets += len(octets).to_bytes(2, "big") + octets
        return self

    def pick(self, choices: Sequence[Choice], chosen: Choice) -> "Script":
        return self.number(choices.index(chosen))
