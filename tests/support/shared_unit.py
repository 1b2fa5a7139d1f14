"""What several initiators do to one unit at once, and what a single unit would have answered: histories and models.

COMPARE AND WRITE    blocks as registers: read, written, compared and set; each client compares with what it saw last
reservations         register, reserve, release, clear, preempt, write, and ask who has what

Each client has one call under way at a time.  Kills come in between; what was under way then was done before, or never.
"""

import asyncio
import struct
import time
from collections import Counter
from contextlib import suppress

from panloom.errors import UnavailableError
from panloom.initiator import CommandLostError, Session
from panloom.values import Iqn
from support.block_load import TIMING
from support.linearizable import Call, Model, first_wrong
from support.marked_blocks import BLOCK, marked, number_of

GOOD, CHECK_CONDITION, RESERVATION_CONFLICT = 0x00, 0x02, 0x18  # SAM-5 5.3.1
MISCOMPARE = 0x1D00
REGISTERS = 4  # blocks, side by side
CLIENTS = 6
EXCLUSIVE, REGISTRANTS_ONLY = 0x03, 0x06  # types of reservation, SPC-4 r37 table 175


class History:
    """The calls of all clients."""

    def __init__(self):
        self.calls = []
        self.done = Counter()
        self._killed = []  # when

    async def note(self, what, answer):
        """Wait for an answer and keep it; a call that is cut off was done before the process was dead, or never."""
        begin = time.monotonic()
        try:
            result = await answer
        except (CommandLostError, UnavailableError):
            self.calls.append(Call(begin, float("inf"), what, None))
            raise
        self.calls.append(Call(begin, time.monotonic(), what, result))
        self.done[what[0]] += 1
        return result

    def killed_at(self, now):
        """Take note that the process is dead by now."""
        self._killed.append(now)

    @property
    def closed(self):
        """All calls; those that were cut off end with the kill, and those that came after it never happened."""
        open_ended = float("inf")
        cut_off = [call for call in self.calls if call.end == open_ended and call.begin < max(self._killed)]
        return [
            *(call for call in self.calls if call.end < open_ended),
            *(call._replace(end=min(at for at in self._killed if at > call.begin)) for call in cut_off),
        ]


async def open_clients(portal, target, count):
    """Return so many sessions, each of an initiator port of its own, the same each time: it is what is registered."""
    return [
        await Session.open(
            portal,
            initiator=Iqn(f"iqn.2026-11.dev.panloom:node.n{number}"),
            isid=bytes.fromhex(f"00023d0000{number:02x}"),
            target=target,
            timing=TIMING,
        )
        for number in range(1, count + 1)
    ]


# --- COMPARE AND WRITE


class Registers:
    """Blocks of one unit that are compared and written."""

    clients = CLIENTS

    def __init__(self, lun, chance):
        self._lun, self._chance = lun, chance
        self._last = 0
        self._seen = [0] * REGISTERS  # by whoever looked last
        self.history = History()

    async def one(self, session, client):
        """Do one call."""
        lba = self._chance.randrange(REGISTERS)
        match self._chance.choices(("read", "write", "set"), (3, 2, 5))[0]:
            case "read":
                self._seen[lba] = await self.history.note(("read", lba), self._read(session, lba))
            case "write":
                self._last += 1
                number = self._last
                await self.history.note(("write", lba, number), self._write(session, lba, number))
                self._seen[lba] = number
            case _:
                self._last += 1
                old, new = self._seen[lba], self._last
                if await self.history.note(("set", lba, old, new), self._set(session, lba, old, new)) == "set":
                    self._seen[lba] = new

    async def _read(self, session, lba):
        return number_of(lba, await session.read(self._lun, lba * BLOCK, BLOCK))

    async def _write(self, session, lba, number):
        await session.write(self._lun, lba * BLOCK, marked(lba, number), fua=self._chance.random() < 0.5)
        return "ok"

    async def _set(self, session, lba, old, new):
        cdb = struct.pack(">BBQ3xBxx", 0x89, 0x08 * (self._chance.random() < 0.5), lba, 1)  # SBC-4 r22 5.3
        outcome = await session.execute(self._lun, cdb, marked(lba, old) + marked(lba, new), insistent=True)
        if outcome.status == CHECK_CONDITION and outcome.sense.code == MISCOMPARE:
            return outcome.sense.information
        return "set" if outcome.status == GOOD else f"status {outcome.status:02X} {outcome.sense}"

    def wrong(self):
        """Return the first answer that no order of the calls explains, None if there is none."""
        for lba in range(REGISTERS):
            calls = [call for call in self.history.closed if call.what[1] == lba]
            found = first_wrong(calls, Model(0, _register))
            if found:
                return found
        return None


