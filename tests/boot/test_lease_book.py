"""Leases in the real store."""

import asyncio
from contextlib import asynccontextmanager
from ipaddress import IPv4Address

import msgspec

from panloom.boot.lease_book import PREFIX, LeaseBook, LeaseRecord, leases
from panloom.protocol.dhcp_leases import Holder
from panloom.protocol.lease_server import LeaseWrite
from panloom.state.sqlite import SqliteStore
from panloom.values import MacAddress

A, B = MacAddress(0xA), MacAddress(0xB)
FIRST, SECOND = IPv4Address("10.77.0.51"), IPv4Address("10.77.0.52")


class Desk:
    def __init__(self, store):
        self.results = asyncio.Queue()
        self.book = LeaseBook(store, self.results.put_nowait)

    async def write(self, *writes):
        """Write, and return how each write ended."""
        self.book.add(writes)
        return [await self.results.get() for _ in writes]


@asynccontextmanager
async def desk(store):
    made = Desk(store)
    await made.book.load()
    task = asyncio.create_task(made.book.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def in_store(work):
    """Run ``work(store, path)`` with a fresh store."""

    def test(tmp_path):
        async def run():
            store = await SqliteStore.open(tmp_path / "state.sqlite")
            try:
                await work(store)
            finally:
                await store.close()

        asyncio.run(asyncio.wait_for(run(), 20))

    test.__name__ = work.__name__
    return test


async def owner(store, address):
    entry = await store.get(f"{PREFIX}{address}")
    return MacAddress.parse(msgspec.json.decode(entry.value, type=LeaseRecord).mac) if entry else None


@in_store
async def test_what_is_written_is_read_by_the_next_book(store):
    async with desk(store) as ours:
        assert [end.why for end in await ours.write(LeaseWrite(FIRST, A), LeaseWrite(SECOND, B))] == ["", ""]
    assert await LeaseBook(store, print).load() == ((FIRST, Holder(A)), (SECOND, Holder(B)))


@in_store
async def test_whose_client_an_address_is_is_read_by_the_next_book(store):
    async with desk(store) as ours:
        await ours.write(LeaseWrite(FIRST, A, b"\1\xaa"), LeaseWrite(SECOND, A, b""))
    assert await LeaseBook(store, print).load() == ((FIRST, Holder(A, b"\1\xaa")), (SECOND, Holder(A, b"")))
    assert await leases(store) == {A: (FIRST, SECOND)}


@in_store
async def test_a_record_that_names_no_client_is_any_clients(store):
    await store.commit(expect={}, put={f"{PREFIX}{FIRST}": b'{"mac": "00:00:00:00:00:0a", "expires_at": 1.0}'})
    assert await LeaseBook(store, print).load() == ((FIRST, Holder(A, None)),)


@in_store
async def test_writes_that_wait_together_are_one_commit(store):
    async with desk(store) as ours:
        writes = [LeaseWrite(IPv4Address(f"10.77.1.{number}"), A) for number in range(100)]
        await ours.write(*writes)
    assert (await store.range(PREFIX)).revision == 1


@in_store
async def test_writes_of_one_address_keep_their_order(store):
    async with desk(store) as ours:
        await ours.write(LeaseWrite(FIRST, A), LeaseWrite(FIRST, None), LeaseWrite(FIRST, B))
        assert await owner(store, FIRST) == B
        await ours.write(LeaseWrite(FIRST, None))
        assert await owner(store, FIRST) is None


@in_store
async def test_a_lease_that_another_process_wrote_is_never_overwritten(store):
    async with desk(store) as ours, desk(store) as theirs:
        await theirs.write(LeaseWrite(FIRST, B))
        refused, written = await ours.write(LeaseWrite(FIRST, A), LeaseWrite(SECOND, A))
        assert (refused.owner, refused.why) == (Holder(B), f"it is {B}'s in the store")
        assert written.why == ""
        assert await owner(store, FIRST) == B


@in_store
async def test_a_lease_that_another_process_wrote_for_the_same_machine_is_taken_over(store):
    async with desk(store) as ours, desk(store) as theirs:
        await theirs.write(LeaseWrite(FIRST, A))
        assert (await ours.write(LeaseWrite(FIRST, A)))[0].why == ""


@in_store
async def test_a_store_that_is_gone_makes_no_lease(store):
    async with desk(store) as ours:
        await store.close()
        assert all(end.why for end in await ours.write(LeaseWrite(FIRST, A), LeaseWrite(SECOND, B)))
