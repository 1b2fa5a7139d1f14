"""A process that allocates virtual MACs and prints each.

mac_allocator.py PATH                        in two tasks at once, until it is killed
mac_allocator.py PATH --die-before-commit N  kills itself before the Nth commit
mac_allocator.py PATH --die-before-use N     kills itself when the Nth commit is durable, before anybody hears of it
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from panloom.control.mac_counter import MacCounter
from panloom.state.sqlite import SqliteStore


class MortalStore:
    """A store whose process dies at the chosen moment."""

    def __init__(self, store, moment, commits):
        self.store = store
        self.moment = moment
        self.left = commits
        self.get = store.get

    async def commit(self, **arguments):
        self.left -= 1
        if self.left == 0 and self.moment == "--die-before-commit":
            os.kill(os.getpid(), signal.SIGKILL)
        revision = await self.store.commit(**arguments)
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return revision


async def allocate(counter):
    while True:
        print(await counter.allocate(0x504C), flush=True)


async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    match sys.argv[2:]:
        case [moment, commits]:
            await allocate(MacCounter(MortalStore(store, moment, int(commits))))
        case _:
            counter = MacCounter(store)
            await asyncio.gather(allocate(counter), allocate(counter))


if __name__ == "__main__":
    asyncio.run(main())
