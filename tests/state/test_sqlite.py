"""The embedded store: the contract, its file, its twin, and what it does when the disk or the process fails."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
import tempfile
from asyncio.subprocess import PIPE
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from panloom.errors import ConflictError, UnavailableError
from panloom.state.contract import Change, CompactedError, Entry
from panloom.state.sqlite import SqliteStore
from panloom.state.sqlite_file import FORMAT
from support.dict_store import DictStore

pytest.register_assert_rewrite("support.store_contract")

from support.store_contract import StoreContract, take  # noqa: E402 - after the rewrite is asked for

COMMITTER = Path(__file__).with_name("committer.py")
FIXTURES = Path(__file__).with_name("fixtures")


class TestSqliteStore(StoreContract):
    async def open(self, directory):
        return await SqliteStore.open(directory / "state.sqlite")


def run(main):
    """Run a coroutine to its end, with a deadline."""
    return asyncio.run(asyncio.wait_for(main, 30))


class Clock:
    """A clock that stands until it is set."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


# --- what stays over a restart


def test_entries_revisions_and_history_stay(tmp_path):
    async def main():
        store = await SqliteStore.open(tmp_path / "s")
        await store.commit(put={"/a": b"1", "/b": b"2"})
        await store.commit(delete={"/b"})
        await store.close()
        store = await SqliteStore.open(tmp_path / "s")
        assert await store.get("/a") == Entry("/a", b"1", 1)
        assert await take(store.watch("/b", after=0), 2) == [Change("/b", b"2", 1), Change("/b", None, 2)]
        assert await store.commit(put={"/c": b""}) == 3
        await store.close()

    run(main())


def test_opening_ends_the_leases_of_the_process_before(tmp_path):
    async def main():
        store = await SqliteStore.open(tmp_path / "s")
        lease = await store.grant(3600)
        await store.commit(put={"/leader": b"me"}, lease=lease)
        await store.close()
        store = await SqliteStore.open(tmp_path / "s")
        assert await store.get("/leader") is None
        assert await take(store.watch("/", after=1), 1) == [Change("/leader", None, 2)]
        with pytest.raises(ConflictError, match="lease"):
            await store.keep(lease)
        await store.close()

    run(main())


def test_the_files_are_for_their_owner_only(tmp_path):
    async def main():
        store = await SqliteStore.open(tmp_path / "s")
        await store.commit(put={"/record/secret": b"x"})
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        await store.close()
        return modes

    assert run(main()) == {"s": 0o600, "s-wal": 0o600, "s-shm": 0o600, "s.lock": 0o600}


# --- leases by the monotonic clock


def test_a_kept_lease_runs_on_and_an_unkept_one_does_not(tmp_path):
    async def main():
        clock = Clock()
        store = await SqliteStore.open(tmp_path / "s", clock=clock)
        kept, lost = await store.grant(10), await store.grant(10)
        await store.commit(put={"/kept": b""}, lease=kept)
        await store.commit(put={"/lost": b""}, lease=lost)
        clock.now += 9.9
        await store.keep(kept)
        clock.now += 0.1
        with pytest.raises(ConflictError, match="lease"):
            await store.commit(put={"/more": b""}, lease=lost)
        assert [entry.key for entry in (await store.range("")).entries] == ["/kept"]
        clock.now += 9.9
        with pytest.raises(ConflictError, match="lease"):
            await store.keep(kept)
        assert (await store.range("")).entries == ()
        await store.close()

    run(main())


# --- history


def test_history_is_bounded_and_a_watch_too_far_back_is_told(tmp_path):
    async def main():
        store = await SqliteStore.open(tmp_path / "s", history=8)
        for n in range(100):
            await store.commit(put={"/a": str(n).encode()})
        with pytest.raises(CompactedError, match="read the range again"):
            await anext(store.watch("/", after=0))
        assert await anext(store.watch("/", after=92)) == Change("/a", b"92", 93)
        await store.close()
        rows = sqlite3.connect(tmp_path / "s")
        (count,) = rows.execute("SELECT count(*) FROM change").fetchone()
        rows.close()
        assert count <= 9

    run(main())


