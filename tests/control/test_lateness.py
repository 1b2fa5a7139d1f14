"""Who is late is said once as an event, and in the server's row for as long as it lasts."""

import asyncio
import re
import time

import msgspec

from panloom.control.events import EventLog
from panloom.control.lateness import Lateness
from panloom.decide.records import Phase
from panloom.decide.server_plan import ServerView
from support.dict_store import DictStore
from support.world import UP, world_of

SERVER = "shop/web1"
WAITING = msgspec.structs.replace(UP, phase=Phase.WAITING, node=None)


def moving(seconds):
    return msgspec.structs.replace(WAITING, moving_since=time.time() - seconds)


def test_a_move_that_takes_longer_than_it_may_is_told_of_once_and_shown_until_it_ends():
    async def scenario():
        store, events = DictStore(), EventLog(DictStore())
        lateness = Lateness(events)
        lateness.see_moves(await world_of(store, moving(0)))
        assert lateness.of(SERVER) is None
        late = moving(3600)
        for _ in range(3):
            lateness.see_moves(await world_of(store, late))
        assert re.fullmatch(r"moves for 36\d\d s now, longer than its failover.within, 10 s", lateness.of(SERVER))
        lateness.see_moves(await world_of(store, UP))
        assert lateness.of(SERVER) is None
        lateness.see_moves(await world_of(store, moving(7200)))
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
