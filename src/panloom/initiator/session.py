"""Sessions with targets, as their users see them: logical units, blocks, and what went wrong.

A call on a broken session waits until the session is back, and ends in UnavailableError after ``reconnect_seconds``.
"""

import os
from contextlib import ExitStack
from types import TracebackType
from typing import NamedTuple, Self

import msgspec

from panloom.errors import MalformedError
from panloom.initiator.driver import Connector, Driver
from panloom.protocol.chap import MD5, SHA256, Secrets
from panloom.protocol.iscsi_initiator import InitiatorSession
from panloom.protocol.iscsi_initiator_connection import Timing
from panloom.protocol.iscsi_initiator_keys import NONE, Agreed, Wishes
from panloom.protocol.iscsi_initiator_login import Identity
from panloom.protocol.iscsi_initiator_task import GOOD, Command, CommandError, Outcome
from panloom.values import Iqn
from panloom.wire import scsi_answers, scsi_cdb, scsi_sense
from panloom.wire.iscsi_text import Portal, decode_pairs, decode_portal
from panloom.wire.scsi_cdb import BlockCommand, Operation

MAX_TRANSFER_OCTETS = 8 << 20  # of one command; a longer transfer is several, one after the other
LUN_LIST_OCTETS = 8 + 8 * 16384  # every LUN that there can be
UNMAP_BLOCKS = 65536  # of one command, where the unit does not say more or less
INQUIRY_OCTETS = 255
PATIENCE = Timing()


class Capacity(NamedTuple):
    """How large a unit is."""

    blocks: int
    block_octets: int

    @property
    def octets(self) -> int:
        """Return the octets of the whole unit."""
        return self.blocks * self.block_octets


class FoundTarget(msgspec.Struct, frozen=True, gc=False):
    """A target that discovery has shown, and where it listens."""

    name: Iqn
    portals: tuple[Portal, ...]


