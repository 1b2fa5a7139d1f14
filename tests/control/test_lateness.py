"""Who is late is said once as an event, and in the server's row for as long as it lasts."""

import asyncio
import time

import msgspec

from panloom.control.events import EventLog
from panloom.control.lateness import Lateness
from panloom.decide.records import Phase
from panloom.decide.server_plan import ServerView
from support.dict_store import DictStore
from support.world import UP, world_of

SERVER = "shop/web1"
MOVING = msgspec.structs.replace(UP, phase=Phase.WAITING, node=None, moving_since=time.time() - 3600.0)


def test_a_move_that_takes_longer_than_it_may_is_told_of_once_and_shown_until_it_ends():
    async def scenario():
        store, events = DictStore(), EventLog(DictStore())
        lateness = Lateness(events)
        lateness.see_moves(await world_of(store, msgspec.structs.replace(MOVING, moving_since=time.time())))
        assert lateness.of(SERVER) is None
        for _ in range(3):
            lateness.see_moves(await world_of(store, MOVING))
        assert lateness.of(SERVER).startswith("moves for 36")
        assert lateness.of(SERVER).endswith(" s now, longer than its failover.within, 10 s")
        lateness.see_moves(await world_of(store, UP))
        assert lateness.of(SERVER) is None
        lateness.see_moves(await world_of(store, msgspec.structs.replace(MOVING, moving_since=10.0)))
        assert [(event.kind, event.server) for event in await events.after(0)] == [("late", SERVER)] * 2

    asyncio.run(scenario())


def test_a_boot_that_comes_no_further_is_shown_and_is_no_event():
    async def scenario():
        events = EventLog(DictStore())
        lateness = Lateness(events)
        booting = msgspec.structs.replace(UP, phase=Phase.BOOTING)
        lateness.see_boot(ServerView(name=SERVER, wanted=True, record=booting, stage="script", stalled_seconds=60.0))
        assert lateness.of(SERVER) == "boots: no new stage for 60 s after script; 0 of 3 resets made"
        lateness.see_boot(ServerView(name=SERVER, wanted=True, record=UP))
        assert (lateness.of(SERVER), list(await events.after(0))) == (None, [])

    asyncio.run(scenario())
