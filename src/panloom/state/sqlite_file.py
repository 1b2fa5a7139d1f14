"""The SQLite file under a store: who may open it, which format it has, and how an older one is brought forward.

state.sqlite          application id 0x50414e4c ("PANL"), user_version = format
state.sqlite-wal/shm  SQLite's write-ahead log and its index
state.sqlite.lock     held (flock) as long as a process has the store open

entry(key, value, revision)         what is now
change(revision, key, value|NULL)   what happened; NULL: deleted
counter(name, value)                'revision': the last revision given
"""

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Final

from panloom.errors import UnavailableError

APPLICATION_ID: Final = 0x50414E4C
FORMAT: Final = 1

_CREATE: Final = (
    "CREATE TABLE entry(key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE change(revision INTEGER, key TEXT, value BLOB, PRIMARY KEY (revision, key)) WITHOUT ROWID",
    "CREATE TABLE counter(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO counter VALUES ('revision', 0)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT}",
)


def take_lock(path: Path) -> int:
    """Return a descriptor that holds the store's lock until it is closed; ``UnavailableError`` if another has it."""
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise UnavailableError(f"{path} is open in another process; stop that one first") from error
    return lock


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection with the durability the contract asks for; the caller holds the lock."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # it holds secrets; the log inherits the mode
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make an empty file a store, or check that it is one of this format; ``UnavailableError`` if it is not."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (application, version, tables) == (0, 0, 0):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        for statement in _CREATE:
            connection.execute(statement)
        connection.execute("COMMIT")
    elif application != APPLICATION_ID:
        raise UnavailableError(f"{path} is a database of another program; name another file")
    elif version != FORMAT:
        raise UnavailableError(
            f"{path} has format {version}, this Panloom reads up to {FORMAT}; install the Panloom that wrote it"
        )
