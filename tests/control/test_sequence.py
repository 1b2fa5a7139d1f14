"""VNIs: no two alike, whoever asks, and none twice.  The sequence itself is tested as that of virtual MACs."""

import asyncio

import pytest

from panloom.control.sequence import VNIS, next_vni
from panloom.values import LAST_VNI, Vni
from support.dict_store import DictStore


def test_many_who_ask_at_once_get_different_vnis_without_a_gap():
    async def main():
        store = DictStore()
        given = await asyncio.gather(*(next_vni(store) for _ in range(100)))
        assert {vni.number for vni in given} == set(range(1, 101))

    asyncio.run(main())


def test_after_the_last_vni_there_is_none():
    async def main():
        store = DictStore()
        await store.commit(put={VNIS: str(LAST_VNI - 1).encode()})
        assert await next_vni(store) == Vni(LAST_VNI)
        for _ in range(2):
            with pytest.raises(ValueError, match=f"1 … {LAST_VNI}"):
                await next_vni(store)

    asyncio.run(main())
