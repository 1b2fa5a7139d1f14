"""Which libraries a program needs: the loader's own view is the twin, and no octets crash the reader."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import UnavailableError
from panloom.lab.shared_objects import libraries_of, needed_by

SYSTEM = (Path("/lib/x86_64-linux-gnu"), Path("/usr/lib/x86_64-linux-gnu"), Path("/lib64"))
PROGRAM = Path("/bin/ls").read_bytes()


def test_known_octets():
    loader, names = needed_by(PROGRAM)
    assert loader == "/lib64/ld-linux-x86-64.so.2"
    assert "libc.so.6" in names
    assert needed_by(Path("/lib/x86_64-linux-gnu/libc.so.6").read_bytes())[1] == ("ld-linux-x86-64.so.2",)


@pytest.mark.parametrize("program", ["/bin/ls", "/bin/mount", "/bin/tar"])
def test_finds_what_the_loader_finds(program):
    loaded = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    by_loader = {line.split()[0].rpartition("/")[2] for line in loaded.splitlines() if "linux-vdso" not in line}
    found = libraries_of([Path(program)], SYSTEM)
    assert {path.rpartition("/")[2] for path in found} == by_loader
    assert all(path.exists() for path in found.values())


def test_first_directory_wins(tmp_path):
    own = tmp_path / "libc.so.6"
    own.write_bytes(Path("/lib/x86_64-linux-gnu/libc.so.6").read_bytes())
    assert libraries_of([Path("/bin/ls")], (tmp_path, *SYSTEM))["/lib/libc.so.6"] == own


def test_missing_library_is_named(tmp_path):
    with pytest.raises(UnavailableError, match=r"lib\S+ is in none of"):
        libraries_of([Path("/bin/ls")], [tmp_path])


@given(st.binary(max_size=200))
def test_any_octets_decode_or_are_malformed(octets):
    with pytest.raises(ValueError):
        needed_by(octets)


@given(st.integers(0, 1200), st.binary(min_size=1, max_size=16), st.integers(0, len(PROGRAM)))
def test_damaged_programs_decode_or_are_malformed(place, octets, length):
    damaged = bytearray(PROGRAM[:length])
    damaged[place : place + len(octets)] = octets
    try:
        needed_by(bytes(damaged))
    except ValueError:
        return