class Session:
    """One session with one target, over one connection at a time; made by ``open``.

    Many calls may be under way at once; they are sent in the order in which they were made, as far as the target's
    command window allows, and may be carried out in any.  Cancelling one has the target abort it and leaves the others
    alone; a cancelled write may have been carried out, in part too.

    When the connection breaks, the session logs in again with the same ISID and sends every call without an answer
    again.  That changes nothing: a read, a write or an unmap done twice is done once, as long as the caller has no two
    writes to the same blocks under way at once.  For ``execute`` see there.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._capacities: dict[int, Capacity] = {}
        self._unmap_blocks: dict[int, int] = {}

    @classmethod
    async def open(
        cls,
        portal: tuple[str, int],
        *,
        initiator: Iqn,
        target: Iqn,
        user: str | None = None,
        secret: str | None = None,
        target_user: str | None = None,
        target_secret: str | None = None,
        chap_algorithms: tuple[str, ...] = (MD5, SHA256),
        isid: bytes | None = None,
        header_digest: tuple[str, ...] = (NONE,),
        data_digest: tuple[str, ...] = (NONE,),
        reconnect_seconds: float | None = None,
        timing: Timing = PATIENCE,
        wishes: Wishes | None = None,
        portal_group: int | None = None,
        local_address: str | None = None,
        connect: Connector | None = None,
    ) -> Self:
        """Log in, in one attempt of at most ``timing.login_seconds``, and return the session.

        ``user`` and ``secret`` prove the initiator (CHAP); ``target_secret``, and ``target_user`` where it is given,
        must be proved by the target in return.  ``chap_algorithms``: the wanted one first; some targets mistake SHA256
        for something else, so MD5 is.  ``isid``: 6 octets, a new one for each session unless given.  Digests
        are lists, the wanted one first: ``("CRC32C", "None")`` takes what it gets, ``("CRC32C",)`` insists.
        ``reconnect_seconds`` is short for that of ``timing``; 0 never logs in again.  ``wishes`` sets digests and all
        other operational keys at once.  ``portal_group`` refuses any other portal group.  ``connect`` makes a connected
        TCP socket to (address, port), where it must not be an ordinary one.

        LoginRefusedError: the target's refusal.  RefusedError: the target has not proved itself, or wants what we
        cannot agree to.  UnavailableError: it cannot be reached or does not answer.  MalformedError: it is no target.
        ValueError: arguments that contradict each other.
        """
        identity = Identity(
            initiator=initiator,
            target=target,
            isid=new_isid() if isid is None else isid,
            secrets=Secrets(user, secret, target_user, target_secret, chap_algorithms),
            portal_group=portal_group,
        )
        if reconnect_seconds is not None:
            timing = msgspec.structs.replace(timing, reconnect_seconds=reconnect_seconds)
        asked = wishes or Wishes(header_digest=header_digest, data_digest=data_digest)
        driver = Driver(
            str(target),
            lambda now: InitiatorSession(identity, Portal(*portal), wishes=asked, timing=timing, now=now),
            connect=connect,
            local_address=local_address,
        )
        await _opened(driver)
        return cls(driver)

    @property
    def agreed(self) -> Agreed | None:
        """Return what the connection's login has agreed on; None while there is no connection."""
        return self._driver.agreed

    @property
    def logins(self) -> int:
        """Return how often the session has logged in: once, and again after each outage."""
        return self._driver.logins

    async def close(self) -> None:
        """Log out and close the connection; calls under way end in UnavailableError."""
        await self._driver.close()

    async def ended(self) -> None:
        """Wait until the session is over: closed, refused on its way back, or not back within its time."""
        await self._driver.ended()

    async def abort(self) -> None:
        """Close the connection without a logout, as firmware does when the kernel takes over."""
        self._driver.abandon()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # -- commands ------------------------------------------------------------------------------------------------

    async def execute(
        self, lun: int, cdb: bytes, data_out: bytes = b"", data_in_octets: int = 0, *, insistent: bool = False
    ) -> Outcome:
        """Have any command carried out and return how it ended, a CHECK CONDITION included.

        ``data_in_octets`` is the most that may come.  ``insistent``: a UNIT ATTENTION, BUSY or TASK SET FULL is tried
        again, a few times, as all other calls here do.  After a broken connection the command is sent again if its
        operation code is one of ``scsi_cdb.Operation`` or only looks at the unit; else it ends in CommandLostError.
        """
        command = Command(
            lun=lun,
            cdb=bytes(cdb),
            data_out=bytes(data_out),  # the caller's buffer may change; bytes are not copied
            data_in_octets=data_in_octets,
            insistent=insistent,
        )
        return await self._driver.execute(command)

    async def reset_unit(self, lun: int) -> None:
        """Have the target abort every command to a unit; those of this session end in CommandLostError."""
        await self._driver.reset_unit(lun)

    async def luns(self) -> tuple[int, ...]:
        """Return the logical unit numbers of the target."""
        cdb = scsi_cdb.ReportLuns(0, LUN_LIST_OCTETS)
        outcome = await self._do(0, "REPORT LUNS", cdb, data_in_octets=LUN_LIST_OCTETS)
        return scsi_answers.decode_luns(outcome.data)

    async def capacity(self, lun: int) -> Capacity:
        """Return how large a unit is now."""
        cdb: scsi_cdb.Cdb = scsi_cdb.ServiceActionIn16(scsi_cdb.READ_CAPACITY_16, 0, 32)
        try:
            outcome = await self._do(lun, "READ CAPACITY(16)", cdb, data_in_octets=32)
            capacity = Capacity(*scsi_answers.decode_capacity(outcome.data, long=True))
        except CommandError as error:
            if error.sense is None or error.sense.code != scsi_sense.INVALID_OPERATION.code:
                raise
            cdb = scsi_cdb.Plain(Operation.READ_CAPACITY_10)
            outcome = await self._do(lun, "READ CAPACITY(10)", cdb, data_in_octets=8)
            capacity = Capacity(*scsi_answers.decode_capacity(outcome.data, long=False))
        self._capacities[lun] = capacity
        return capacity

    async def read(self, lun: int, offset_octets: int, octets: int) -> bytes:
        """Return octets of a unit; offset and length are whole blocks.

        CommandError: the unit refuses, as beyond its end.
        """
        pieces = []
        for lba, blocks, block_octets in await self._pieces(lun, offset_octets, octets):
            wanted = blocks * block_octets
            cdb = BlockCommand(_form(Operation.READ_10, Operation.READ_16, lba, blocks), 0, lba, blocks)
            outcome = await self._do(lun, f"READ of {blocks} blocks at {lba}", cdb, data_in_octets=wanted)
            if len(outcome.data) != wanted:
                raise MalformedError(f"READ of {blocks} blocks at {lba}: {len(outcome.data)} octets come")
            pieces.append(outcome.data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def write(self, lun: int, offset_octets: int, data: bytes, fua: bool = False) -> None:
        """Write whole blocks; ``fua``: they are on the medium when this returns, not only in the unit's cache."""
        done = 0
        for lba, blocks, block_octets in await self._pieces(lun, offset_octets, len(data)):
            octets = blocks * block_octets
            cdb = BlockCommand(
                _form(Operation.WRITE_10, Operation.WRITE_16, lba, blocks), scsi_cdb.FUA if fua else 0, lba, blocks
            )
            piece = data if octets == len(data) else data[done : done + octets]
            outcome = await self._do(lun, f"WRITE of {blocks} blocks at {lba}", cdb, data_out=piece)
            if outcome.residual:
                raise MalformedError(f"WRITE of {blocks} blocks at {lba}: {outcome.residual} octets are left")
            done += octets

    async def flush(self, lun: int) -> None:
        """Have all that was written and answered put on the medium."""
        await self._do(lun, "SYNCHRONIZE CACHE", BlockCommand(Operation.SYNCHRONIZE_CACHE_10, 0, 0, 0))

    async def unmap(self, lun: int, offset_octets: int, octets: int) -> None:
        """Let the unit forget whole blocks; what a read then gives is the unit's choice, usually zeroes."""
        if lun not in self._unmap_blocks:
            self._unmap_blocks[lun] = await self._ask_unmap_blocks(lun)
        most = self._unmap_blocks[lun]
        for lba, blocks, _ in await self._pieces(lun, offset_octets, octets, most_blocks=most):
            ranges = scsi_cdb.encode_unmap_list(((lba, blocks),))
            what = f"UNMAP of {blocks} blocks at {lba}"
            await self._do(lun, what, scsi_cdb.Unmap(0, len(ranges)), data_out=ranges)

    async def _ask_unmap_blocks(self, lun: int) -> int:
        """Return how many blocks one UNMAP may have."""
        cdb = scsi_cdb.Inquiry(scsi_cdb.ENABLE_VITAL_PAGE, scsi_answers.BLOCK_LIMITS, INQUIRY_OCTETS)
        try:
            outcome = await self._do(lun, "INQUIRY", cdb, data_in_octets=INQUIRY_OCTETS)
            blocks, _ = scsi_answers.decode_unmap_limits(outcome.data)
        except (CommandError, MalformedError):
            blocks = 0
        return min(blocks or UNMAP_BLOCKS, 0xFFFFFFFF)

    async def _pieces(
        self, lun: int, offset_octets: int, octets: int, *, most_blocks: int | None = None
    ) -> list[tuple[int, int, int]]:
        """Divide an extent into commands of (LBA, blocks, octets of a block)."""
        block_octets = (self._capacities.get(lun) or await self.capacity(lun)).block_octets
        if offset_octets < 0 or offset_octets % block_octets or octets % block_octets:
            raise ValueError(f"{octets} octets at {offset_octets}: no whole blocks of {block_octets} octets")
        most = most_blocks or max(1, MAX_TRANSFER_OCTETS // block_octets)
        first, end = offset_octets // block_octets, (offset_octets + octets) // block_octets
        return [(lba, min(most, end - lba), block_octets) for lba in range(first, end, most)]

    async def _do(
        self, lun: int, what: str, cdb: scsi_cdb.Cdb, *, data_out: bytes = b"", data_in_octets: int = 0
    ) -> Outcome:
        """Have a command carried out; CommandError unless it ends in GOOD."""
        outcome = await self.execute(lun, scsi_cdb.encode(cdb), data_out, data_in_octets, insistent=True)
        if outcome.status != GOOD:
            raise CommandError(f"unit {lun}: {what}", outcome.status, outcome.sense)
        return outcome


async def discover(
    portal: tuple[str, int],
    *,
    initiator: Iqn,
    user: str | None = None,
    secret: str | None = None,
    target_user: str | None = None,
    target_secret: str | None = None,
    timing: Timing = PATIENCE,
    local_address: str | None = None,
    connect: Connector | None = None,
) -> tuple[FoundTarget, ...]:
    """Return the targets that a portal shows this initiator (RFC 7143 appendix C); errors as ``Session.open``."""
    identity = Identity(
        initiator=initiator,
        target=None,
        isid=new_isid(),
        secrets=Secrets(user, secret, target_user, target_secret),
    )
    once = msgspec.structs.replace(timing, reconnect_seconds=0.0)
    driver = Driver(
        f"discovery at {portal[0]}",
        lambda now: InitiatorSession(identity, Portal(*portal), wishes=Wishes(), timing=once, now=now),
        connect=connect,
        local_address=local_address,
    )
    await _opened(driver)
    try:
        text = await driver.send_targets()
    finally:
        await driver.close()
    return decode_targets(text, Portal(*portal))


def decode_targets(text: bytes, asked: Portal) -> tuple[FoundTarget, ...]:
    """Return the targets in an answer to SendTargets.

    A target without an address of its own listens at the portal that was ``asked``.  MalformedError: no such answer.
    """
    found: dict[Iqn, list[Portal]] = {}
    portals: list[Portal] = []
    for key, value in decode_pairs(text):
        if key == "TargetName":
            try:
                portals = found.setdefault(Iqn.parse(value), [])
            except ValueError as error:
                raise MalformedError(f"discovery: {error}") from error
        elif key == "TargetAddress" and found:
            portals.append(decode_portal(value))
        else:
            raise MalformedError(f"discovery: {key[:40]} is not what was asked for")
    return tuple(FoundTarget(name, tuple(portals) or (asked,)) for name, portals in found.items())


def new_isid() -> bytes:
    """Return a random ISID (RFC 7143 section 11.12.5, type 10b)."""
    return b"\x80" + os.urandom(5)


async def _opened(driver: Driver) -> None:
    with ExitStack() as opened:
        opened.callback(driver.abandon)  # for a cancelled caller, too: nobody else would close it
        await driver.opened()
        opened.pop_all()


def _form(ten: Operation, sixteen: Operation, lba: int, blocks: int) -> Operation:
    """Return the shortest form of a command that has room for its extent."""
    return ten if lba + blocks <= 1 << 32 and blocks <= 0xFFFF else sixteen
