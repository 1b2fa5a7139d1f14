"""A disc of a few files, as other programs read it."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.wire import iso9660

FILES = {"meta-data": b"instance-id: i-1\n", "network-config": b"{}", "user-data": b"#!/bin/sh\n" * 900}


def test_known_octets():
    disc = iso9660.encode("CIDATA", FILES, system_area=b"PAN='shop'\n")
    assert disc.startswith(b"PAN='shop'\n\0")
    assert disc[32768:32775] == b"\x01CD001\x01"
    assert disc[32808:32840] == b"CIDATA".ljust(32)
    assert disc[34816:34822] == b"\xffCD001"
    assert len(disc) == (21 + 1 + 1 + 5) * 2048
    assert disc[21 * 2048 :].startswith(FILES["meta-data"] + b"\0")
    assert disc == iso9660.encode("CIDATA", dict(reversed(FILES.items())), system_area=b"PAN='shop'\n")


def test_another_program_finds_the_label_and_every_file_by_its_name(tmp_path):
    path = tmp_path / "disc"
    path.write_bytes(iso9660.encode("CIDATA", FILES, system_area=b"\n" * iso9660.SYSTEM_AREA_OCTETS))
    assert read_by("blkid", "-p", "-o", "value", "-s", "LABEL", path) == b"CIDATA\n"
    assert sorted(read_by("bsdtar", "-tf", path).split()) == [b".", *(name.encode() for name in sorted(FILES))]
    for name, octets in FILES.items():
        assert read_by("bsdtar", "-xOf", path, name) == octets
    assert read_by("bsdtar", "-tvf", path, "user-data").startswith(b"-r--------")


@given(st.dictionaries(st.from_regex(r"[a-z][a-z-]{0,20}", fullmatch=True), st.binary(max_size=5000), max_size=8))
def test_every_file_stands_in_blocks_of_its_own(files):
    disc = iso9660.encode("X", files)
    blocks = [disc[at : at + 2048] for at in range(21 * 2048, len(disc), 2048)]
    assert b"".join(blocks) == b"".join(
        files[name].ljust(-(-len(files[name]) // 2048) * 2048, b"\0") for name in sorted(files)
    )


@pytest.mark.parametrize(
    ("label", "files", "area"),
    [("cidata", {}, b""), ("", {}, b""), ("X", {"n" * 200: b""}, b""), ("X", {}, bytes(32769)),
     ("X", {f"name-{number}": b"" for number in range(30)}, b"")],
)  # fmt: skip
def test_what_does_not_fit_is_refused(label, files, area):
    with pytest.raises(ValueError, match=r"identifier|too long|system area|too many"):
        iso9660.encode(label, files, system_area=area)


def read_by(*command):
    return subprocess.run(command, check=True, capture_output=True).stdout
