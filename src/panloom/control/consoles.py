"""The serial lines of all nodes: heard from the first octet on, written down, and shown to whoever may use the door.

    power supervisor ◀─ {"call": "console", "node": "n1"} ── Console ──▶ ConsoleLog      DIR/NODE.log, NODE.log.1
          octets of the serial line, both ways                  │
                                                                ├──▶ Viewer (keyboard)   the first one types
                                                                └──▶ Viewer              the others read

The line is the machine's, not the operating system's: it is there while nothing runs, in firmware and boot loader, and
after a panic.  Nobody is waited for: a viewer that does not read misses what was said longest ago, and a full disk
costs lines of the log and nothing else.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from panloom.control.console_log import ConsoleLines, ConsoleLog, Line, last_lines, readable
from panloom.control.door import groups_of
from panloom.decide.console_access import GROUP, Access, access
from panloom.errors import ConfigError, ConflictError, UnavailableError
from panloom.model.resources import WANT, ConsoleUsers, Node, Platform, SocketPower, decode
from panloom.state.contract import Store

RECENT_OCTETS = 1 << 16
"""What a new viewer is shown first."""
MAX_UNSEEN_OCTETS = 1 << 20
MAX_TYPED_OCTETS = 4096
RECENT_LINES = 200
AGAIN_SECONDS = 1.0
_READ_OCTETS = 1 << 16
_PREFIX = f"{WANT}node/"
_PLATFORM = f"{WANT}platform"
_log = logging.getLogger("panloom.console")


class Viewer:
    """One person at a console: ``keyboard`` is the word that lets it type, and where it is empty ``reads`` says why."""

    def __init__(self, keyboard: str, reads: str) -> None:
        self.keyboard = keyboard
        self.reads = reads
        self._unseen = bytearray()
        self._changed = asyncio.Event()

    def hear(self, octets: bytes) -> None:
        """Take what the line said; of what waits to be seen the oldest is dropped when it is too much."""
        self._unseen += octets
        del self._unseen[:-MAX_UNSEEN_OCTETS]
        self._changed.set()

    async def octets(self) -> AsyncIterator[bytes]:
        """Return what the line says, from what was said recently on, without end."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            octets, self._unseen = bytes(self._unseen), bytearray()
            yield octets


Heard = Callable[[str, str, float], None]
"""Called with a node, a line of its console and when that came (monotonic seconds); a prompt comes again and again."""


class Console:
    """One node's serial line."""

    def __init__(self, node: str, power: SocketPower, log: Path, heard: Heard) -> None:
        self.node = node
        self.power = power
        self.log = log
        self._heard = heard
        self._lines = ConsoleLines()
        self._said = deque(last_lines(log, RECENT_LINES), RECENT_LINES)
        self._said_at = time.monotonic()
        self._recent = bytearray()
        self._viewers: list[Viewer] = []
        self._writer: asyncio.StreamWriter | None = None

    async def run(self) -> None:
        """Listen until cancelled; a line that cannot be reached, or breaks, is tried again."""
        told = ""
        while True:
            try:
                await self._listen()
            except (OSError, ValueError, UnavailableError) as error:
                if str(error) != told:
                    told = str(error)
                    _log.info("console=away node=%s why=%r", self.power.name, told)
            else:
                told = ""
            await asyncio.sleep(AGAIN_SECONDS)

    async def _listen(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self.power.path)
        try:
            writer.write(msgspec.json.encode({"id": 1, "call": "console", "node": self.power.name}) + b"\n")
            answer = msgspec.json.decode(await reader.readline())
            if not isinstance(answer, dict) or "ok" not in answer:
                raise UnavailableError(f"no console of {self.power.name}: {answer}")
            self._writer = writer
            with ConsoleLog(self.log) as log:
                while octets := await reader.read(_READ_OCTETS):
                    self._hear(octets)
                    _write_down(log, octets)
        finally:
            self._writer = None
            writer.close()

    def _hear(self, octets: bytes) -> None:
        self._recent += octets
        del self._recent[:-RECENT_OCTETS]
        for viewer in self._viewers:
            viewer.hear(octets)
        self._said_at = time.monotonic()
        for octets_of_line in self._lines.feed(octets):
            self._said.append(Line(self._said_at, readable(octets_of_line)))
            self._heard(self.node, self._said[-1].text, self._said_at)
        if begun := readable(self._lines.begun):
            self._heard(self.node, begun, self._said_at)

    def said(self) -> Sequence[Line]:
        """Return the last lines, oldest first, and the one that has begun."""
        begun = readable(self._lines.begun)
        return (*self._said, *((Line(self._said_at, begun),) if begun else ()))

    @contextlib.contextmanager
    def viewer(self, reads: str = "") -> Iterator[Viewer]:
        """Let somebody look, and type if nobody else does; ``reads`` says why who may only read does not type."""
        if not reads and any(viewer.keyboard for viewer in self._viewers):
            reads = "somebody else types"
        viewer = Viewer("" if reads else secrets.token_hex(16), reads)
        if self._recent:
            viewer.hear(bytes(self._recent))
        self._viewers.append(viewer)
        try:
            yield viewer
        finally:
            self._viewers.remove(viewer)

    async def type(self, keyboard: str, octets: bytes) -> None:
        """Send what was typed; ConflictError if somebody else has the keyboard, UnavailableError if nobody listens."""
        if len(octets) > MAX_TYPED_OCTETS:
            raise ConfigError("octets", f"more than {MAX_TYPED_OCTETS} at once; send them in parts")
        if not keyboard or not any(secrets.compare_digest(viewer.keyboard, keyboard) for viewer in self._viewers):
            raise ConflictError(f"somebody else has the keyboard of {self.power.name}, or you were away")
        if self._writer is None:
            raise UnavailableError(f"the console of {self.power.name} cannot be reached; its supervisor is away")
        self._writer.write(octets)
        await self._writer.drain()


