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
