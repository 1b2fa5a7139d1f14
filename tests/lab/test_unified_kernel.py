"""A unified kernel image keeps the stub as it was and says where each part is, in the file and in memory."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import UnavailableError
from panloom.lab.unified_kernel import unified_kernel, with_sections
from support.foreign import unpacked

STUB = "usr/lib/systemd/boot/efi/linuxx64.efi.stub"


def sections(program):
    """Return name → (address, octets in memory, octets in the file, offset), by the PE format's own words."""
    (coff,) = struct.unpack_from("<I", program, 0x3C)
    assert program[coff : coff + 4] == b"PE\0\0"
    count, optional = struct.unpack_from("<H12xH", program, coff + 6)
    table = coff + 24 + optional
    found = {}
    for number in range(count):
        name, octets, address, raw, offset = struct.unpack_from("<8sIIII", program, table + 40 * number)
        found[name.rstrip(b"\0").decode()] = (address, octets, raw, offset)
    return found


def image_octets(program):
    (coff,) = struct.unpack_from("<I", program, 0x3C)
    return struct.unpack_from("<I", program, coff + 24 + 56)[0]


@given(
    kernel=st.binary(min_size=1, max_size=9000),
    initramfs=st.binary(max_size=9000),
    command_line=st.text("a= ", max_size=9),
)
def test_every_part_is_where_its_section_says(kernel, initramfs, command_line):
    stub = unpacked(STUB).read_bytes()
    program = unified_kernel(
        stub, kernel=kernel, initramfs=initramfs, command_line=command_line, release="6.1.0-cloud-amd64"
    )
    before, after = sections(stub), sections(program)
    assert {name: after[name] for name in before} == before
    wanted = {".cmdline": command_line.encode(), ".linux": kernel, ".initrd": initramfs}
    for name, content in wanted.items():
        address, octets, raw, offset = after[name]
        assert program[offset : offset + octets] == content
        assert address % 4096 == 0
        assert octets <= raw
        assert offset + raw <= len(program)
    places = sorted((address, address + octets) for address, octets, _, _ in after.values())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(places))
    assert places[-1][1] <= image_octets(program)


def test_what_is_no_program_is_refused():
    for octets in (b"", b"MZ", b"MZ" + bytes(200), unpacked("usr/lib/ipxe/undionly.kpxe").read_bytes()):
        with pytest.raises(UnavailableError, match="no PE program"):
            with_sections(octets, {".more": b""})


def test_a_table_without_room_is_refused():
    stub = unpacked(STUB).read_bytes()
    with pytest.raises(UnavailableError, match="no room for 99 more"):
        with_sections(stub, {f".{number}": b"" for number in range(99)})
