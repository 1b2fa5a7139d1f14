"""Kernel, command line and initramfs as one UEFI program: a unified kernel image (UAPI.5).

    stub            systemd's linuxx64.efi.stub, a PE program: headers, then its own sections
    .osrel          who it is
    .cmdline        the kernel's command line           sections that the stub finds by name in its own image
    .linux          the kernel, a PE program itself
    .initrd         the initramfs

UEFI firmware reads the whole file at once: over iSCSI by one READ(10) of tens of thousands of blocks.
"""

from collections.abc import Mapping
from struct import Struct, unpack_from

from panloom.errors import UnavailableError

_PE_AT = 0x3C  # PE format, "MS-DOS stub": where the signature is
_COFF = Struct("<4sHHIIIHH")  # signature, machine, sections, time, symbols, their number, optional header, flags
_PE32_PLUS = 0x20B
_ALIGNMENTS = Struct("<II")  # of sections in memory and in the file, at 32 of the optional header
_SIZES = Struct("<III")  # image, headers, checksum, at 56 of the optional header
_SECTION = Struct("<8sIIIIIIHHI")
_READ_ONLY_DATA = 0x40000040  # IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ
_PAGE = 4096  # the stub hands the kernel on in place


def unified_kernel(stub: bytes, *, kernel: bytes, initramfs: bytes, command_line: str, release: str) -> bytes:
    """Return the program; UnavailableError if ``stub`` is no PE program of x86-64 or has no room for four sections."""
    return with_sections(
        stub,
        {
            ".osrel": f'ID=panloom-lab\nNAME="Panloom lab"\nPRETTY_NAME="Panloom lab, Linux {release}"\n'.encode(),
            ".cmdline": command_line.encode(),
            ".linux": kernel,
            ".initrd": initramfs,
        },
    )


def with_sections(program: bytes, sections: Mapping[str, bytes]) -> bytes:
    """Return a PE program with more sections of read-only data behind its own, in memory as in the file."""
    octets = bytearray(program)
    coff_at, optional_at, table_at, count = _headers(program)
    in_memory, in_file = _ALIGNMENTS.unpack_from(program, optional_at + 32)
    _, header_octets, _ = _SIZES.unpack_from(program, optional_at + 56)
    if table_at + (count + len(sections)) * _SECTION.size > header_octets:
        raise UnavailableError(f"the UEFI stub has no room for {len(sections)} more sections")
    table = (_SECTION.unpack_from(program, table_at + number * _SECTION.size) for number in range(count))
    end = max(address + virtual_octets for _, virtual_octets, address, *_ in table)
    for name, content in sections.items():
        octets += bytes(-len(octets) % in_file)
        address = _aligned(end, max(in_memory, _PAGE))
        raw_octets = _aligned(len(content), in_file)
        header = (name.encode(), len(content), address, raw_octets, len(octets), 0, 0, 0, 0, _READ_ONLY_DATA)
        _SECTION.pack_into(octets, table_at + count * _SECTION.size, *header)
        octets += content.ljust(raw_octets, b"\0")
        count += 1
        end = address + len(content)
    octets[coff_at + 6 : coff_at + 8] = count.to_bytes(2, "little")
    _SIZES.pack_into(octets, optional_at + 56, _aligned(end, in_memory), header_octets, 0)  # a checksum is for drivers
    return bytes(octets)


def _headers(program: bytes) -> tuple[int, int, int, int]:
    """Return where the COFF header, the optional header and the section table are, and how many sections there are."""
    if program[:2] == b"MZ" and len(program) > _PE_AT + 4:
        (coff_at,) = unpack_from("<I", program, _PE_AT)
        if coff_at + _COFF.size + 68 <= len(program):
            signature, machine, count, _, _, _, optional_octets, _ = _COFF.unpack_from(program, coff_at)
            optional_at = coff_at + _COFF.size
            (magic,) = unpack_from("<H", program, optional_at)
            if (signature, machine, magic) == (b"PE\0\0", 0x8664, _PE32_PLUS) and count:
                return coff_at, optional_at, optional_at + optional_octets, count
    raise UnavailableError("the UEFI stub is no PE program of x86-64")


def _aligned(number: int, to: int) -> int:
    return -(-number // to) * to
