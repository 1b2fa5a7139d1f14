"""Disks that are used and checked by our initiator: what is read is what was written, at once and in the end."""

import hashlib
import random

from panloom.initiator import Session
from panloom.values import Iqn

MIB = 1 << 20
N1 = Iqn("iqn.2026-11.dev.panloom:node.n1")


def made(path, octets=8 * MIB):
    """Make an empty file."""
    with path.open("wb") as file:
        file.truncate(octets)
    return path


def node(number):
    return Iqn(f"iqn.2026-11.dev.panloom:node.n{number}")


def opened(port, target, *, initiator=N1, **options):
    """Open a session; await it."""
    options.setdefault("reconnect_seconds", 0)
    return Session.open(("127.0.0.1", port), initiator=initiator, target=Iqn(str(target)), **options)


async def checked(session, lun, *, start, octets, seed, rounds=24, thin=True):
    """Write, flush, read and give back at random inside a range, and compare everything at the end."""
    order = random.Random(seed)
    content = bytearray(await session.read(lun, start, octets))
    for number in range(rounds):
        length = order.choice((512, 4096, 65536))
        at = order.randrange(0, (octets - length) // 512 + 1) * 512
        if number % 8 == 7 and thin:
            await session.unmap(lun, start + at, length)
            content[at : at + length] = bytes(length)
        elif number % 3 == 2:
            assert await session.read(lun, start + at, length) == content[at : at + length]
        else:
            data = order.randbytes(length)
            await session.write(lun, start + at, data, fua=number % 5 == 0)
            content[at : at + length] = data
    await session.flush(lun)
    found = await session.read(lun, start, octets)
    assert hashlib.sha256(found).digest() == hashlib.sha256(content).digest()
