"""The kernel's packet filter, through libnftables: JSON in, JSON out, one transaction a call.

PortFilterTable   observe ─► PortFilter ─► changes(observed, wanted) ─► apply ─► observe: the difference is empty
Nftables          run(commands) ─► libnftables ─► netlink, in the namespace where it was made

Commands may be in nft's own language as well, for what JSON has no words for: sets of parts of packets (``typeof``).
"""

import ctypes
import json
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from panloom.decide.port_filter import TABLE, PortFilter, ReplaceTable, form, parse, refused, render
from panloom.errors import KernelError, UnavailableError
from panloom.fabric.namespaces import within

_LIBRARY: Final = "libnftables.so.1"
_OUTPUT_JSON: Final = 1 << 4  # NFT_CTX_OUTPUT_JSON, nftables/libnftables.h
_NUMERIC_PROTOCOLS: Final = 1 << 7  # NFT_CTX_OUTPUT_NUMERIC_PROTO: a host without /etc/protocols has no names


class Ruleset(Protocol):
    """Something that takes nft's JSON commands: ``Nftables``, or a model of it."""

    def run(self, commands: Mapping[str, Any]) -> dict[str, Any]:
        """Do all commands or none, and return what they list; ``KernelError`` with nft's own words."""
        ...


class Nftables:
    """A connection to nftables; calls take some milliseconds and may come from any thread."""

    def __init__(self, namespace: Path | None = None) -> None:
        try:
            self._library = _load()
        except OSError as error:
            raise UnavailableError(f"{_LIBRARY} is missing; apt-get install libnftables1") from error
        self._lock = threading.Lock()
        with within(namespace):
            self._context: int | None = self._library.nft_ctx_new(0)
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        self._library.nft_ctx_output_set_flags(self._context, _OUTPUT_JSON | _NUMERIC_PROTOCOLS)

    def run(self, commands: Mapping[str, Any] | str) -> dict[str, Any]:
        """Do all commands or none, and return what they list; ``KernelError`` with nft's own words."""
        text = commands if isinstance(commands, str) else json.dumps(commands)
        with self._lock:
            if self._context is None:
                raise UnavailableError("the connection to nftables is closed")
            failed = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
            output = self._library.nft_ctx_get_output_buffer(self._context)
            complaint = self._library.nft_ctx_get_error_buffer(self._context)
        if failed:
            raise KernelError(f"nftables: {' '.join(complaint.decode(errors='replace').split())}")
        listing: dict[str, Any] = json.loads(output) if output else {"nftables": []}
        return listing

    def close(self) -> None:
        """Let go of the netlink socket."""
        with self._lock:
            if self._context is not None:
                self._library.nft_ctx_free(self._context)
                self._context = None


class PortFilterTable:
    """The table ``bridge panloom`` in the kernel.

    How nft spells our chains when it lists them differs between its versions.  So the spelling seen right after our own
    transaction is remembered, and any other is taken as not ours: a new process replaces the table once.
    """

    def __init__(self, ruleset: Ruleset) -> None:
        self._ruleset = ruleset
        self._form: tuple[Any, ...] | None = None
        self._refused_before: Counter[str] = Counter()

    def observe(self) -> PortFilter | None:
        """Return the fence in force; None if there is none, or it is not as this object made it."""
        listing = self._list()
        if listing is None or form(listing) != self._form:
            return None
        return parse(listing)

    def apply(self, changes: Iterable[ReplaceTable]) -> None:
        """Make the changes; each is in force for every later frame when this returns, or ``KernelError`` is raised."""
        for change in changes:
            before = self._list()
            self._ruleset.run(render(change.wanted))
            if before is not None:
                self._refused_before.update(refused(before))
            listing = self._list()
            if listing is None or parse(listing) != change.wanted:
                raise KernelError("nftables: the table bridge panloom is not as it was just made; who else changes it?")
            self._form = form(listing)

    def refused(self) -> dict[str, int]:
        """Return how many frames of each managed port were dropped since this object was made or the table was."""
        listing = self._list()
        return dict(self._refused_before + Counter(refused(listing) if listing else {}))

    def _list(self) -> dict[str, Any] | None:
        tables = self._ruleset.run({"nftables": [{"list": {"tables": {"family": TABLE["family"]}}}]})
        if not any(item.get("table", {}).get("name") == TABLE["name"] for item in tables["nftables"]):
            return None
        return self._ruleset.run({"nftables": [{"list": {"table": TABLE}}]})


def _load() -> ctypes.CDLL:
    """Return libnftables with the types of the calls used here (libnftables(3))."""
    library = ctypes.CDLL(_LIBRARY)
    context = ctypes.c_void_p
    for name, result, arguments in (
        ("nft_ctx_new", context, [ctypes.c_uint32]),
        ("nft_ctx_free", None, [context]),
        ("nft_ctx_buffer_output", ctypes.c_int, [context]),
        ("nft_ctx_buffer_error", ctypes.c_int, [context]),
        ("nft_ctx_get_output_buffer", ctypes.c_char_p, [context]),
        ("nft_ctx_get_error_buffer", ctypes.c_char_p, [context]),
        ("nft_ctx_output_set_flags", None, [context, ctypes.c_uint]),
        ("nft_run_cmd_from_buffer", ctypes.c_int, [context, ctypes.c_char_p]),
    ):
        call = getattr(library, name)
        call.restype, call.argtypes = result, arguments
    return library
