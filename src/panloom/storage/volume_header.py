"""The header page of a volume file, 4096 octets, all numbers big-endian.

    offset  octets  field
         0       8  magic "PANLOOMV"
         8       4  version, 2
        12       4  cluster size in octets, 4096
        16       8  sequence: of two valid copies the one with the higher sequence counts
        24       8  epoch: the fencing token; never goes down
        32       8  octets: the size of the disk; never goes down
        40       8  image octets: from here on the image reads as zeros; 0 without an image
        48       8  identity: NAA 3 designator of the disk (SPC-4 section 7.8.6.6.4), made once
        56      16  boot id: the boot of this machine for which the volatile map counts
        72      32  SHA-256 of the image; zeros without an image
       104     256  name of the image, UTF-8, padded with NUL; all NUL without an image
       360      16  id of this file; no other file has it
       376      16  id of the frozen file below; zeros: there is none
       392       8  map octets: the size of one map of one group, whole pages
       400       4  flags: 1 thick, 2 being flattened, 4 flat (nothing below is read any more)
       404     256  the snapshot that it is a clone of, VOLUME@SNAPSHOT, as the image's name; all NUL: of none
       660    3432  zeros
      4092       4  CRC-32 of the octets 0 … 4091

Version 1 ends with the image's name, the rest is zeros: it has no id until it is opened, nothing below but its image,
and one group whose maps are as large as its disk needs.  A file has two copies of the header; what they are for is told
in ``volume_file``.
"""

import struct
import zlib

import msgspec

from panloom.storage.volume_layout import CLUSTER_OCTETS, PAGE_OCTETS, map_octets

HEADER_OCTETS = 4096
VERSION = 2
MAGIC = b"PANLOOMV"
NO_ID = bytes(16)

_FIELDS = struct.Struct(">8sIIQQQQ8s16s32s256s16s16sQI256s")
_CHECKSUM = struct.Struct(">I")
_THICK, _FLATTENING, _FLAT = 1, 2, 4


class NewerFormatError(ValueError):
    """A whole header of a version, or with a flag, that this program does not know."""


class VolumeHeader(msgspec.Struct, frozen=True, gc=False):
    """What a volume file says of itself."""

    sequence: int
    epoch: int
    octets: int
    image_name: str  # "" without an image
    image_sha256: bytes
    image_octets: int
    identity: bytes
    boot_id: bytes
    id: bytes = NO_ID  # of a file of version 1 that was not opened yet
    parent: bytes = NO_ID
    map_octets: int = PAGE_OCTETS
    thick: bool = False
    flattening: bool = False
    flat: bool = False
    origin: str = ""  # "" if it is the clone of no snapshot

    @property
    def reads_image(self) -> bool:
        """Whether the image lies directly below."""
        return bool(self.image_name) and not self.flat and self.parent == NO_ID


def encode_header(header: VolumeHeader) -> bytes:
    """Return the header page, of the newest version."""
    fields = _FIELDS.pack(
        MAGIC,
        VERSION,
        CLUSTER_OCTETS,
        header.sequence,
        header.epoch,
        header.octets,
        header.image_octets,
        header.identity,
        header.boot_id,
        header.image_sha256,
        header.image_name.encode(),
        header.id,
        header.parent,
        header.map_octets,
        header.thick * _THICK | header.flattening * _FLATTENING | header.flat * _FLAT,
        header.origin.encode(),
    )
    page = fields.ljust(HEADER_OCTETS - _CHECKSUM.size, b"\0")
    return page + _CHECKSUM.pack(zlib.crc32(page))


def decode_header(page: bytes) -> VolumeHeader | None:
    """Read a header page; None if torn, foreign or empty, NewerFormatError if whole but of a newer version."""
    if len(page) != HEADER_OCTETS or not page.startswith(MAGIC):
        return None
    if zlib.crc32(page[: -_CHECKSUM.size]) != _CHECKSUM.unpack_from(page, HEADER_OCTETS - _CHECKSUM.size)[0]:
        return None
    (_, version, cluster, sequence, epoch, octets, image_octets, identity, boot_id, sha256, name, *rest) = (
        _FIELDS.unpack_from(page)
    )
    if version not in (1, VERSION) or cluster != CLUSTER_OCTETS:
        raise NewerFormatError(f"format version {version} with clusters of {cluster} octets")
    id_, parent, group_map_octets, flags, origin = rest
    if version == 1:
        group_map_octets = map_octets(-(-octets // CLUSTER_OCTETS))
    if flags & ~(_THICK | _FLATTENING | _FLAT):
        raise NewerFormatError(f"format version {version} with flags {flags:#x}")
    if group_map_octets == 0 or group_map_octets % PAGE_OCTETS:
        return None
    try:
        image_name, origin_name = name.rstrip(b"\0").decode(), origin.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        return None
    return VolumeHeader(
        sequence=sequence,
        epoch=epoch,
        octets=octets,
        image_name=image_name,
        image_sha256=sha256,
        image_octets=image_octets,
        identity=identity,
        boot_id=boot_id,
        id=id_,
        parent=parent,
        map_octets=group_map_octets,
        thick=bool(flags & _THICK),
        flattening=bool(flags & _FLATTENING),
        flat=bool(flags & _FLAT),
        origin=origin_name,
    )
