"""Octets of a donor's disk, read by our own initiator: the same way for our volumes and for any other target.

    volume ─▶ snapshot ─▶ clone ─▶ target of its own ─┐
                                                      ├─▶ login ─▶ READ, a few at once ─▶ file with holes for zeroes
    unit of another target ───────────────────────────┘

The donor is only ever read, and a volume's server goes on meanwhile: the image is what its disk would hold after a
power cut at that moment.  Snapshot, clone and target have names that the image's gives, so a capture that a crash
interrupted finds its own again, and takes them away when it is done.
"""

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

from panloom.control import failpoint
from panloom.decide.records import BASE_IQN
from panloom.errors import ConfigError, UnavailableError
from panloom.initiator import Session
from panloom.model.donors import TargetDonor, VolumeDonor, parse_donor
from panloom.model.resources import Image
from panloom.storage.client import StorageClient
from panloom.storage.exports import Access, ExportedLun
from panloom.storage.portals import parse_portal
from panloom.values import Iqn

INITIATOR = Iqn(f"{BASE_IQN}:capture")
PIECE_OCTETS, PIECES_AT_ONCE = 4 << 20, 4
HOLE_OCTETS = 64 << 10
MAX_OCTETS = 1 << 44  # as large as a volume
_ZEROES = bytes(HOLE_OCTETS)
EPOCH = 1  # of the target that a clone is exported by: nobody else ever is


async def capture(image: Image, storage: StorageClient, path: Path, disk_of: Callable[[str], str]) -> None:
    """Copy the disk of an image's donor to a new file; ``disk_of`` says which volume a name means by now.

    ConfigError: the donor is no disk that can become an image, or its secret cannot be read.  PeerError or
    UnavailableError: the target refuses, or does not answer.  OSError: there is no room for the file.
    """
    donor = parse_donor(image.capture)
    if isinstance(donor, TargetDonor):
        async with await _login(donor, image.user, _secret(image)) as session:
            await _copy(session, donor.lun, path, image.capture)
        return
    if donor.snapshot is None:
        donor = VolumeDonor(disk_of(donor.volume), None)
    async with (
        _exported(donor, image, storage) as (target, user, secret),
        await _login(target, user, secret) as session,
    ):
        await _copy(session, target.lun, path, image.capture)
        failpoint.reached("captured")


def _secret(image: Image) -> str | None:
    if image.secret_file is None:
        return None
    try:
        return Path(image.secret_file).read_text().rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(image.secret_file, f"the donor's secret cannot be read: {error}") from error


async def _login(donor: TargetDonor, user: str | None, secret: str | None) -> Session:
    return await Session.open(donor.portal, initiator=INITIATOR, target=donor.target, user=user, secret=secret)


@asynccontextmanager
async def _exported(
    donor: VolumeDonor, image: Image, storage: StorageClient
) -> AsyncIterator[tuple[TargetDonor, str, str]]:
    """Lend a target that shows what a volume or a snapshot holds, with user and secret."""
    name = f"capture-{hashlib.sha256(image.label.encode()).hexdigest()[:16]}"
    snapshot = donor.snapshot or f"{donor.volume}@{name}"
    target, secret = Iqn(f"{BASE_IQN}:{name}"), secrets.token_hex(8)
    try:
        if donor.snapshot is None:
            await storage.take_snapshot(snapshot)
        await storage.create_volume(name, None, 0, snapshot=snapshot)
        lun = ExportedLun(0, volume=name, read_only=True)
        await storage.export(str(target), (lun,), EPOCH, Access(str(INITIATOR), user=name, secret=secret))
        yield TargetDonor(await portal_of(storage), target, 0), name, secret
    finally:
        await storage.drop(str(target))
        await storage.unexport(str(target), EPOCH)
        await storage.delete_volume(name)
        if donor.snapshot is None:
            await storage.delete_snapshot(snapshot)


async def portal_of(storage: StorageClient) -> tuple[str, int]:
    """Return where the storage process listens, as this machine reaches it."""
    told = (await storage.status()).portals or ()
    if not told:
        raise UnavailableError("the storage process listens at no portal")
    address, port = parse_portal(told[0])
    if ip_address(address).is_unspecified:
        address = "127.0.0.1" if ip_address(address).version == 4 else "::1"
    return address, port


async def _copy(session: Session, lun: int, path: Path, donor: str) -> None:
    capacity = await session.capacity(lun)
    if not 0 < capacity.octets <= MAX_OCTETS or capacity.octets % 512 or PIECE_OCTETS % capacity.block_octets:
        why = f"has {capacity.blocks} blocks of {capacity.block_octets} octets: no disk that can become an image"
        raise ConfigError(donor, why)
    offsets = iter(range(0, capacity.octets, PIECE_OCTETS))
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(file, capacity.octets)

        async def copy_some() -> None:
            for offset in offsets:  # shared by all: each takes the next piece
                piece = await session.read(lun, offset, min(PIECE_OCTETS, capacity.octets - offset))
                await asyncio.to_thread(write_sparse, file, piece, offset)

        tasks = [asyncio.create_task(copy_some()) for _ in range(PIECES_AT_ONCE)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        os.close(file)


def write_sparse(file: int, octets: bytes, offset: int) -> None:
    """Write to a file that holds zeroes there, leaving out what is zero."""
    for start in range(0, len(octets), HOLE_OCTETS):
        piece = octets[start : start + HOLE_OCTETS]  # a copy, which compares by memcmp
        if piece == _ZEROES[: len(piece)]:
            continue
        done = 0
        while done < len(piece):
            done += os.pwrite(file, piece[done:], offset + start + done)
