"""Which shared libraries a program needs, read from its ELF file as the loader reads it.

    ELF header ── program headers ─┬─ PT_INTERP    path of the loader
                                   ├─ PT_DYNAMIC   entries (tag, value): DT_NEEDED → name, DT_STRTAB → where names are
                                   └─ PT_LOAD      maps addresses to offsets in the file

System V ABI, AMD64 supplement; gABI chapters 4 and 5.  Nothing is executed, unlike with ``ldd``.
"""

import struct
from collections.abc import Iterable
from pathlib import Path

from panloom.errors import UnavailableError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<qQ")
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB = 1, 5


def needed_by(program: bytes) -> tuple[str | None, tuple[str, ...]]:
    """Return the path of the loader, ``None`` for a library, and the names of the libraries that an ELF file asks for.

    Raises ``ValueError`` when it is no whole 64-bit little-endian ELF file.
    """
    try:
        return _read(program)
    except (struct.error, OverflowError, StopIteration) as error:
        raise ValueError("not a whole ELF file") from error


def _read(program: bytes) -> tuple[str | None, tuple[str, ...]]:
    identification, *_, header_offset, _, _, _, _, header_count, _, _, _ = _HEADER.unpack_from(program)
    if identification[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    headers = [
        _PROGRAM_HEADER.unpack_from(program, header_offset + index * _PROGRAM_HEADER.size)
        for index in range(header_count)
    ]

    def text(offset: int) -> str:
        return program[offset : program.index(b"\0", offset)].decode()

    loader = next((text(offset) for kind, _, offset, *_ in headers if kind == _PT_INTERP), None)
    dynamic = next(((offset, size) for kind, _, offset, _, _, size, *_ in headers if kind == _PT_DYNAMIC), None)
    if dynamic is None:
        return loader, ()
    entries = tuple(_DYNAMIC.iter_unpack(program[dynamic[0] : dynamic[0] + dynamic[1]]))
    names_address = next(value for tag, value in entries if tag == _DT_STRTAB)
    names = next(
        offset + names_address - address
        for kind, _, offset, address, _, size, *_ in headers
        if kind == _PT_LOAD and address <= names_address < address + size
    )
    return loader, tuple(text(names + value) for tag, value in entries if tag == _DT_NEEDED)


def libraries_of(programs: Iterable[Path], directories: Iterable[Path]) -> dict[str, Path]:
    """Return where every library that the programs need, directly or not, is found, by the path the guest has it at.

    The first of the directories that has a library wins.  Raises ``UnavailableError`` for one found nowhere.
    """
    found: dict[str, Path] = {}
    places = tuple(directories)
    waiting = list(programs)
    while waiting:
        loader, names = needed_by(waiting.pop().read_bytes())
        wanted = {f"/lib/{name}": name for name in names}
        if loader is not None:
            wanted[loader] = loader.rpartition("/")[2]
        for guest_path, name in wanted.items():
            if guest_path in found:
                continue
            path = next((place / name for place in places if (place / name).exists()), None)
            if path is None:
                raise UnavailableError(f"library {name} is in none of {', '.join(map(str, places))}")
            found[guest_path] = path
            waiting.append(path)
    return found
