"""Leases and the wall clock, which somebody sets."""

import asyncio
import time
from contextlib import aclosing

import pytest

from panloom.state.sqlite import SqliteStore

YEARS = 10 * 365 * 86400


@pytest.mark.parametrize("jump", [3600, -3600, YEARS, -YEARS])
def test_a_lease_runs_by_no_clock_that_can_be_set(tmp_path, monkeypatch, jump):
    real = time.time

    async def live():
        store = await SqliteStore.open(tmp_path / "state.sqlite")
        try:
            lease, short = await store.grant(3600), await store.grant(0.2)
            await store.commit(expect={}, put={"/long": b""}, lease=lease)
            shown = await store.commit(expect={}, put={"/short": b""}, lease=short)
            monkeypatch.setattr(time, "time", lambda: real() + jump)
            async with aclosing(store.watch("/short", after=shown)) as changes:
                gone = await anext(changes)
            assert gone.value is None
            assert await store.get("/long")
        finally:
            await store.close()

    asyncio.run(asyncio.wait_for(live(), 20))
