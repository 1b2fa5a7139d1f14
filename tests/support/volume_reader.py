"""A reader of volumes written from docs/volume-format.md alone: it shares no line with the program.

read_volume(DIRECTORY, "shop.web1")            the octets of a volume; it may be open, and is not written to
read_volume(DIRECTORY, "shop.web1@before")     those of a snapshot
"""

import struct
import zlib
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

_HEADER = struct.Struct(">8sIIQQQQ8s16s32s256s16s16sQI256s")


class File:
    """A file of the directory of volumes."""

    def __init__(self, path, stack):
        self._file = stack.enter_context(path.open("rb"))
        copies = [copy for copy in map(self._copy, (0, 4096)) if copy]
        if not copies:
            raise ValueError(f"{path} is damaged")
        _, version, _, _, _, self.octets, _, _, boot, self.sha256, name, *rest = max(copies, key=lambda copy: copy[3])
        self.id, self.below, self.map_octets, flags, _ = rest
        if version == 1:
            clusters = -(-self.octets // 4096)
            self.map_octets = -(-clusters // 32768) * 4096
        self.image = name.rstrip(b"\0").decode()
        self.flat = bool(flags & 4)
        self.is_written = path.suffix == ".volume"
        this_boot = bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))
        self._volatile = self.is_written and boot == this_boot

    def _copy(self, at):
        page = self.read(at, 4096)
        if len(page) < 4096 or page[:8] != b"PANLOOMV" or zlib.crc32(page[:4092]) != int.from_bytes(page[4092:], "big"):
            return None
        fields = _HEADER.unpack_from(page)
        if fields[1] not in (1, 2) or fields[2] != 4096 or fields[14] & ~7:
            raise ValueError("a newer format")
        return fields

    def read(self, at, length):
        """Return octets of the file itself."""
        self._file.seek(at)
        return self._file.read(length)

    def owns(self, cluster):
        """Say whether a cluster is to be read from this file."""
        m, (group, octet) = self.map_octets, divmod(cluster // 8, self.map_octets)
        at = 8192 + group * (2 * m + 32768 * m) + octet + (m if self._volatile else 0)
        return self.read(at, 1)[0] >> cluster % 8 & 1

    def own(self, cluster):
        """Return a cluster that is own, shorter where the disk ends."""
        offset = cluster * 4096
        at = 8192 + (offset // (32768 * self.map_octets) + 1) * 2 * self.map_octets + offset
        return self.read(at, min(4096, self.octets - offset))


def read_volume(directory, name, range_=None):
    """Return the octets of a volume, or of a snapshot, or a range of them."""
    with ExitStack() as opened:
        return _read(opened, directory, name, range_)


def _read(opened, directory, name, range_):
    volumes = directory / "volumes"
    files = [File(path, opened) for path in volumes.iterdir() if path.suffix in (".snapshot", ".layer")]
    top = File(volumes / (f"{name}.snapshot" if "@" in name else f"{name}.volume"), opened)
    stack = [top]
    while any(stack[-1].below):
        (found,) = (file for file in files if file.id == stack[-1].below)
        stack.append(found)
    image = BytesIO()
    if stack[-1].image and not stack[-1].flat:
        image = opened.enter_context((directory / "images" / f"{stack[-1].image}.{stack[-1].sha256.hex()}").open("rb"))
    wanted = range(top.octets) if range_ is None else range_
    first = wanted.start // 4096
    octets = b"".join(_cluster(stack, image, number) for number in range(first, -(-wanted.stop // 4096)))
    return octets[wanted.start - first * 4096 : wanted.stop - first * 4096]


def _cluster(stack, image, number):
    for file in stack:
        if number * 4096 >= file.octets:
            return bytes(4096)
        if file.owns(number):
            return file.own(number).ljust(4096, b"\0")
    image.seek(number * 4096)
    return image.read(4096).ljust(4096, b"\0")
