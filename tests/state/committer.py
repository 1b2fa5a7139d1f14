"""A process that commits to a store without end and prints ``REVISION KEY`` for what was acknowledged.

committer.py PATH                   several tasks at once, until killed
committer.py PATH --until-full      until the disk is full, then with space again
committer.py PATH --until-io-error  with a limit on the size of files, until the first error
"""

import asyncio
import itertools
import logging
import resource
import sys
from pathlib import Path

from panloom.errors import UnavailableError
from panloom.state.sqlite import SqliteStore


async def commit_for_ever(store, worker):
    for n in itertools.count():
        key = f"/{worker}/{n}"
        revision = await store.commit(expect={key: 0}, put={key: bytes(200)})
        print(revision, key, flush=True)


async def until_killed(store):
    await asyncio.gather(*(commit_for_ever(store, worker) for worker in range(8)))


async def until_full(store, path):
    ballast = path.with_name("ballast")
    ballast.write_bytes(bytes(150_000))
    acknowledged = []
    try:
        for n in itertools.count():
            await store.commit(put={f"/{n}/a": bytes(5000), f"/{n}/b": bytes(5000)})
            acknowledged += [f"/{n}/a", f"/{n}/b"]
    except UnavailableError as error:
        print(error)
    ballast.unlink()
    await store.commit(put={"/z": bytes(5000)})
    await store.close()
    store = await SqliteStore.open(path)
    found = [entry.key for entry in (await store.range("/")).entries]
    if found == sorted([*acknowledged, "/z"]) and acknowledged:
        print("every acknowledged entry is there, no other is; works again when there is space")
    await store.close()


async def until_io_error(store):
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    try:
        await commit_for_ever(store, 0)
    except UnavailableError as error:
        print(error)
    try:
        await store.commit(put={"/small": b""})
    except UnavailableError as error:
        print(error)


async def main():
    logging.basicConfig(level=logging.CRITICAL)
    path = Path(sys.argv[1])
    store = await SqliteStore.open(path)
    match sys.argv[2:]:
        case ["--until-full"]:
            await until_full(store, path)
        case ["--until-io-error"]:
            await until_io_error(store)
        case _:
            await until_killed(store)


if __name__ == "__main__":
    asyncio.run(main())
