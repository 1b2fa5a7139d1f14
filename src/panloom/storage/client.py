"""The control channel's client: one method for each call, for one event loop.

It connects when it is first needed, and again after the storage process was restarted.  Every call raises
UnavailableError while the process does not answer, or answers what this program cannot read; whether the call was
executed is then unknown, and calling again is always right.
"""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from panloom.errors import ConfigError, ConflictError, UnavailableError
from panloom.storage import calls
from panloom.storage.exports import Access, ExportedLun, Moved
from panloom.storage.limits import Limits

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


class StorageClient:
    """A storage process, as the control process sees it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids = itertools.count(1)
        self._connecting = asyncio.Lock()
        self._link: _Link | None = None

    async def import_image(self, name: str, source: Path) -> calls.ImageFacts:
        """Copy a file in as the image ``web@1``; ConflictError if that name has other content."""
        return await self._call(calls.ImportImage(id=next(self._ids), name=name, source=str(source)), calls.ImageFacts)

    async def delete_image(self, name: str) -> None:
        """Destroy an image; ConflictError while a volume or a snapshot is read through it."""
        await self._call(calls.DeleteImage(id=next(self._ids), name=name), type(None))

    async def create_volume(
        self,
        name: str,
        image: str | None,
        size_octets: int,
        *,
        snapshot: str | None = None,
        thick: bool = False,
        image_sha256: str | None = None,
    ) -> calls.Created:
        """Clone an image or a snapshot, size 0 meaning its own.

        ConflictError if the volume exists and is another, or if the image is no longer that of ``image_sha256``.
        """
        call = calls.CreateVolume(
            id=next(self._ids),
            name=name,
            image=image,
            size_octets=size_octets,
            image_sha256=image_sha256,
            snapshot=snapshot,
            thick=thick,
        )
        return await self._call(call, calls.Created)

    async def grow_volume(self, name: str, octets: int) -> None:
        """Make a volume larger, and tell its sessions; ConflictError if it would become smaller."""
        await self._call(calls.GrowVolume(id=next(self._ids), name=name, octets=octets), type(None))

    async def limit_volume(self, name: str, limits: Limits) -> None:
        """Hold a volume to limits, durably and at once; ConflictError if it is not exported."""
        await self._call(calls.LimitVolume(id=next(self._ids), name=name, limits=limits), type(None))

    async def take_snapshot(self, name: str) -> bool:
        """Freeze what a volume holds as VOLUME@NAME; return whether that is new."""
        return await self._call(calls.TakeSnapshot(id=next(self._ids), name=name), bool)

    async def delete_snapshot(self, name: str) -> None:
        """Delete a snapshot; ConflictError while a clone is read through it."""
        await self._call(calls.DeleteSnapshot(id=next(self._ids), name=name), type(None))

    async def flatten_volume(self, name: str) -> None:
        """Begin to make a volume independent of image and snapshots."""
        await self._call(calls.FlattenVolume(id=next(self._ids), name=name), type(None))

    async def delete_volume(self, name: str) -> None:
        """Destroy a volume; ConflictError while it is exported."""
        await self._call(calls.DeleteVolume(id=next(self._ids), name=name), type(None))

    async def volumes(self) -> calls.Volumes:
        """Return all volumes and images."""
        return await self._call(calls.ListVolumes(id=next(self._ids)), calls.Volumes)

    async def export(
        self,
        target: str,
        luns: Sequence[ExportedLun],
        epoch: int,
        access: Access | None,
        *,
        moved: Moved | None = None,
    ) -> None:
        """Export a target or replace it, durably; ConflictError if the epoch is over.

        ``moved``: send who may log in there instead; ConfigError if there is here.
        """
        call = calls.ExportTarget(
            id=next(self._ids), target=target, luns=tuple(luns), epoch=epoch, access=access, moved=moved
        )
        await self._call(call, type(None))

    async def revoke(self, target: str, epoch: int) -> None:
        """Let nobody log in and no session write, durably; ConflictError if the epoch is over."""
        await self._call(calls.Revoke(id=next(self._ids), target=target, epoch=epoch), type(None))

    async def drop(self, target: str) -> int:
        """Shut all connections to the target down; return how many there were."""
        return await self._call(calls.Drop(id=next(self._ids), target=target), int)

    async def drain(self, target: str) -> tuple[str, ...]:
        """Wait until no command of a dropped connection is executing; return why volumes are not flushed."""
        return await self._call(calls.Drain(id=next(self._ids), target=target), tuple[str, ...])

    async def unexport(self, target: str, epoch: int) -> None:
        """Forget an export; its volumes remember the epoch."""
        await self._call(calls.Unexport(id=next(self._ids), target=target, epoch=epoch), type(None))

    async def platforms(self, *, scan: bool = False) -> calls.Platforms:
        """Return the platforms and their devices, as of the last scan or of one now."""
        return await self._call(calls.ListPlatforms(id=next(self._ids), scan=scan), calls.Platforms)

    async def statistics(self) -> calls.Statistics:
        """Return what each device has done."""
        return await self._call(calls.GetStatistics(id=next(self._ids)), calls.Statistics)

    async def reopen_volume(self, name: str) -> None:
        """Open a volume anew that is offline; UnavailableError if its disk still fails."""
        await self._call(calls.ReopenVolume(id=next(self._ids), name=name), type(None))

    async def status(self) -> calls.Status:
        """Return what is exported and who is there."""
        return await self._call(calls.GetStatus(id=next(self._ids)), calls.Status)

    async def watch(self) -> AsyncIterator[calls.Event]:
        """Return events as they happen, over a connection of its own; UnavailableError when that ends."""
        reader, writer = await self._open()
        try:
            writer.write(_line(calls.Watch(id=0)))
            _result(msgspec.json.decode(await _read_line(reader), type=calls.Answer), type(None))
            while True:
                yield msgspec.json.decode(await _read_line(reader), type=calls.Event)
        except ConnectionError as error:
            raise self._unavailable() from error
        except ValueError as error:
            raise _unreadable(error) from error
        finally:
            writer.close()

    async def close(self) -> None:
        """Close the connection; calls that wait get UnavailableError."""
        if self._link:
            await self._link.close()

    async def _call(self, call: calls.Call, kind: type[Result]) -> Result:
        async with self._connecting:
            if self._link is None or self._link.ended:
                self._link = _Link(*await self._open())
        try:
            answer = await self._link.ask(call)
        except ConnectionError as error:
            raise self._unavailable() from error
        return _result(answer, kind)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_unix_connection(self._path, limit=calls.MAX_LINE_OCTETS)
        except OSError as error:
            raise self._unavailable() from error

    def _unavailable(self) -> UnavailableError:
        return UnavailableError(f"the storage process does not answer at {self._path}; is it running?")


class _Link:
    """One connection, and the calls that wait for an answer over it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ended = False
        self._reader = reader
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[calls.Answer]] = {}
        self._reading = asyncio.create_task(self._read())

    async def ask(self, call: calls.Call) -> calls.Answer:
        """Send a call and return its answer; ConnectionError when the connection ends before."""
        future: asyncio.Future[calls.Answer] = asyncio.get_running_loop().create_future()
        self._waiting[call.id] = future
        try:
            self._writer.write(_line(call))
            await self._writer.drain()
            return await future
        except ConnectionError:
            self.ended = True
            raise
        finally:
            self._waiting.pop(call.id, None)

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        await self._reading

    async def _read(self) -> None:
        try:
            while True:
                answer = msgspec.json.decode(await _read_line(self._reader), type=calls.Answer)
                future = self._waiting.get(answer.id or 0)
                if future and not future.done():
                    future.set_result(answer)
        except ConnectionError:
            pass  # the process has gone, or we close
        except ValueError as error:  # no answer, or one without end: nothing after it can be trusted
            _log.warning("channel=broken why=%r", str(error))
        self.ended = True
        self._writer.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionResetError())


def _line(call: calls.Call) -> bytes:
    return msgspec.json.encode(call) + b"\n"


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise ConnectionResetError
    return line


def _unreadable(error: ValueError) -> UnavailableError:
    return UnavailableError(f"the storage process answers what cannot be read: {error}; run the same version of both")


def _result(answer: calls.Answer, kind: type[Result]) -> Result:
    match answer.error:
        case None:
            try:
                return msgspec.json.decode(answer.ok, type=kind)
            except ValueError as error:
                raise _unreadable(error) from error
        case calls.Error(kind="config", where=where, why=why):
            raise ConfigError(where or "storage", why)
        case calls.Error(kind="conflict", why=why):
            raise ConflictError(why)
        case calls.Error(why=why):
            raise UnavailableError(why)