def test_a_watcher_that_is_overtaken_by_the_history_is_told(tmp_path):
    async def main():
        store = await SqliteStore.open(tmp_path / "s", history=8)
        await store.commit(put={"/a": b""})
        watch = store.watch("/", after=0)
        await anext(watch)
        for _ in range(50):
            await store.commit(put={"/a": b""})
        with pytest.raises(CompactedError):
            await anext(watch)
        await store.close()

    run(main())


def test_a_watch_reads_a_long_history_piece_by_piece(tmp_path):
    async def main():
        store = await SqliteStore.open(tmp_path / "s")
        await store.commit(put={f"/k/{n:04}": b"" for n in range(2500)})  # one revision, longer than a piece
        await store.commit(put={"/k/last": b""})
        seen = await take(store.watch("/k/", after=0), 2501)
        assert [change.key for change in seen] == [*(f"/k/{n:04}" for n in range(2500)), "/k/last"]
        await store.close()

    run(main())


# --- the file's format


def test_format_1_is_brought_forward_and_a_copy_kept(tmp_path):
    old = FIXTURES / "v1.sqlite"
    path = tmp_path / "state.sqlite"
    path.write_bytes(old.read_bytes())

    async def main():
        store = await SqliteStore.open(path)
        assert (await store.range("")).entries == (Entry("/want/node/n1", b"uno", 2),)
        assert await take(store.watch("", after=0), 4) == [
            Change("/want/node/n1", b"one", 1),
            Change("/want/node/n2", b"two", 1),
            Change("/want/node/n1", b"uno", 2),
            Change("/want/node/n2", None, 3),
        ]
        lease = await store.grant(3600)
        assert await store.commit(expect={"/want/node/n1": 2}, put={"/x": b""}, lease=lease) == 4
        await store.revoke(lease)
        await store.close()

    run(main())
    run(main_reopens(path))
    copy = tmp_path / "state.sqlite.v1.bak"
    assert dump(copy) == dump(old)
    assert copy.stat().st_mode & 0o777 == 0o600
    assert {p.name for p in tmp_path.iterdir()} == {"state.sqlite", "state.sqlite.lock", "state.sqlite.v1.bak"}


async def main_reopens(path):
    store = await SqliteStore.open(path)
    assert (await store.range("")).revision == 5
    await store.close()


def dump(path):
    connection = sqlite3.connect(path)
    lines = [*connection.iterdump(), connection.execute("PRAGMA user_version").fetchone()]
    connection.close()
    return lines


def test_format_2_is_read_as_it_is(tmp_path):
    path = tmp_path / "state.sqlite"
    path.write_bytes((FIXTURES / "v2.sqlite").read_bytes())

    async def main():
        store = await SqliteStore.open(path)
        assert (await store.range("")).entries == (Entry("/want/node/n1", b"uno", 2),)
        changes = [Change("/want/node/n1", b"uno", 2), Change("/want/node/n2", None, 3)]
        assert await take(store.watch("", after=1), 2) == changes
        with pytest.raises(CompactedError):
            await take(store.watch("", after=0), 1)
        await store.close()

    run(main())
    assert dump(path) == dump(FIXTURES / "v2.sqlite")


@pytest.mark.parametrize("version", range(1, FORMAT + 1))
def test_each_format_has_a_fixture_that_is_what_its_script_makes(tmp_path, version):
    script = tmp_path / f"make_v{version}.py"
    script.write_bytes((FIXTURES / script.name).read_bytes())
    subprocess.run([sys.executable, script], check=True)
    assert dump(tmp_path / f"v{version}.sqlite") == dump(FIXTURES / f"v{version}.sqlite")


def write_newer(path):
    run(main_makes(path))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


async def main_makes(path):
    await (await SqliteStore.open(path)).close()


