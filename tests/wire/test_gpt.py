"""Partition tables, as another program reads them."""

import json
import subprocess
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.wire import gpt

DISK, ONE, TWO = (UUID(int=number) for number in (1 << 127 | 7, 2, 3))
SECTORS = 20480
PARTITIONS = (
    gpt.Partition(gpt.BIOS_BOOT, ONE, 2048, 2048, "bios"),
    gpt.Partition(gpt.LINUX_ROOT_X86_64, TWO, 4096, SECTORS - 4096 - 33, "root"),
)


def test_another_program_finds_every_partition(tmp_path):
    begin, end = gpt.encode(PARTITIONS, disk=DISK, sectors=SECTORS, boot_code=b"\xfa" * 440)
    path = tmp_path / "disk"
    path.write_bytes(begin.ljust((SECTORS - 33) * 512, b"\0") + end)
    told = subprocess.run(("sfdisk", "--json", path), check=True, capture_output=True, text=True)
    assert told.stderr == ""  # neither of the two tables is damaged
    table = json.loads(told.stdout)["partitiontable"]
    assert (table["label"], table["id"].lower()) == ("gpt", str(DISK))
    assert (table["firstlba"], table["lastlba"]) == (34, SECTORS - 34)
    found = [(part["start"], part["size"], part["type"].lower(), part["name"]) for part in table["partitions"]]
    assert found == [(part.first, part.sectors, str(part.kind), part.name) for part in PARTITIONS]


@pytest.mark.parametrize("damaged", [0, 1])
def test_either_table_alone_is_enough(tmp_path, damaged):
    tables = gpt.encode(PARTITIONS, disk=DISK, sectors=SECTORS, boot_code=b"")
    begin, end = (octets if number != damaged else bytes(len(octets)) for number, octets in enumerate(tables))
    protective = tables[0][:512]  # without it nobody looks for the other one
    path = tmp_path / "disk"
    path.write_bytes((protective + begin[512:]).ljust((SECTORS - 33) * 512, b"\0") + end)
    told = subprocess.run(("sfdisk", "--json", path), check=True, capture_output=True, text=True)
    assert "corrupt" in told.stderr
    assert len(json.loads(told.stdout)["partitiontable"]["partitions"]) == 2


@pytest.mark.parametrize(("first", "sectors"), [(33, 10), (2048, 0), (SECTORS - 40, 8), (4000, 200)])
def test_what_overlaps_or_lies_where_the_tables_are_is_refused(first, sectors):
    bad = gpt.Partition(gpt.EFI_SYSTEM, DISK, first, sectors, "bad")
    with pytest.raises(ValueError, match=r"bad|root"):
        gpt.encode((*PARTITIONS, bad), disk=DISK, sectors=SECTORS, boot_code=b"")


@given(st.binary(max_size=440), st.integers(4096, 1 << 40))
def test_boot_code_and_size_are_where_they_belong(code, sectors):
    begin, end = gpt.encode((), disk=DISK, sectors=sectors, boot_code=code)
    assert begin[:440] == code.ljust(440, b"\0")
    assert begin[510:512] == b"\x55\xaa"
    assert int.from_bytes(begin[458:462], "little") == min(sectors - 1, 0xFFFFFFFF)
    assert int.from_bytes(begin[512 + 32 : 512 + 40], "little") == sectors - 1
    assert int.from_bytes(end[-512 + 24 : -512 + 32], "little") == sectors - 1


# ── growth ───────────────────────────────────────────────────────────────────────────────────────────────────────────

LARGER = 4 * SECTORS
HEAD, TAIL = 34 * 512, 33 * 512


def disk_of(sectors, partitions=PARTITIONS):
    begin, end = gpt.encode(partitions, disk=DISK, sectors=sectors, boot_code=b"\xfa" * 440)
    return begin.ljust((sectors - 33) * 512, b"\0") + end


def grow(disk):
    made = gpt.grown(disk[:HEAD], disk[-TAIL:], len(disk) // 512)
    return disk if made is None else made.begin + disk[HEAD:-TAIL] + made.end


def layout(tmp_path, disk):
    (tmp_path / "disk").write_bytes(disk)
    told = subprocess.run(("sfdisk", "--json", tmp_path / "disk"), check=True, capture_output=True, text=True)
    assert told.stderr == ""
    table = json.loads(told.stdout)["partitiontable"]
    return table, [(part["start"], part["size"], part["uuid"].lower(), part["name"]) for part in table["partitions"]]


def test_the_last_partition_of_a_larger_disk_ends_where_that_does(tmp_path):
    was = disk_of(SECTORS)
    disk = grow(was + bytes((LARGER - SECTORS) * 512))
    table, found = layout(tmp_path, disk)
    assert (table["id"].lower(), table["firstlba"], table["lastlba"]) == (str(DISK), 34, LARGER - 34)
    assert found == [(2048, 2048, str(ONE), "bios"), (4096, LARGER - 2048 - 4096, str(TWO), "root")]
    assert disk[:440] == was[:440]
    assert int.from_bytes(disk[458:462], "little") == LARGER - 1
    assert grow(disk) == disk


def test_a_last_partition_that_is_no_file_system_stays_as_it_is(tmp_path):
    swap = gpt.Partition(UUID("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"), TWO, 4096, 4096, "swap")
    table, found = layout(tmp_path, grow(disk_of(SECTORS, (PARTITIONS[0], swap)) + bytes((LARGER - SECTORS) * 512)))
    assert table["lastlba"] == LARGER - 34
    assert found[1] == (4096, 4096, str(TWO), "swap")


@given(st.integers(0, 66), st.binary(min_size=512, max_size=512))
def test_a_write_that_is_cut_off_anywhere_is_done_again_and_right(cut, torn):
    """The end is written first, then the beginning; of the sector that is being written, anything may be there."""
    old, _ = gpt.encode(PARTITIONS, disk=DISK, sectors=SECTORS, boot_code=b"\xfa" * 440)
    new = gpt.grown(old, bytes(TAIL), LARGER)
    places, was, becomes = [*range(34, 67), *range(34)], old + bytes(TAIL), new.begin + new.end
    found = bytearray(was)
    for place in places[:cut]:
        found[place * 512 : place * 512 + 512] = becomes[place * 512 : place * 512 + 512]
    if places[cut]:  # the first sector is the same but for a length, and a disk writes it whole
        found[places[cut] * 512 : places[cut] * 512 + 512] = torn
    assert gpt.grown(bytes(found[:HEAD]), bytes(found[HEAD:]), LARGER) in (new, None if found == becomes else new)


@given(st.integers(512, HEAD - 1).filter(lambda at: not 604 <= at < 1024), st.integers(1, 255))
def test_a_table_that_is_damaged_with_no_other_is_left_alone(at, flipped):
    old, _ = gpt.encode(PARTITIONS, disk=DISK, sectors=SECTORS, boot_code=b"")
    damaged = bytearray(old)
    damaged[at] ^= flipped
    assert gpt.grown(bytes(damaged), bytes(TAIL), LARGER) is None
    assert gpt.grown(bytes(HEAD), bytes(TAIL), LARGER) is None
