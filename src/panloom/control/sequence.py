"""Numbers that are never given twice: each is raised and durable before anybody uses it.

    /record/mac-counter/SERIAL    the last counter of virtual MACs that the control node of that serial gave, in decimal
    /record/vni-counter           the last VNI

A crash between the two leaves a gap, never a repetition.
"""

from collections.abc import Callable
from typing import TypeVar

from panloom.errors import ConflictError
from panloom.state.contract import ABSENT, Store
from panloom.values import Vni

VNIS = "/record/vni-counter"
Made = TypeVar("Made")


async def next_of(store: Store, key: str, make: Callable[[int], Made]) -> Made:
    """Return what ``make`` makes of the next number of a sequence, counted from 1; several may ask at once.

    A ValueError of ``make``, as at the sequence's end, goes to the caller and uses no number up.
    """
    while True:
        entry = await store.get(key)
        number = (int(entry.value) if entry else 0) + 1
        made = make(number)
        try:
            await store.commit(expect={key: entry.revision if entry else ABSENT}, put={key: str(number).encode()})
        except ConflictError:
            continue
        return made


async def next_vni(store: Store) -> Vni:
    """Return a VNI that nobody has had; ValueError when all 2^24-1 were given."""
    return await next_of(store, VNIS, Vni)
