"""The header page of a volume file, 4096 octets, all numbers big-endian.

    offset  octets  field
         0       8  magic "PANLOOMV"
         8       4  version, 1
        12       4  cluster size in octets, 4096
        16       8  sequence: of two valid copies the one with the higher sequence counts
        24       8  epoch: the fencing token; never goes down
        32       8  octets: the size of the disk
        40       8  image octets: from here on the image reads as zeros; 0 without an image
        48       8  identity: NAA 3 designator of the disk (SPC-4 section 7.8.6.6.4), made once
        56      16  boot id: the boot of this machine for which the volatile map counts
        72      32  SHA-256 of the image; zeros without an image
       104     256  name of the image, UTF-8, padded with NUL; all NUL without an image
       360    3732  zeros
      4092       4  CRC-32 of the octets 0 … 4091

A file has two copies of it; what they are for is told in ``overlay``.
"""

import struct
import zlib

import msgspec

HEADER_OCTETS = 4096
CLUSTER_OCTETS = 4096
VERSION = 1
MAGIC = b"PANLOOMV"

_FIELDS = struct.Struct(">8sIIQQQQ8s16s32s256s")
_CHECKSUM = struct.Struct(">I")


class NewerFormatError(ValueError):
    """A whole header of a version that this program does not know."""


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


def encode_header(header: VolumeHeader) -> bytes:
    """Return the header page."""
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
    )
    page = fields.ljust(HEADER_OCTETS - _CHECKSUM.size, b"\0")
    return page + _CHECKSUM.pack(zlib.crc32(page))


def decode_header(page: bytes) -> VolumeHeader | None:
    """Read a header page; None if torn, foreign or empty, NewerFormatError if whole but of another version."""
    if len(page) != HEADER_OCTETS or not page.startswith(MAGIC):
        return None
    if zlib.crc32(page[: -_CHECKSUM.size]) != _CHECKSUM.unpack_from(page, HEADER_OCTETS - _CHECKSUM.size)[0]:
        return None
    (_, version, cluster, sequence, epoch, octets, image_octets, identity, boot_id, sha256, name) = _FIELDS.unpack_from(
        page
    )
    if version != VERSION or cluster != CLUSTER_OCTETS:
        raise NewerFormatError(f"format version {version} with clusters of {cluster} octets")
    try:
        image_name = name.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        return None
    return VolumeHeader(sequence, epoch, octets, image_name, sha256, image_octets, identity, boot_id)
