"""What a volume's own file lies over: files frozen by snapshots, the newest first, and under them an image or nothing.

read    first frozen file that owns the cluster  →  image  →  zeros
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from panloom.disk_io import data_extents, read_fully
from panloom.errors import ConfigError
from panloom.storage.image import Image
from panloom.storage.volume_file import Fill, VolumeFile
from panloom.storage.volume_header import NO_ID, VolumeHeader
from panloom.storage.volume_layout import CLUSTER_OCTETS


class Extent(msgspec.Struct, frozen=True, gc=False):
    """Octets ``start … end`` of the disk stand in file ``fd`` from ``at`` on."""

    start: int
    end: int
    fd: int
    at: int


class Below:
    """Frozen files over an image; never changes.  ``octets``: from there on it reads as zeros."""

    def __init__(self, layers: tuple[VolumeFile, ...] = (), image: Image | None = None) -> None:
        self.layers = layers
        self.image = image
        self.octets = layers[0].header.octets if layers else image.octets if image else 0

    def under(self, top: VolumeFile) -> "Below":
        """Return what a file lies over that is made on top of ``top``, frozen by now."""
        return Below((top, *self.layers), self.image)

    def read(self, offset: int, into: memoryview, fill: Fill = read_fully) -> None:
        """Fill ``into``, with zeros beyond the end."""
        if self.layers:
            self._read(0, offset, into, fill)
        else:
            self._read_image(offset, into, fill)

    def extent(self, offset: int, end: int) -> tuple[VolumeFile | Image, int] | None:
        """Return a file that holds this range in one piece, and from where on; None if none does."""
        first, last = offset // CLUSTER_OCTETS, -(-end // CLUSTER_OCTETS)
        for layer in self.layers:
            if end > layer.header.octets:
                return None
            own, limit = layer.own.run(first, last) if last - first > 1 else (layer.own.own(first), last)
            if limit < last:
                return None
            if own:
                return (layer, layer.layout.data_at(offset)) if end <= layer.group_end(offset) else None
        return (self.image, offset) if self.image and end <= self.image.octets else None

    def _read(self, depth: int, offset: int, into: memoryview, fill: Fill) -> None:
        if depth == len(self.layers):
            self._read_image(offset, into, fill)
            return
        layer = self.layers[depth]
        held = max(0, min(len(into), layer.header.octets - offset))
        position, end = offset, offset + held
        while position < end:
            limit = -(-end // CLUSTER_OCTETS)
            own, limit = layer.own.run(position // CLUSTER_OCTETS, limit)
            stop = min(end, limit * CLUSTER_OCTETS)
            part = into[position - offset : stop - offset]
            if own:
                layer.read(position, part, fill)
            else:
                self._read(depth + 1, position, part, fill)
            position = stop
        if held < len(into):
            into[held:] = bytes(len(into) - held)

    def _read_image(self, offset: int, into: memoryview, fill: Fill) -> None:
        image = self.image
        if image and offset + len(into) <= image.octets:
            fill(image.fd, into, offset)
            return
        held = max(0, image.octets - offset) if image else 0
        if image and held:
            fill(image.fd, into[:held], offset)
        if held < len(into):
            into[held:] = bytes(len(into) - held)

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        """Return where the octets of whole clusters stand, in order; what is left out reads as zeros."""
        yield from self._extents(0, start, min(end, self.octets))

    def _extents(self, depth: int, start: int, end: int) -> Iterator[Extent]:
        if depth == len(self.layers):
            if self.image:
                yield from _data(self.image.fd, start, min(end, self.image.octets), start)
            return
        layer = self.layers[depth]
        end = min(end, layer.header.octets)
        while start < end:
            own, limit = layer.own.run(start // CLUSTER_OCTETS, -(-end // CLUSTER_OCTETS))
            stop = min(end, limit * CLUSTER_OCTETS)
            if own:
                stop = min(stop, layer.layout.group_end(start))
                yield from _data(layer.fd, start, stop, layer.layout.data_at(start))
            else:
                yield from self._extents(depth + 1, start, stop)
            start = stop


def _data(fd: int, start: int, end: int, at: int) -> Iterator[Extent]:
    if start < end:
        for data, hole in data_extents(fd, at, at + end - start):
            yield Extent(start + data - at, start + hole - at, fd, data)


def check_below(path: Path, header: VolumeHeader, below: Below) -> None:
    """Raise ConfigError unless these are the very files and the image that the header of the file on top names."""
    lowest = header
    for layer in below.layers:
        if layer.header.id != lowest.parent:
            raise ConfigError(str(path), f"needs the frozen file with id {lowest.parent.hex()}")
        lowest = layer.header
    if lowest.parent != NO_ID:
        needed = f"the frozen file with id {lowest.parent.hex()}, which is missing or damaged"
        raise ConfigError(str(path), f"needs {needed}; restore that from a copy")
    if lowest.reads_image and (below.image is None or below.image.sha256 != lowest.image_sha256):
        raise ConfigError(str(path), f"needs the image {lowest.image_name} with sha256 {lowest.image_sha256.hex()}")
