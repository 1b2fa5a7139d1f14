"""Which format a file has; one that names other files is never taken for one that stands alone."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import PeerError
from panloom.wire.disk_image import HEAD_OCTETS, DiskImage, recognise

DESCRIPTOR = b"# Disk DescriptorFile\nversion=1\nCID=11111111\nparentCID=ffffffff\n"


def qcow2(*, version=3, backing=0, octets=1 << 30, encryption=0, features=0, cluster_bits=16):
    head = struct.pack(">4sIQIIQI", b"QFI\xfb", version, backing, 0, cluster_bits, octets, encryption)
    return head.ljust(72, b"\0") + struct.pack(">Q", features).ljust(32, b"\0")


def vmdk(*, sectors=2048, at=1, length=20, descriptor=DESCRIPTOR):
    head = struct.pack("<4sIIQQQQ", b"KDMV", 3, 3, sectors, 128, at, length)
    return head.ljust(512, b"\0") + descriptor.ljust(20 * 512, b"\0")


def elsewhere(others):
    """Return a VMDK whose header says where its own descriptor is, with another where QEMU looks."""
    return vmdk(at=40, length=20, descriptor=others) + bytes(19 * 512) + DESCRIPTOR.ljust(20 * 512, b"\0")


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (bytes(512), DiskImage("raw", 4096)),
        (b"\xeb\x63\x90".ljust(510, b"\0") + b"\x55\xaa", DiskImage("raw", 4096)),
        (qcow2(), DiskImage("qcow2", 1 << 30, 1 << 16)),
        (qcow2(version=2, octets=512), DiskImage("qcow2", 512, 1 << 16)),
        (vmdk(), DiskImage("vmdk", 1 << 20)),
        (vmdk(descriptor=DESCRIPTOR.replace(b"\n", b"\r\n")), DiskImage("vmdk", 1 << 20)),
        (elsewhere(DESCRIPTOR), DiskImage("vmdk", 1 << 20)),
    ],
)
def test_formats_known_octets(head, found):
    assert recognise(head, 4096) == found


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (qcow2(backing=1024), "backing file"),
        (qcow2(features=4), "data in another file"),
        (qcow2(encryption=2), "encrypted"),
        (qcow2(version=4), "version 4"),
        (qcow2(octets=0), "0 octets"),
        (qcow2(cluster_bits=63), "cannot be"),
        (qcow2()[:40], "cut off"),
        (qcow2()[:74], "cut off"),
        (vmdk(descriptor=DESCRIPTOR.replace(b"ffffffff", b"12345678")), "over another"),
        (vmdk(descriptor=b""), "over another"),
        (vmdk(descriptor=b"parentCID=12345678\n" + DESCRIPTOR), "over another"),
        (vmdk(descriptor=DESCRIPTOR + b'parentFileNameHint="/etc/shadow"\n'), "over another"),
        (elsewhere(b'parentFileNameHint="/etc/shadow"\n'), "over another"),
        (vmdk(at=0), "without a descriptor"),
        (vmdk(at=1 << 40), "without a descriptor"),
        (vmdk(sectors=0), "0 octets"),
        (vmdk()[:100], "cut off"),
        (DESCRIPTOR, "in other files"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"vhdxfile", "VHDX"),
    ],
)
def test_what_does_not_stand_alone_or_is_not_read_is_refused(head, why):
    with pytest.raises(PeerError, match=why):
        recognise(head, 4096)


@given(st.sampled_from([b"", b"QFI\xfb", qcow2(), b"KDMV", vmdk()[:600]]), st.binary(max_size=1000))
def test_any_octets_decode_or_are_malformed(beginning, rest):
    try:
        found = recognise((beginning + rest)[:HEAD_OCTETS], 4096)
    except PeerError:
        return
    assert found.octets > 0