def write_foreign(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs(x)")
    connection.close()


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (write_newer, "format 99, this Panloom reads up to"),
        (write_foreign, "another program"),
        (lambda path: path.write_bytes(b"no database" * 1000), "cannot be opened"),
        (lambda path: path.mkdir(), "cannot be opened"),
    ],
    ids=["newer", "foreign", "garbage", "directory"],
)
def test_what_is_not_ours_is_refused_and_left_as_it_was(tmp_path, write, words):
    path = tmp_path / "state.sqlite"
    write(path)
    before = path.read_bytes() if path.is_file() else None
    for _ in range(2):  # the first refusal lets go of the lock
        with pytest.raises(UnavailableError, match=words):
            run(main_makes(path))
    assert (path.read_bytes() if path.is_file() else None) == before
    assert not list(tmp_path.glob("*.bak"))


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(UnavailableError, match="none/state"):
        run(main_makes(tmp_path / "none" / "state.sqlite"))


def test_a_second_opener_is_refused_until_the_first_lets_go(tmp_path):
    async def main():
        store = await SqliteStore.open(tmp_path / "s")
        with pytest.raises(UnavailableError, match="open in another process"):
            await SqliteStore.open(tmp_path / "s")
        other = await asyncio.create_subprocess_exec(
            sys.executable, COMMITTER, tmp_path / "s", stdout=PIPE, stderr=PIPE
        )
        printed, complained = await other.communicate()
        assert (printed, b"open in another process" in complained) == (b"", True)
        await store.commit(put={"/a": b""})
        await store.close()
        await (await SqliteStore.open(tmp_path / "s")).close()

    run(main())


# --- failures


@pytest.mark.parametrize("commits", [1, 40, 300])
def test_kill_9_loses_no_acknowledged_revision(tmp_path, commits):
    process = subprocess.Popen([sys.executable, COMMITTER, tmp_path / "s"], stdout=subprocess.PIPE)
    acknowledged = {}
    for _ in range(commits):
        revision, key = process.stdout.readline().split()
        acknowledged[key.decode()] = int(revision)
    process.send_signal(signal.SIGKILL)
    for line in process.stdout:
        if line.endswith(b"\n"):
            revision, key = line.split()
            acknowledged[key.decode()] = int(revision)
    process.wait()
    process.stdout.close()

    async def main():
        store = await SqliteStore.open(tmp_path / "s")
        snapshot = await store.range("/")
        await store.close()
        return snapshot

    snapshot = run(main())
    found = {entry.key: entry.revision for entry in snapshot.entries}
    assert acknowledged.items() <= found.items()
    assert sorted(found.values()) == list(range(1, snapshot.revision + 1))


def test_a_full_disk_is_told_and_passes(tmp_path):
    """The child mounts a small file system of its own, fills it, and frees it again."""
    script = "mount -t tmpfs -o size=600k none $1 && exec $2 $3 $1/s --until-full"
    command = ["unshare", "--mount", "sh", "-ec", script, "sh", tmp_path, sys.executable, COMMITTER]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    told, kept = done.stdout.splitlines()
    assert "cannot be written" in told
    assert "free space" in told
    assert kept == "every acknowledged entry is there, no other is; works again when there is space"


