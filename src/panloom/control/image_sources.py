"""Where an image's octets are taken from: a raw file as it stands, others unpacked or copied beside the state.

    donor's disk   ──image_capture──────────────▶ incoming/web@1 ─▶ gone again after the import
    raw            ───────────────────────────────────────────▶ the file itself
    qcow2, VMDK    ──setpriv … qemu-img convert──▶ incoming/web@1 ─▶ gone again after the import

What is half done when the process is killed is removed by the next start; ``qemu-img`` ends with its parent.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from panloom.control.image_capture import capture
from panloom.errors import ConfigError, MalformedError, RefusedError, UnavailableError
from panloom.model.resources import Image
from panloom.storage.client import StorageClient
from panloom.wire.disk_image import HEAD_OCTETS, DiskImage, recognise

PIECE_OCTETS = 8 << 20  # of a file that is read through: between two of them the work can be cancelled
MAX_IMAGE_OCTETS = 1 << 44  # as large as a volume
MEMORY_OCTETS = 4 << 30  # address space of qemu-img, whatever a header makes it allocate


class Source(msgspec.Struct, frozen=True):
    """A raw disk to import; ``sha256`` is that of the file it was unpacked from, None if it is that file."""

    path: Path
    format: str
    sha256: str | None


class ImageSources:
    """Makes raw disks of what documents name."""

    def __init__(self, directory: Path, storage: StorageClient) -> None:
        """Take the directory for what is on its way; nothing that lies there is of any use."""
        self._directory = directory
        self._storage = storage
        shutil.rmtree(directory, ignore_errors=True)

    @asynccontextmanager
    async def raw(self, image: Image, disk_of: Callable[[str], str] = str) -> AsyncIterator[Source]:
        """Lend an image's disk as a raw file; ``disk_of`` says which volume a donor's name means by now.

        ConfigError: the file or donor is none that can become an image, or not the one that the document means.
        PeerError: the donor's target refuses.  UnavailableError: it does not answer, there is no qemu-img, or no room.
        """
        if image.capture:
            async with self._captured(image, disk_of) as path:
                yield Source(path, "copy", None)
            return
        with _opened(image.source) as file:
            found = await _recognised(image, file)
            if found.format == "raw":
                await _check(image, _again(file))
                yield Source(Path(image.source), "raw", None)
                return
            path = self._directory / image.label
            try:
                digest = await self._unpack(image, file, found, path)
                yield Source(path, found.format, digest)
            finally:
                path.unlink(missing_ok=True)

    @asynccontextmanager
    async def _captured(self, image: Image, disk_of: Callable[[str], str]) -> AsyncIterator[Path]:
        path = self._directory / image.label
        try:
            try:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                await capture(image, self._storage, path, disk_of)
                await _check(image, path)
            except OSError as error:
                raise UnavailableError(f"{image.capture} cannot be copied: {error.strerror or error}") from error
            yield path
        finally:
            path.unlink(missing_ok=True)

    async def _unpack(self, image: Image, file: int, found: DiskImage, path: Path) -> str:
        try:
            digest = await sha256_of(_again(file))
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            await _convert(image.source, file, found, path)
            await _check(image, path)
        except OSError as error:
            raise UnavailableError(f"{image.source} cannot be unpacked: {error.strerror}") from error
        return digest


async def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex digits; it is read on a thread, piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := await asyncio.to_thread(file.read, PIECE_OCTETS):
            await asyncio.to_thread(digest.update, piece)
    return digest.hexdigest()


@contextlib.contextmanager
def _opened(source: str) -> Iterator[int]:
    try:
        file = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would wait for a writer
    except OSError as error:
        raise ConfigError(source, f"cannot be read as an image: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise ConfigError(source, "an image is a regular file that is not empty")
        yield file
    finally:
        os.close(file)


def _again(file: int) -> Path:
    """Return a name by which the same file is opened again, whatever its own name is given to meanwhile."""
    return Path(f"/proc/self/fd/{file}")


async def _recognised(image: Image, file: int) -> DiskImage:
    octets = os.fstat(file).st_size
    if image.format == "raw":
        return DiskImage("raw", octets)
    try:
        found = recognise(await asyncio.to_thread(os.pread, file, HEAD_OCTETS, 0), octets)
    except OSError as error:
        raise _unreadable(image, error) from error
    except (RefusedError, MalformedError) as error:
        raise ConfigError(image.source, str(error)) from error
    if image.format not in (None, found.format):
        raise ConfigError(image.source, f"is {found.format}, not {image.format} as its document says")
    if found.octets > MAX_IMAGE_OCTETS:
        raise ConfigError(image.source, f"is a disk of {found.octets} octets; the most is {MAX_IMAGE_OCTETS}")
    return found


def _unreadable(image: Image, error: OSError) -> UnavailableError:
    return UnavailableError(f"{image.origin} cannot be read: {error.strerror or error}")


async def _check(image: Image, path: Path) -> None:
    if image.sha256 is None:
        return
    try:
        digest = await sha256_of(path)
    except OSError as error:
        raise _unreadable(image, error) from error
    if digest != image.sha256:
        why = f"the disk in it has the SHA-256 {digest}, not {image.sha256} as its document says; see which is right"
        raise ConfigError(image.origin, why)


async def _convert(source: str, file: int, found: DiskImage, path: Path) -> None:
    """Have qemu-img check and unpack an open file, and open none that it names as its backing file or parent.

    What ``recognise`` refused are a qcow2 whose data are in another file, and a VMDK that is a descriptor alone.
    The check comes first: what a file that was cut off lacks, the conversion would silently make zeroes.
    """
    disk = _alone(file, found)
    status, told, said = await _qemu_img(file, "check", "--output=json", disk)
    try:
        facts = msgspec.json.decode(told, type=_Checked) if status in (0, 2, 3) else _Checked()
    except msgspec.DecodeError as error:
        raise UnavailableError(f"{source} cannot be checked: qemu-img says {error}") from error
    missing = facts.image_end_offset - os.fstat(file).st_size  # the last cluster, compressed, may end before its end
    if status not in (0, _LEAKS) or missing >= found.cluster_octets:
        why = f" ({said})" if said else ""
        raise ConfigError(source, f"is damaged, or a part of it is missing{why}; see: qemu-img check {source}")
    status, _, said = await _qemu_img(file, "convert", "-O", "raw", disk, str(path))
    if status != 0:
        raise UnavailableError(f"{source} cannot be unpacked: {said or f'exit status {status}'}")


def _alone(file: int, found: DiskImage) -> str:
    """Return an open file as QEMU's block layer is told of one over no other, whatever the file says of that."""
    node = {"driver": found.format, "backing": None, "file": {"driver": "file", "filename": f"/dev/fd/{file}"}}
    return f"json:{msgspec.json.encode(node).decode()}"


_LEAKS = 3
"""Exit status of ``qemu-img check``: whole, and some of its space is used by nothing."""


class _Checked(msgspec.Struct, frozen=True, rename="kebab"):
    """What ``qemu-img check`` says; VMDK has no end offset."""

    image_end_offset: int = 0


async def _qemu_img(file: int, *arguments: str) -> tuple[int, bytes, str]:
    """Run qemu-img with one open file; return its exit status, its output and its last complaint."""
    if shutil.which("qemu-img") is None:
        raise UnavailableError("qemu-img, which unpacks qcow2 and VMDK, is missing; apt install qemu-utils")
    held = ("setpriv", "--pdeathsig", "KILL", "--", "prlimit", f"--as={MEMORY_OCTETS}", "--core=0", "--")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *held, "qemu-img", *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, pass_fds=(file,)
    )
    try:
        told, said = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    lines = said.decode(errors="replace").strip().splitlines() or [""]
    return process.returncode or 0, told, lines[-1].removeprefix("qemu-img: ")[:200]
