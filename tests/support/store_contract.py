"""What every store must do: inherit ``StoreContract``, say how to open a store, and pytest holds it to the contract.

class TestMyStore(StoreContract):
    async def open(self, directory): return await MyStore.open(directory)
"""

import asyncio
import functools

import pytest

from panloom.errors import ConflictError, UnavailableError
from panloom.state.contract import MAX_KEY_OCTETS, MAX_VALUE_OCTETS, Change, Entry, Snapshot


def with_store(body):
    """Turn a coroutine over an open store into a test."""

    @functools.wraps(body)
    def test(self, tmp_path):
        async def main():
            store = await self.open(tmp_path)
            try:
                async with asyncio.timeout(30):
                    await body(self, store)
            finally:
                await store.close()

        asyncio.run(main())

    del test.__wrapped__  # or pytest would ask for a fixture named store
    return test


async def take(changes, count):
    """Return the next ``count`` changes."""
    taken = []
    while len(taken) < count:
        taken.append(await anext(changes))
    return taken


class StoreContract:
    async def open(self, directory):
        raise NotImplementedError

    @with_store
    async def test_an_empty_store_is_at_revision_zero(self, store):
        assert await store.range("") == Snapshot(0, ())
        assert await store.get("/a") is None

    @with_store
    async def test_a_commit_is_seen_by_every_later_read(self, store):
        assert await store.commit(put={"/a": b"1", "/b": b""}) == 1
        assert await store.get("/a") == Entry("/a", b"1", 1)
        assert await store.commit(put={"/a": b"2"}, delete={"/b", "/none"}) == 2
        assert await store.range("") == Snapshot(2, (Entry("/a", b"2", 2),))

    @with_store
    async def test_a_commit_that_changes_nothing_gives_no_revision(self, store):
        await store.commit(put={"/a": b"1"})
        assert await store.commit(delete={"/none"}) == 1
        assert await store.commit(expect={"/a": 1}) == 1

    @with_store
    async def test_a_put_of_the_same_value_is_a_change(self, store):
        await store.commit(put={"/a": b"1"})
        assert await store.commit(put={"/a": b"1"}) == 2
        assert await store.get("/a") == Entry("/a", b"1", 2)

    @with_store
    async def test_a_range_takes_a_prefix_as_octets_sorted(self, store):
        keys = ("/w/a", "/w/a-", "/w/a.b", "/w/a/b", "/w/a0", "/w/~", "/w", "/x", "/W/a")
        await store.commit(put=dict.fromkeys(keys, b""))
        assert [entry.key for entry in (await store.range("/w/a")).entries] == [
            "/w/a",
            "/w/a-",
            "/w/a.b",
            "/w/a/b",
            "/w/a0",
        ]
        assert [entry.key for entry in (await store.range("/w/")).entries][-1] == "/w/~"
        assert {entry.key for entry in (await store.range("")).entries} == set(keys)

    @pytest.mark.parametrize("wrong", ["older", "newer", "absent", "present"])
    def test_nothing_changes_when_an_expectation_fails(self, tmp_path, wrong):
        @with_store
        async def body(self, store):
            await store.commit(put={"/a": b"1"})
            await store.commit(put={"/a": b"2"})
            expect = {"older": {"/a": 1}, "newer": {"/a": 3}, "absent": {"/b": 1}, "present": {"/a": 0}}[wrong]
            with pytest.raises(ConflictError, match=next(iter(expect))):
                await store.commit(expect={"/none": 0, **expect}, put={"/c": b"3"}, delete={"/a"})
            assert await store.range("") == Snapshot(2, (Entry("/a", b"2", 2),))

        body(self, tmp_path)

    @with_store
    async def test_a_deleted_key_can_be_expected_absent(self, store):
        await store.commit(put={"/a": b"1"})
        await store.commit(delete={"/a"}, expect={"/a": 1})
        assert await store.commit(expect={"/a": 0}, put={"/a": b"2"}) == 3

    @with_store
    async def test_of_many_who_expect_the_same_one_wins(self, store):
        await store.commit(put={"/a": b""})
        tries = [store.commit(expect={"/a": 1}, put={"/a": str(n).encode()}) for n in range(50)]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes].count(int) == 1
        assert [type(outcome) for outcome in outcomes].count(ConflictError) == 49
        assert (await store.get("/a")).value == str([type(o) for o in outcomes].index(int)).encode()

    @with_store
    async def test_concurrent_counting_by_compare_and_set_loses_nothing(self, store):
        await store.commit(put={"/counter": b"0"})

        async def count(times):
            while times:
                entry = await store.get("/counter")
                try:
                    await store.commit(
                        expect={"/counter": entry.revision}, put={"/counter": str(int(entry.value) + 1).encode()}
                    )
                except ConflictError:
                    continue
                times -= 1

        await asyncio.gather(*(count(5) for _ in range(8)))
        assert (await store.get("/counter")).value == b"40"

    @with_store
    async def test_concurrent_commits_have_revisions_of_their_own(self, store):
        revisions = await asyncio.gather(*(store.commit(put={f"/k/{n}": b""}) for n in range(100)))
        assert sorted(revisions) == list(range(1, 101))
        entries = (await store.range("/k/")).entries
        assert {entry.key: entry.revision for entry in entries} == {f"/k/{n}": r for n, r in enumerate(revisions)}

    @with_store
    async def test_a_watch_tells_what_was_and_what_comes(self, store):
        await store.commit(put={"/a/1": b"x", "/b": b"x"})
        await store.commit(put={"/a/2": b"y", "/a/0": b"z"})
        changes = store.watch("/a/", after=1)
        assert await take(changes, 2) == [Change("/a/0", b"z", 2), Change("/a/2", b"y", 2)]
        coming = asyncio.ensure_future(anext(changes))
        await store.commit(put={"/b": b"other"})
        await store.commit(delete={"/a/1"})
        assert await coming == Change("/a/1", None, 4)
        await changes.aclose()

    @with_store
    async def test_a_watch_begun_amid_commits_has_no_gap(self, store):
        commits = [asyncio.ensure_future(store.commit(put={f"/k/{n:03}": b""})) for n in range(300)]
        await commits[0]
        snapshot = await store.range("/k/")
        changes = store.watch("/k/", after=snapshot.revision)
        seen = [entry.key for entry in snapshot.entries]
        seen += [change.key for change in await take(changes, 300 - len(seen))]
        assert seen == [f"/k/{n:03}" for n in range(300)]
        await changes.aclose()
        await asyncio.gather(*commits)

    @with_store
    async def test_watchers_do_not_take_from_each_other(self, store):
        watches = [store.watch("/", after=0) for _ in range(5)]
        waiting = [asyncio.ensure_future(take(watch, 3)) for watch in watches]
        for value in (b"1", b"2", b"3"):
            await store.commit(put={"/a": value})
        for seen in await asyncio.gather(*waiting):
            assert seen == [Change("/a", b"1", 1), Change("/a", b"2", 2), Change("/a", b"3", 3)]
        for watch in watches:
            await watch.aclose()

    @with_store
    async def test_keys_vanish_together_when_their_lease_ends(self, store):
        changes = store.watch("/alive/", after=0)
        lease = await store.grant(0.2)
        await store.commit(put={"/alive/1": b"", "/alive/2": b""}, lease=lease)
        await store.commit(put={"/stays": b""})
        seen = await take(changes, 4)
        assert [(change.key, change.value) for change in seen[2:]] == [("/alive/1", None), ("/alive/2", None)]
        assert seen[2].revision == seen[3].revision
        assert [entry.key for entry in (await store.range("")).entries] == ["/stays"]
        with pytest.raises(ConflictError, match="lease"):
            await store.keep(lease)
        await changes.aclose()

    @with_store
    async def test_a_revoked_lease_takes_its_keys_and_is_over(self, store):
        lease, other = await store.grant(3600), await store.grant(3600)
        assert lease != other
        await store.commit(put={"/a": b""}, lease=lease)
        await store.commit(put={"/b": b""}, lease=other)
        await store.keep(lease)
        await store.revoke(lease)
        assert [entry.key for entry in (await store.range("")).entries] == ["/b"]
        with pytest.raises(ConflictError, match="lease"):
            await store.commit(put={"/c": b""}, lease=lease)
        with pytest.raises(ConflictError, match="lease"):
            await store.keep(lease)
        await store.revoke(lease)
        assert (await store.range("")).revision == 3

    @with_store
    async def test_the_last_put_says_which_lease_a_key_has(self, store):
        lease = await store.grant(3600)
        await store.commit(put={"/a": b"", "/b": b""}, lease=lease)
        await store.commit(put={"/a": b"free"})
        await store.revoke(lease)
        assert [entry.key for entry in (await store.range("")).entries] == ["/a"]

    @with_store
    async def test_limits_are_held(self, store):
        longest = "/" + "k" * (MAX_KEY_OCTETS - 1)
        await store.commit(put={longest: bytes(MAX_VALUE_OCTETS)})
        assert len((await store.get(longest)).value) == MAX_VALUE_OCTETS
        for key in ("", "a", "/ä", "/a b", "/a\n", "/a\0", longest + "k"):
            with pytest.raises(ValueError, match="key"):
                await store.commit(put={key: b""})
            with pytest.raises(ValueError, match="key"):
                await store.get(key)
        with pytest.raises(ValueError, match="at most"):
            await store.commit(put={"/a": bytes(MAX_VALUE_OCTETS + 1)})
        with pytest.raises(ValueError, match="both"):
            await store.commit(put={"/a": b""}, delete={"/a"})
        with pytest.raises(ValueError, match="revision"):
            await store.commit(expect={"/a": -1})
        with pytest.raises(ValueError, match="key"):
            await store.range("a")
        for seconds in (0, -1, float("inf"), float("nan")):
            with pytest.raises(ValueError, match="seconds"):
                await store.grant(seconds)
        assert (await store.range("")).revision == 1

    @with_store
    async def test_a_closed_store_says_so(self, store):
        watch = store.watch("/", after=0)
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        await store.close()
        for call in (store.get("/a"), store.range(""), store.commit(put={"/a": b""}), store.grant(1), waiting):
            with pytest.raises(UnavailableError, match="closed"):
                await call
        await store.close()
