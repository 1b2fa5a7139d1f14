"""The SQLite file under a store: who may open it, which format it has, and how an older one is brought forward.

state.sqlite          application id 0x50414e4c ("PANL"), user_version = format
state.sqlite-wal/shm  SQLite's write-ahead log and its index
state.sqlite.lock     held (flock) as long as a process has the store open
state.sqlite.v1.bak   the file as it was before it was brought forward from format 1

entry(key, value, revision, lease|NULL)  what is now                                          format 2 adds lease
change(revision, key, value|NULL)        what happened; NULL: deleted
counter(name, value)                     'revision': the last one given
                                         'dropped': the last one no longer in change          format 2
"""

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from panloom import disk_io
from panloom.durable_names import Directory, PartialFile
from panloom.errors import UnavailableError

APPLICATION_ID: Final = 0x50414E4C
FORMAT: Final = 2

_CREATE: Final = (
    "CREATE TABLE entry(key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INT NOT NULL, lease INT) WITHOUT ROWID",
    "CREATE INDEX entry_lease ON entry(lease) WHERE lease IS NOT NULL",
    "CREATE TABLE change(revision INTEGER, key TEXT, value BLOB, PRIMARY KEY (revision, key)) WITHOUT ROWID",
    "CREATE TABLE counter(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO counter VALUES ('revision', 0), ('dropped', 0)",
    f"PRAGMA application_id = {APPLICATION_ID}",
)
_FORWARD: Final[Mapping[int, tuple[str, ...]]] = {  # from this format to the next
    1: (
        "ALTER TABLE entry ADD COLUMN lease INT",
        "CREATE INDEX entry_lease ON entry(lease) WHERE lease IS NOT NULL",
        "INSERT INTO counter VALUES ('dropped', 0)",
    ),
}


def take_lock(path: Path) -> int:
    """Return a descriptor that holds the store's lock until it is closed; ``UnavailableError`` if another has it."""
    try:
        return disk_io.take_lock(path.with_name(f"{path.name}.lock"))
    except BlockingIOError as error:
        raise UnavailableError(f"{path} is open in another process; stop that one first") from error
    except OSError as error:
        raise UnavailableError(f"{path} cannot be opened: {error.strerror}") from error


def make_durable(path: Path) -> None:
    """Make the file if absent, and durable what can be read in it; the caller holds the lock and no connection.

    A process that was killed may have left a commit in the kernel's cache that nobody was told of; whoever reads it now
    relies on it.
    """
    directory = Directory(path.parent)
    disk_io.close_file(disk_io.open_file(path, os.O_RDWR | os.O_CREAT))  # mode 0600; the log inherits it
    for name in (path.name, f"{path.name}-wal", f"{path.name}-journal"):
        if directory.holds(name):
            disk_io.sync_file(path.with_name(name))
    directory.sync()


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection with the durability the contract asks for; the caller holds the lock."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make an empty file a store, or bring an older one forward; ``UnavailableError`` if it is foreign or newer."""
    version = _number(connection, "PRAGMA user_version")
    application = _number(connection, "PRAGMA application_id")
    is_new = (application, version, _number(connection, "SELECT count(*) FROM sqlite_master")) == (0, 0, 0)
    if is_new:
        _set_journal_mode(connection, "wal", path)
        _write(connection, _CREATE)
    elif application != APPLICATION_ID:
        raise UnavailableError(f"{path} is a database of another program; name another file")
    elif version > FORMAT:
        raise UnavailableError(
            f"{path} has format {version}, this Panloom reads up to {FORMAT}; install the Panloom that wrote it"
        )
    elif version == FORMAT:
        _set_journal_mode(connection, "wal", path)
    else:
        _keep_copy(connection, path.with_name(f"{path.name}.v{version}.bak"))
        _set_journal_mode(connection, "wal", path)
        _write(connection, tuple(step for older in range(version, FORMAT) for step in _FORWARD[older]))


def _write(connection: sqlite3.Connection, statements: tuple[str, ...]) -> None:
    """Change the file to ``FORMAT`` in one transaction; a crash leaves it as it was."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in (*statements, f"PRAGMA user_version = {FORMAT}"):
        connection.execute(statement)
    connection.execute("COMMIT")


def _keep_copy(connection: sqlite3.Connection, copy: Path) -> None:
    """Have the whole store in ``copy``, on stable storage; an unfinished copy never bears that name."""
    with PartialFile(Directory(copy.parent), copy.name, 0o600) as file:
        with closing(connect(file.path)) as target:
            connection.backup(target)
            _set_journal_mode(target, "delete", file.path)  # a copy is one file
        file.appear(copy.name)


def _set_journal_mode(connection: sqlite3.Connection, mode: str, path: Path) -> None:
    """Set it for good; ``UnavailableError`` where the disk refuses, which SQLite does not call an error.

    With another journal ``synchronous = FULL`` would not sync the directory when that is deleted: after a power cut it
    may be there again, and roll back what was acknowledged.
    """
    (now,) = connection.execute(f"PRAGMA journal_mode = {mode}").fetchone()
    if now != mode:
        raise UnavailableError(f"{path} cannot be given the journal mode {mode}; mend its disk and start again")


def _number(connection: sqlite3.Connection, question: str) -> int:
    (number,) = connection.execute(question).fetchone()
    return int(number)
