"""A load of 32 commands at a time that says what it writes: WRITE, FUA, UNMAP, SYNCHRONIZE CACHE and READ."""

import asyncio
from collections import Counter
from contextlib import suppress

from panloom.errors import UnavailableError
from panloom.initiator import CommandLostError, Session, Timing
from panloom.values import Iqn
from support.marked_blocks import BLOCK

DEPTH = 32
INITIATOR = Iqn("iqn.2026-11.dev.panloom:node.n1")
TIMING = Timing(login_seconds=10.0, reconnect_seconds=0.0)
CHANCES = {"write": 45, "fua": 25, "unmap": 20, "read": 7, "synchronize": 3}


async def open_session(portal, target, initiator=INITIATOR):
    """Log in once; a session that is cut off ends."""
    return await Session.open(portal, initiator=initiator, target=target, timing=TIMING)


class Load:
    """What 32 tasks do to the units of one session, each with its ``Ledger``; ``without`` some kinds of command."""

    def __init__(self, session, ledgers, chance, *, without=()):
        self._session = session
        self._ledgers = ledgers  # by LUN
        self._chance = chance
        self._chances = {what: share for what, share in CHANCES.items() if what not in without}
        self.done = Counter()

    async def run(self):
        """Go on until the session is over; every answer is in the ledgers then."""
        await asyncio.gather(*(self._work() for _ in range(DEPTH)))

    async def _work(self):
        with suppress(CommandLostError, UnavailableError):  # the session is over
            while True:
                await self._one()

    async def _one(self):
        lun = self._chance.choice([*self._ledgers])
        ledger = self._ledgers[lun]
        what = self._chance.choices([*self._chances], [*self._chances.values()])[0]
        blocks = self._chance.choice((1, 1, 2, 4, 8, 8, 16, 33))
        lba = self._chance.randrange(len(ledger.now) - blocks)
        if what == "synchronize":
            await self._session.flush(lun)
        elif ledger.is_busy(lba, blocks):
            await asyncio.sleep(0)
            return
        elif what == "read":
            ledger.reading(lba, blocks)
            ledger.check(await self._session.read(lun, lba * BLOCK, blocks * BLOCK), lba)
        elif what == "unmap":
            ledger.begin(lba, blocks, zeros=True)
            await self._session.unmap(lun, lba * BLOCK, blocks * BLOCK)
            ledger.done(lba, blocks)
        else:
            octets = ledger.begin(lba, blocks)
            await self._session.write(lun, lba * BLOCK, octets, fua=what == "fua")
            ledger.done(lba, blocks)
        self.done[what] += 1
