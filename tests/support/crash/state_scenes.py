"""Scenes of the state store."""

import asyncio
import sqlite3
from contextlib import closing
from ipaddress import IPv4Address

import msgspec

from panloom.boot.lease_book import PREFIX, LeaseBook, LeaseRecord, leases
from panloom.durable_names import make_directory
from panloom.protocol.lease_server import LeaseWrite
from panloom.state.sqlite import SqliteStore
from panloom.values import MacAddress
from support.crash.recorder import Killed
from support.crash.sqlite_recorder import SQLITE
from support.crash.stage import closing_locks, scene
from support.crash.state_story import PLACE as STATE
from support.crash.state_story import older_format


@scene()
def a_commit_that_a_killed_process_left_in_the_cache(stage):
    """The next process relies on it, so it makes it durable before anybody reads it."""
    with SQLITE.to(stage.recorder):
        asyncio.run(_commit(stage, 1))
        with closing_locks(stage.recorder):
            asyncio.run(_commit(stage, 2, killed=True))
        stage.from_here()
        asyncio.run(_commit(stage, None))


@scene()
def a_store_that_a_killed_process_was_making(stage):
    """Its names are in the kernel's cache only, and SQLite syncs the directory only for a log that it makes itself."""
    with SQLITE.to(stage.recorder):
        with closing_locks(stage.recorder):
            stage.recorder.faults = _DyingAtLog(stage.recorder)
            asyncio.run(_commit(stage, None))
        stage.recorder.faults = None
        stage.from_here()
        asyncio.run(_commit(stage, 1))


class _DyingAtLog:
    """Kills the process when SQLite first syncs its log."""

    def __init__(self, recorder):
        self._recorder = recorder

    def __call__(self, name, arguments):
        if name == "fsync" and str(arguments[0]).endswith("-wal"):
            self._recorder.kill()
            raise Killed


@scene(older_format())
def a_store_of_the_format_before(stage):
    """Before it is brought forward there is a copy of it, whole."""
    stage.always("what was there is kept", _is_brought_forward_or_not)
    with SQLITE.to(stage.recorder):
        asyncio.run(_commit(stage, 1))


@scene()
def a_lease_that_waited_with_one_that_another_process_has_given(stage):
    """The two are no commit together, so that each is written alone."""
    ours, theirs = (MacAddress.parse(f"02:00:00:00:00:0{number}") for number in (1, 2))
    taken, free = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")

    def answered(written):
        if not written.why:
            stage.always("it is known", lambda root: asyncio.run(_leases(root / STATE)).get(ours) == (free,))

    async def give(store):
        book = LeaseBook(store, answered)
        await book.load()
        record = msgspec.json.encode(LeaseRecord(str(theirs), 0.0))
        await store.commit(expect={}, put={f"{PREFIX}{taken}": record})
        book.add([LeaseWrite(taken, ours), LeaseWrite(free, ours)])
        await book._write(book._take_group())

    with SQLITE.to(stage.recorder):
        asyncio.run(_with_store(stage.root / STATE, give))


async def _leases(path):
    return await _with_store(path, leases)


async def _with_store(path, act):
    make_directory(path.parent)
    store = await SqliteStore.open(path)
    try:
        return await act(store)
    finally:
        await store.close()


async def _commit(stage, number, *, killed=False):
    async def look_and_commit(store):
        seen = {entry.key for entry in (await store.range("/want/")).entries}
        stage.always("what was read", lambda root: asyncio.run(_keys(root / STATE)) >= seen)
        if killed:
            stage.recorder.die_at_sync(1)  # the first is that of the new log's header
        if number:
            await store.commit(expect={}, put={f"/want/{number}": b"x" * 600})
            stage.always(f"commit {number}", lambda root: f"/want/{number}" in asyncio.run(_keys(root / STATE)))

    await _with_store(stage.root / STATE, look_and_commit)


async def _keys(path):
    async def look(store):
        return {entry.key for entry in (await store.range("/want/")).entries}

    return await _with_store(path, look)


def _is_brought_forward_or_not(root):
    path = root / STATE
    with closing(sqlite3.connect(path)) as database:
        ((version,),) = database.execute("PRAGMA user_version")
    if version == 1:
        return "/want/node/n1" in asyncio.run(_keys(path))
    with closing(sqlite3.connect(path.with_name(f"{path.name}.v1.bak"))) as database:
        ((version,),) = database.execute("PRAGMA user_version")
        keys = {key for (key,) in database.execute("SELECT key FROM entry")}
        sound = database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return version == 1 and "/want/node/n1" in keys and sound