def test_after_an_io_error_the_store_is_out_of_use_and_keeps_what_it_acknowledged(tmp_path):
    """Writes beyond the limit on a file's size fail as they do on a failing disk (EFBIG becomes SQLITE_IOERR)."""
    command = [sys.executable, COMMITTER, tmp_path / "s", "--until-io-error"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    *lines, first, second = done.stdout.splitlines()
    assert "cannot be written" in first
    assert "restart" in first
    assert second == first
    acknowledged = {key: int(revision) for revision, key in (line.split() for line in lines)}
    assert acknowledged

    async def main():
        store = await SqliteStore.open(tmp_path / "s")
        found = {entry.key: entry.revision for entry in (await store.range("/")).entries}
        await store.close()
        return found

    assert run(main()).items() >= acknowledged.items()


def test_a_cancelled_commit_happens_whole_or_not_at_all(tmp_path):
    async def main():
        store = await SqliteStore.open(tmp_path / "s")
        for n in range(50):
            task = asyncio.ensure_future(store.commit(put={f"/{n}/a": b"", f"/{n}/b": b""}))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await store.commit(put={"/end": b""})
        for n in range(50):
            assert len((await store.range(f"/{n}/")).entries) in (0, 2)
        await store.close()

    run(main())


def test_closing_twice_at_once_closes_once(tmp_path):
    async def main():
        store = await SqliteStore.open(tmp_path / "s")
        commit = asyncio.ensure_future(store.commit(put={"/a": b""}))
        await asyncio.sleep(0)
        await asyncio.gather(store.close(), store.close())
        assert await commit == 1
        store = await SqliteStore.open(tmp_path / "s")
        assert (await store.range("")).revision == 1
        await store.close()

    run(main())


# --- the twin

KEYS = st.sampled_from(["/a", "/a/b", "/a/c", "/b", "/b-"])
VALUES = st.binary(max_size=3)


class SqliteAgainstDict(RuleBasedStateMachine):
    """The store and its twin answer alike, whatever is asked of them in whatever order."""

    leases = Bundle("leases")

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.clock = Clock()

    @initialize(history=st.sampled_from([4, 1000]))
    def open(self, history):
        self.history = history
        self.twin = DictStore(clock=self.clock, history=history)
        self.reopen()

    def both(self, ask):
        """Return what both say, a result or the kind of error."""
        answers = []
        for store in (self.store, self.twin):
            try:
                answers.append(self.runner.run(ask(store)))
            except ConflictError as error:
                answers.append(type(error))
        assert answers[0] == answers[1]
        return answers[0]

    @rule()
    def reopen(self):
        if hasattr(self, "store"):
            self.runner.run(self.store.close())
            leased = {key for key, (_, _, lease) in self.twin.entries.items() if lease is not None}
            self.twin.leases.clear()
            self.runner.run(self.twin.commit(delete=leased))
        self.store = self.runner.run(
            SqliteStore.open(Path(self.directory.name) / "s", clock=self.clock, history=self.history)
        )

    @rule(put=st.dictionaries(KEYS, VALUES, max_size=3), delete=st.sets(KEYS, max_size=2), data=st.data())
    def commit(self, put, delete, data):
        keys = data.draw(st.sets(KEYS, max_size=2))
        expect = {key: data.draw(st.sampled_from([0, *self.revisions(key)])) for key in keys}
        self.both(lambda store: store.commit(expect=expect, put=put, delete=delete - put.keys()))

    def revisions(self, key):
        return {self.twin.entries[key][1], self.twin.revision} if key in self.twin.entries else {self.twin.revision}

    @rule(seconds=st.integers(1, 5), target=leases)
    def grant(self, seconds):
        return {"store": self.runner.run(self.store.grant(seconds)), "twin": self.runner.run(self.twin.grant(seconds))}

    @rule(lease=leases, put=st.dictionaries(KEYS, VALUES, max_size=3))
    def commit_under_lease(self, lease, put):
        self.both(lambda store: store.commit(put=put, lease=self.number(lease, store)))

    @rule(lease=leases)
    def keep(self, lease):
        self.both(lambda store: store.keep(self.number(lease, store)))

    @rule(lease=consumes(leases))
    def revoke(self, lease):
        self.both(lambda store: store.revoke(self.number(lease, store)))

    def number(self, lease, store):
        return lease["twin" if store is self.twin else "store"]

    @rule(seconds=st.integers(1, 4))
    def let_time_pass(self, seconds):
        self.clock.now += seconds
        self.both(lambda store: store.commit())

    @rule(prefix=st.sampled_from(["", "/", "/a", "/a/", "/b"]), back=st.integers(0, 8))
    def watch(self, prefix, back):
        after = max(0, self.twin.revision - back)
        count = sum(1 for change in self.twin.changes if change.revision > after and change.key.startswith(prefix))

        async def changes(store):
            watch = store.watch(prefix, after=after)
            try:
                return await take(watch, max(count, 1 if after < self.twin.dropped else 0))
            finally:
                await watch.aclose()

        self.both(changes)

    @invariant()
    def hold_the_same(self):
        if hasattr(self, "store"):
            self.both(lambda store: store.range(""))

    def teardown(self):
        if hasattr(self, "store"):
            self.runner.run(self.store.close())
        self.runner.close()
        self.directory.cleanup()


TestSqliteAgainstDict = SqliteAgainstDict.TestCase
TestSqliteAgainstDict.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
