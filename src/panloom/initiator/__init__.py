"""Our own iSCSI initiator: disks of any target, in asyncio.

    async with await Session.open(("192.0.2.1", 3260), initiator=…, target=…, user=…, secret=…) as session:
        for lun in await session.luns():
            blocks, block_octets = await session.capacity(lun)
            octets = await session.read(lun, 0, 4096)
            await session.write(lun, 0, octets, fua=True)

    targets = await discover(("192.0.2.1", 3260), initiator=…)

``session`` holds the calls, ``driver`` the socket and the clock, ``paths`` the portals of a unit that has several; the
protocol itself is ``protocol.iscsi_initiator``.
"""

from panloom.initiator.driver import Connector
from panloom.initiator.paths import Paths
from panloom.initiator.session import Capacity, FoundTarget, Session, discover
from panloom.protocol.iscsi_initiator_connection import Timing
from panloom.protocol.iscsi_initiator_login import LoginRefusedError
from panloom.protocol.iscsi_initiator_task import CommandError, CommandLostError, Outcome

__all__ = [
    "Capacity",
    "CommandError",
    "CommandLostError",
    "Connector",
    "FoundTarget",
    "LoginRefusedError",
    "Outcome",
    "Paths",
    "Session",
    "Timing",
    "discover",
]
