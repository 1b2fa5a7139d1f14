"""A clone that is larger than what it was made of: its partition table is made as long as the disk before it boots.

    storage process ── the server's own target, for us alone ──▶ read both tables ─▶ wire.gpt.grown
                                                              ◀── the one at the end, flush, the one at the beginning

The file system is the system's own to grow, once it is mounted: ext4 does so online and journals it.  Whatever is cut
off here is done again, since no machine is admitted to the disk before its record says that it is prepared.
"""

import secrets

from panloom.control.image_capture import portal_of
from panloom.decide.records import BASE_IQN, target_of
from panloom.initiator import Session
from panloom.storage.client import StorageClient
from panloom.storage.exports import Access, ExportedLun
from panloom.values import Iqn
from panloom.wire import gpt

INITIATOR = Iqn(f"{BASE_IQN}:prepare")
_USER = "prepare"


async def grow_partitions(server: str, volume: str, epoch: int, storage: StorageClient) -> bool:
    """Make the last partition of a server's disk as long as the disk; return whether there was anything to grow.

    Nobody else may have the disk.  PanloomError: not done, or not all of it; it may be done again.
    """
    target, secret = target_of(server), secrets.token_hex(8)
    lun = ExportedLun(0, volume=volume)
    await storage.export(str(target), (lun,), epoch, Access(str(INITIATOR), user=_USER, secret=secret))
    try:
        portal = await portal_of(storage)
        async with await Session.open(portal, initiator=INITIATOR, target=target, user=_USER, secret=secret) as session:
            return await _grow(session)
    finally:
        await storage.drop(str(target))
        await storage.unexport(str(target), epoch)


async def _grow(session: Session) -> bool:
    capacity = await session.capacity(0)
    head, tail = (1 + gpt.TABLE_SECTORS) * gpt.SECTOR_OCTETS, gpt.TABLE_SECTORS * gpt.SECTOR_OCTETS
    if capacity.octets < head + tail:
        return False
    begin, end = await session.read(0, 0, head), await session.read(0, capacity.octets - tail, tail)
    made = gpt.grown(begin, end, capacity.octets // gpt.SECTOR_OCTETS)
    if made is None:
        return False
    await session.write(0, capacity.octets - tail, made.end, fua=True)
    await session.write(0, 0, made.begin, fua=True)
    return True
