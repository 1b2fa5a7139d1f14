"""An alarm rings for the earliest deadline, and not for one that was taken back."""

import asyncio

from panloom.boot.alarm import Alarm

FAR_SECONDS = 3600.0


def test_a_nearer_deadline_takes_the_place_of_a_farther_one_and_none_is_none():
    async def story():
        loop, rung = asyncio.get_running_loop(), asyncio.Event()
        alarm, silent = Alarm(rung.set), Alarm(lambda: rung_wrongly.append(1))
        silent.put(loop.time())
        silent.put(None)
        alarm.put(loop.time() + FAR_SECONDS)
        alarm.put(loop.time())
        await asyncio.wait_for(rung.wait(), 30)
        silent.put(loop.time())
        silent.stop()
        rung.clear()
        alarm.put(loop.time())
        await asyncio.wait_for(rung.wait(), 30)

    rung_wrongly = []
    asyncio.run(story())
    assert rung_wrongly == []
