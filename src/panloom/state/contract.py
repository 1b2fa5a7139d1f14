"""The state contract: revisioned keys, compare-and-set, watch and lease.

Everything Panloom must remember goes through these nine calls, and every store passes the same tests
(``tests/support/store_contract.py``).

    revision   1 ───────── 2 ───────────────── 3 ─────────── 4 ────────►  one number for the whole store, raised by each
               put /a=x    put /a=y, /b=z      delete /a     lease ends   commit that changes something

    get, range     what is durable now; a range comes with the revision it is a picture of
    commit         all or nothing, if every expected revision still holds; on return it is on stable storage
    watch          every change after a revision, in order, none missing: range(p), then watch(p, after=its revision)
    grant, keep    a lease of so many seconds; keys put under it vanish together, in one commit, when it ends
    close          waits for the commits already begun

A key begins with ``/`` and is printable ASCII of at most 512 octets; keys sort by their octets.  A value has at most
1 MiB.
"""

import re
from collections.abc import AsyncIterator, Collection, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

import msgspec

from panloom.errors import ConflictError

MAX_KEY_OCTETS: Final = 512
MAX_VALUE_OCTETS: Final = 1 << 20
ABSENT: Final = 0  # the revision to expect of a key that must not exist
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

_PREFIX = re.compile(rf"(?:/[!-~]{{0,{MAX_KEY_OCTETS - 1}}})?\Z")


class CompactedError(ConflictError):
    """The history asked for has been dropped: read the range again and watch from its revision."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A key as it stands now."""

    key: str
    value: bytes
    revision: int  # of its last change, >= 1


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """All entries under a prefix at one moment."""

    revision: int  # of the store, 0 when nothing was ever written
    entries: tuple[Entry, ...]  # sorted by key


class Change(msgspec.Struct, frozen=True, gc=False):
    """One key changed by one commit; the changes of a commit share its revision and come sorted by key."""

    key: str
    value: bytes | None  # None: deleted
    revision: int


class Store(Protocol):
    """A store of revisioned keys.

    Each call raises ``UnavailableError`` when the store cannot be read or written, and ``ValueError`` for a key or
    value outside the limits above.  A commit whose caller was cancelled, or that raised ``UnavailableError``, has
    happened whole or not at all.
    """

    async def get(self, key: str) -> Entry | None:
        """Return the entry, or None if the key is absent."""
        ...

    async def range(self, prefix: str) -> Snapshot:
        """Return every entry whose key begins with ``prefix``; an empty prefix means all."""
        ...

    async def commit(
        self,
        *,
        expect: Mapping[str, int] = NOTHING,
        put: Mapping[str, bytes] = NOTHING,
        delete: Collection[str] = (),
        lease: int | None = None,
    ) -> int:
        """Change keys if all of ``expect`` holds, and return the revision once it is on stable storage.

        ``expect`` maps a key to the revision it must have now, ``ABSENT`` if it must not exist.  A put makes the key
        belong to ``lease``, or to none.  Deleting an absent key is no change; a commit that changes nothing returns the
        current revision.  Raises ``ConflictError``, with nothing changed, if an expectation fails or the lease has
        ended.
        """
        ...

    def watch(self, prefix: str, *, after: int) -> AsyncIterator[Change]:
        """Yield every change under ``prefix`` with a revision above ``after``, past ones first, for ever.

        Raises ``CompactedError`` when changes after ``after`` have been dropped from the history.
        """
        ...

    async def grant(self, seconds: float) -> int:
        """Return a new lease that ends ``seconds`` (> 0) from now unless it is kept."""
        ...

    async def keep(self, lease: int) -> None:
        """Count the lease's seconds anew from now; ``ConflictError`` if it has ended."""
        ...

    async def revoke(self, lease: int) -> None:
        """End the lease now and delete its keys; nothing happens if it has ended already."""
        ...

    async def close(self) -> None:
        """Finish the commits already begun and let go of the store; later calls raise ``UnavailableError``."""
        ...


def check_key(key: str) -> None:
    """Raise ``ValueError`` unless ``key`` is one the contract allows."""
    if not key or not _PREFIX.match(key):
        raise ValueError(
            f"{key!r} is no key; one begins with / and is printable ASCII of at most {MAX_KEY_OCTETS} octets"
        )


def check_prefix(prefix: str) -> None:
    """Raise ``ValueError`` unless ``prefix`` is empty or could begin a key."""
    if not _PREFIX.match(prefix):
        raise ValueError(f"{prefix!r} begins no key; a key begins with / and is printable ASCII")


def check_commit(expect: Mapping[str, int], put: Mapping[str, bytes], delete: Collection[str]) -> None:
    """Raise ``ValueError`` unless the arguments of a commit are ones the contract allows."""
    for key in (*expect, *put, *delete):
        check_key(key)
    for key, revision in expect.items():
        if revision < 0:
            raise ValueError(f"{key}: a revision is {ABSENT} (absent) or more, not {revision}")
    for key, value in put.items():
        if len(value) > MAX_VALUE_OCTETS:
            raise ValueError(f"{key}: a value has at most {MAX_VALUE_OCTETS} octets, not {len(value)}")
    both = put.keys() & set(delete)
    if both:
        raise ValueError(f"{min(both)} is both put and deleted")


def check_seconds(seconds: float) -> None:
    """Raise ``ValueError`` unless a lease can be granted for ``seconds``."""
    if not 0 < seconds < float("inf"):
        raise ValueError(f"a lease runs for more than 0 seconds, not {seconds:g}")