class Consoles:
    """The consoles of all nodes whose power supervisor serves them."""

    def __init__(self, store: Store, directory: Path, heard: Heard) -> None:
        self._store = store
        self._directory = directory
        self._heard = heard
        self._consoles: dict[str, tuple[Console, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Listen to the line of every node that is wanted, until cancelled."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            snapshot = await self._store.range(_PREFIX)
            for entry in snapshot.entries:
                self._use(entry.key, entry.value)
            async for change in self._store.watch(_PREFIX, after=snapshot.revision):
                self._use(change.key, change.value)
        finally:
            tasks = [task for _, task in self._consoles.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _use(self, key: str, value: bytes | None) -> None:
        name = key.removeprefix(_PREFIX)
        node = decode(key, value) if value is not None else None
        power = node.power if isinstance(node, Node) and isinstance(node.power, SocketPower) else None
        known = self._consoles.get(name)
        if known is not None and known[0].power == power:
            return
        if known is not None:
            known[1].cancel()
            del self._consoles[name]
        if power is not None:
            console = Console(name, power, self.log(name), self._heard)
            self._consoles[name] = console, asyncio.create_task(console.run(), name=f"console {name}")

    async def access(self, who: str) -> Access:
        """Return what a user may do at consoles, by the platform's document."""
        entry = await self._store.get(_PLATFORM)
        platform = decode(_PLATFORM, entry.value) if entry else None
        users = platform.consoles if isinstance(platform, Platform) else ConsoleUsers()
        names = (*(users.type or ()), *(users.read or ()))
        groups = groups_of(who) if any(name.startswith(GROUP) for name in names) else ()
        return access(users, who, groups)

    def of(self, node: str) -> Console:
        """Return a node's console; ConfigError if it has none."""
        if node not in self._consoles:
            raise ConfigError(f"node {node}", "has no console: its `power:` is no socket that serves one")
        return self._consoles[node][0]

    def said(self, node: str) -> Sequence[Line]:
        """Return the last lines of a node's console, none where it has no console."""
        return self._consoles[node][0].said() if node in self._consoles else ()

    def log(self, node: str) -> Path:
        """Return where a node's line is written down; what was before it stands in ``NAME.1``."""
        return self._directory / f"{node}.log"

    def written(self, node: str) -> str:
        """Return all that is written down of a node, oldest first."""
        current = self.log(node)
        older = current.with_name(current.name + ".1")
        lines = [line for path in (older, current) if path.exists() for line in path.read_bytes().split(b"\n") if line]
        return "".join(f"{readable(line)}\n" for line in lines)


def _write_down(log: ConsoleLog, octets: bytes) -> None:
    try:
        log.write(octets, time.time())
    except OSError as error:
        _log.warning("console=unwritten why=%r", str(error))
