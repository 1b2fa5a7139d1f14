"""Files that hold a disk: which format one has, told by its first octets, and whether it stands alone.

    qcow2   docs/interop/qcow2 of QEMU              VMDK    Virtual Disk Format 5.0, "Hosted Sparse Extent Header"
      0  "QFI" FBh                                    0  "KDMV"
      4  version: 2 or 3                              4  version
      8  where the backing file's name stands        12  capacity, sectors
     24  octets of the disk                          28  where the descriptor stands, sectors
     32  encryption                                  36  how long it is, sectors
     72  incompatible features (version 3)

qcow2 is big-endian, VMDK little-endian.  A file that names another one is refused: whoever wrote it would choose which
file of the control node becomes part of an image.  A VMDK's parent is looked for in all of its beginning, since readers
differ in where they look for the descriptor and in which of two lines they believe.
"""

import re
import struct
from typing import Literal

import msgspec

from panloom.errors import MalformedError, RefusedError

Format = Literal["raw", "qcow2", "vmdk"]
HEAD_OCTETS = 1 << 16
"""How much of the beginning ``recognise`` wants to see."""

_SECTOR_OCTETS = 512
_QCOW2 = struct.Struct(">4sIQIIQI")
_FEATURES_AT = 72
_EXTERNAL_DATA_FILE = 1 << 2
_VMDK = struct.Struct("<4sIIQQQQ")
_NO_PARENT = re.compile(rb"^\s*parentCID\s*=\s*ffffffff\s*$", re.IGNORECASE | re.MULTILINE)
_PARENT = re.compile(rb"parentFileNameHint|parentCID\s*=(?!\s*ffffffff)", re.IGNORECASE)
_OTHERS = (
    (b"# Disk DescriptorFile", "a VMDK whose data are in other files"),
    (b"COWD", "a VMDK of ESX 3"),
    (b"vhdxfile", "VHDX"),
    (b"conectix", "VHD"),
    (b"<<< ", "VDI"),
    (b"QED\0", "QED"),
    (b"LUKS\xba\xbe", "encrypted by LUKS"),
    (b"\x1f\x8b\x08", "compressed by gzip"),
    (b"\xfd7zXZ\0", "compressed by xz"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd"),
    (b"BZh", "compressed by bzip2"),
    (b"PK\x03\x04", "a ZIP archive"),
)


class DiskImage(msgspec.Struct, frozen=True, gc=False):
    """What a file is: its format, the octets of the disk in it, and in pieces of how many it is laid out."""

    format: Format
    octets: int
    cluster_octets: int = 1


def recognise(head: bytes, file_octets: int) -> DiskImage:
    """Tell a format by the first ``HEAD_OCTETS`` of a file; what has no mark of any is raw.

    RefusedError: a format that is not read here, encrypted, or one whose data are in another file, too.
    MalformedError: a damaged header.
    """
    if head.startswith(b"QFI\xfb"):
        return _qcow2(head)
    if head.startswith(b"KDMV"):
        return _vmdk(head)
    for mark, what in _OTHERS:
        if head.startswith(mark):
            raise RefusedError(f"is {what}; make it qcow2 (qemu-img convert -O qcow2), or say that it is raw")
    return DiskImage("raw", file_octets)


def _qcow2(head: bytes) -> DiskImage:
    if len(head) < _FEATURES_AT:
        raise MalformedError("its qcow2 header is cut off")
    _, version, backing_offset, _, cluster_bits, octets, encryption = _QCOW2.unpack_from(head)
    if version not in (2, 3):
        raise RefusedError(f"is qcow2 of version {version}; versions 2 and 3 are read here")
    if backing_offset:
        raise RefusedError("has a backing file; make one file of both: qemu-img convert -O qcow2")
    if encryption:
        raise RefusedError("is encrypted; decrypt it first: qemu-img convert")
    if version == 3:
        if len(head) < _FEATURES_AT + 8:
            raise MalformedError("its qcow2 header is cut off")
        (features,) = struct.unpack_from(">Q", head, _FEATURES_AT)
        if features & _EXTERNAL_DATA_FILE:
            raise RefusedError("has its data in another file; make one file of both: qemu-img convert -O qcow2")
    if not octets or not 9 <= cluster_bits <= 21:
        raise MalformedError(f"is a disk of {octets} octets in clusters of 2^{cluster_bits}; that cannot be")
    return DiskImage("qcow2", octets, 1 << cluster_bits)


def _vmdk(head: bytes) -> DiskImage:
    if len(head) < _SECTOR_OCTETS:
        raise MalformedError("its VMDK header is cut off")
    _, _, _, sectors, _, descriptor_at, descriptor_sectors = _VMDK.unpack_from(head)
    first, end = descriptor_at * _SECTOR_OCTETS, (descriptor_at + descriptor_sectors) * _SECTOR_OCTETS
    if not descriptor_at or end > len(head):
        raise RefusedError("is a VMDK without a descriptor of its own; make it qcow2: qemu-img convert -O qcow2")
    if _PARENT.search(head) or not _NO_PARENT.search(head[first:end].replace(b"\0", b"\n")):
        raise RefusedError("is a VMDK over another one; make one file of both: qemu-img convert -O qcow2")
    if not sectors:
        raise MalformedError("is a disk of 0 octets")
    return DiskImage("vmdk", sectors * _SECTOR_OCTETS)