def _register(state, what, result):
    """SBC-4 r22 5.3: a miscompare writes nothing, and tells the first octet that differs."""
    match what:
        case ("read", _):
            return (state,) if result in (None, state) else ()
        case ("write", _, number):
            return (number,)
        case (_, lba, old, new):
            if old == state:
                return (new,) if result in (None, "set") else ()
            return (state,) if result in (None, _first_difference(lba, state, old)) else ()


def _first_difference(lba, one, other):
    pairs = zip(marked(lba, one), marked(lba, other), strict=True)
    return next(at for at, (left, right) in enumerate(pairs) if left != right)


# --- reservations

REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, REGISTER_AND_IGNORE = 0, 1, 2, 3, 4, 6  # SPC-4 r37 table 205
READ_KEYS, READ_RESERVATION = 0, 1
CHANGES = {REGISTER: 3, RESERVE: 4, RELEASE: 3, CLEAR: 1, PREEMPT: 2, REGISTER_AND_IGNORE: 2}


class Reservations:
    """Registrations and the reservation of one unit, of one type."""

    clients = 4

    def __init__(self, lun, chance, *, durable):
        self._lun, self._chance, self._durable = lun, chance, durable
        self._type = chance.choice((EXCLUSIVE, REGISTRANTS_ONLY))
        self._keys = {}  # client → the key that it believes to have
        self._last = 0
        self.history = History()

    async def one(self, session, client):
        """Do one call."""
        match self._chance.choices(("change", "keys", "reservation", "write"), (6, 2, 2, 3))[0]:
            case "change":
                await self._change(session, client)
            case "write":
                await self.history.note(("write", client, self._type), self._write(session, client))
            case "keys":
                await self.history.note(("keys",), self._ask(session, READ_KEYS))
            case _:
                await self.history.note(("reservation",), self._ask(session, READ_RESERVATION))

    async def _change(self, session, client):
        action = self._chance.choices([*CHANGES], [*CHANGES.values()])[0]
        key, other = self._keys.get(client, 0), 0
        if action in (REGISTER, REGISTER_AND_IGNORE):
            self._last += 1
            other = 0 if key and self._chance.random() < 0.3 else self._last
        elif action == PREEMPT:
            other = self._chance.choice([each for each in self._keys.values() if each not in (0, key)] or [99_999])
        what = ("change", action, client, key, other, self._type)
        result = await self.history.note(what, self._reserve_out(session, action, key, other))
        if result == "ok" and action in (REGISTER, REGISTER_AND_IGNORE):
            self._keys[client] = other

    async def _reserve_out(self, session, action, key, other):
        flags = 0x01 if self._durable and action in (REGISTER, REGISTER_AND_IGNORE) else 0
        parameters = struct.pack(">QQ4xB3x", key, other, flags)
        cdb = struct.pack(">BBB2xIx6x", 0x5F, action, self._type, len(parameters))
        return _verdict(await session.execute(self._lun, cdb, parameters, insistent=True))

    async def _ask(self, session, action):
        cdb = struct.pack(">BB5xHx6x", 0x5E, action, 256)
        outcome = await session.execute(self._lun, cdb, data_in_octets=256, insistent=True)
        if outcome.status != GOOD:
            return _verdict(outcome)
        generation, octets = struct.unpack_from(">II", outcome.data)
        if action == READ_KEYS:
            return generation, tuple(sorted(struct.unpack_from(f">{octets // 8}Q", outcome.data, 8)))
        if not octets:
            return generation, None, None
        key, kind = struct.unpack_from(">Q5xB", outcome.data, 8)
        return generation, key, kind & 0x0F

    async def _write(self, session, client):
        cdb = struct.pack(">BBIxHx6x", 0x2A, 0, 100 + client, 1)
        return _verdict(await session.execute(self._lun, cdb, bytes(BLOCK), insistent=True))

    def wrong(self):
        """Return the first answer that no order of the calls explains, None if there is none."""
        return first_wrong(self.history.closed, Model((0, (), None, None), _reservation))


