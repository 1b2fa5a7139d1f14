"""Wait for a fact, with a deadline; never for a while."""

import time
from collections.abc import Callable
from typing import TypeVar

Fact = TypeVar("Fact")


def until(fact: Callable[[], Fact | None], what: str, *, seconds: float = 10.0) -> Fact:
    """Return the first true value of ``fact()``; AssertionError naming ``what`` after ``seconds``."""
    end = time.monotonic() + seconds
    while True:
        value = fact()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)
