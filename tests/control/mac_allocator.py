"""A process that allocates virtual MACs, in two tasks at once, and prints each, until it is killed."""

import asyncio
import sys
from pathlib import Path

from panloom.control.mac_counter import MacCounter
from panloom.state.sqlite import SqliteStore


async def allocate(counter):
    while True:
        print(await counter.allocate(0x504C), flush=True)


async def main():
    counter = MacCounter(await SqliteStore.open(Path(sys.argv[1])))
    await asyncio.gather(allocate(counter), allocate(counter))


if __name__ == "__main__":
    asyncio.run(main())
