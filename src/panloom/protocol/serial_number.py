"""Sequence numbers of 32 bits that wrap: CmdSN, StatSN (RFC 7143 section 4.2.2.1, RFC 1982)."""

_MASK = 0xFFFFFFFF
_HALF = 0x80000000


def after(number: int, steps: int = 1) -> int:
    """Return the number so many steps on."""
    return number + steps & _MASK


def ahead(number: int, of: int) -> int:
    """Return how many steps one number is ahead of another, -2^31 … 2^31-1: negative when it is behind."""
    return ((number - of + _HALF) & _MASK) - _HALF