def _verdict(outcome):
    names = {GOOD: "ok", RESERVATION_CONFLICT: "conflict"}
    return names.get(outcome.status) or f"status {outcome.status:02X} {outcome.sense}"


def _reservation(state, what, result):
    """SPC-4 r37 5.12: ``state`` is the generation, keys by client, the holder, and the type that it holds."""
    generation, registered, holder, kind = state
    keys = dict(registered)
    match what:
        case ("keys",):
            return (state,) if result in (None, (generation, tuple(sorted(keys.values())))) else ()
        case ("reservation",):
            return (state,) if result in (None, (generation, keys.get(holder), kind)) else ()
        case ("write", client, _):
            allowed = holder in (None, client) or (kind == REGISTRANTS_ONLY and client in keys)
            return (state,) if result in (None, "ok" if allowed else "conflict") else ()
        case (_, action, client, key, other, wanted):
            after = _changed(state, action, client, key, other, wanted)
            if after is None:
                return (state,) if result in (None, "conflict") else ()
            return (after,) if result in (None, "ok") else ()


def _changed(state, action, client, key, other, wanted):
    """Return the state after a change that is allowed, None for a conflict."""
    generation, registered, holder, kind = state
    keys = dict(registered)
    if action != REGISTER_AND_IGNORE and keys.get(client, 0) != key:
        return None
    if action not in (REGISTER, REGISTER_AND_IGNORE) and client not in keys:
        return None
    match action:
        case 0 | 6:
            keys = {each: own for each, own in keys.items() if each != client} | ({client: other} if other else {})
        case 1:
            return (generation, registered, client, wanted) if holder in (None, client) else None
        case 2:
            return (generation, registered, None, None) if holder == client else state
        case 3:
            keys = {}
        case _:
            if other not in keys.values():
                return None
            taken = holder is not None and keys.get(holder) == other
            keys = {each: own for each, own in keys.items() if own != other}
            holder, kind = (client, wanted) if taken else (holder, kind)
    if holder not in keys:
        holder, kind = None, None
    return generation + 1, tuple(sorted(keys.items())), holder, kind


def play(kind, target, calls, *, kill_after=None):
    """Have all clients do so many calls at most, each its own; the target is killed after so many seconds, if any."""
    asyncio.run(_play(kind, target, calls, kill_after))


async def _play(kind, target, calls, kill_after):
    sessions = await open_clients(target.portal, target.target, kind.clients)
    wanted = len(kind.history.calls) + calls

    async def client(number, session):
        with suppress(CommandLostError, UnavailableError):
            while len(kind.history.calls) < wanted or kill_after is not None:
                await kind.one(session, number)

    working = asyncio.gather(*(client(number, session) for number, session in enumerate(sessions)))
    if kill_after is not None:
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(working), kill_after)
        await asyncio.to_thread(target.kill)
        kind.history.killed_at(time.monotonic())
    await working
    for session in sessions:
        await session.abort()
