"""kill -9 at random instants under load, and after each what the disks hold.

    start ─▶ load, 32 commands at a time ─▶ SIGKILL ─▶ (start, SIGKILL) ─▶ start ─▶ every block is read ─▶ load …

What was answered is there, FUA or not, for the kernel lives on; what was not answered is there or not, each block
whole.  What a power cut leaves is another question: ``crash``.
"""

import asyncio
import random
from collections import Counter
from contextlib import suppress

from support.block_load import Load, open_session
from support.marked_blocks import BLOCK

LONGEST_SECONDS = 0.25  # of load before a kill
STUMBLES = 0.15  # share of the starts that are killed, too


class KillRounds:
    """Rounds with one target, which may go on after others have looked at what was counted."""

    def __init__(self, target, seed):
        self._target = target
        self._chance = random.Random(seed)
        self._ledgers = target.ledgers()
        self.kills = 0
        self.done = Counter()  # commands that were answered
        self.verified = 0  # blocks

    @property
    def violations(self):
        """Return all that was not as promised."""
        return [f"LUN {lun}: {each}" for lun, ledger in self._ledgers.items() for each in ledger.violations]

    @property
    def answered(self):
        """How many blocks were written and answered."""
        return sum(ledger.answered for ledger in self._ledgers.values())

    @property
    def unanswered(self):
        """How many blocks a kill left open."""
        return sum(ledger.unanswered for ledger in self._ledgers.values())

    def round(self):
        """Load the target, kill it, start it and read all of it."""
        asyncio.run(self._round())

    async def _round(self):
        session = await open_session(self._target.portal, self._target.target)
        load = Load(session, self._ledgers, self._chance, without=self._target.without)
        running = asyncio.create_task(load.run())
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(running), self._chance.uniform(0.005, LONGEST_SECONDS))
        await asyncio.to_thread(self._target.kill)
        await running
        await session.abort()
        self.kills += 1
        self.done += load.done
        if self._chance.random() < STUMBLES:
            await asyncio.to_thread(self._target.stumble, self._chance)
        await asyncio.to_thread(self._target.start)
        await self._verify()

    async def _verify(self):
        async with await open_session(self._target.portal, self._target.target) as session:
            for lun, ledger in self._ledgers.items():
                ledger.check(await session.read(lun, 0, len(ledger.now) * BLOCK))
                self.verified += len(ledger.now)
