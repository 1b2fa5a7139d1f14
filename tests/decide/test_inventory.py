"""What a machine reports that has looked at itself: read where it is sense, and left aside where it is none."""

from hypothesis import given
from hypothesis import strategies as st

from panloom.decide.hardware import LONGEST_WORD, MOST_NICS, Hardware
from panloom.decide.inventory import MOST_DISKS, hardware_of_inventory

REPORT = """arch=x86_64
cpu=Intel(R) Xeon(R) Gold 6130
cores=16
memory=68719476736
manufacturer=Dell Inc.
product=PowerEdge R640
serial=7XK2
uuid=4C4C4544-0058-4B10-8032-B1C04F4C3258
nic=52:54:00:77:00:01 1 virtio_net
nic=52:54:00:77:00:02 0 igb
disk=sda 240057409536 SAMSUNG MZ7L
disk=nvme0n1 1099511627776
"""


def test_a_report_tells_all_of_a_machine():
    assert hardware_of_inventory(REPORT) == Hardware(
        architecture="x86-64",
        uuid="4c4c4544-0058-4b10-8032-b1c04f4c3258",
        vendor="Dell Inc.",
        product="PowerEdge R640",
        serial="7XK2",
        processor="Intel(R) Xeon(R) Gold 6130",
        cores=16,
        memory_octets=64 << 30,
        nics=("52:54:00:77:00:01", "52:54:00:77:00:02"),
        links=("52:54:00:77:00:01",),
        disks=("sda 223.6 GiB SAMSUNG MZ7L", "nvme0n1 1 TiB"),
    )


def test_what_makes_no_sense_tells_nothing():
    nonsense = "arch=vax\ncores=-4\nmemory=1e9\nuuid=x\nnic=\nnic=zz 1\ndisk=sda\ndisk=sdb x y\n=\nno word\n\0"
    assert hardware_of_inventory(nonsense) == Hardware()
    assert hardware_of_inventory("memory=" + "9" * 60) == Hardware()
    many = "".join(f"nic=52:54:00:77:00:{number:02x} 1 x\ndisk=d{number} 512 m\n" for number in range(200))
    told = hardware_of_inventory(many)
    assert (len(told.nics), len(told.links), len(told.disks)) == (MOST_NICS, MOST_NICS, MOST_DISKS)


@given(st.text() | st.lists(st.sampled_from(REPORT.splitlines())).map("\n".join))
def test_any_report_is_read(report):
    told = hardware_of_inventory(report)
    assert all(len(word) <= LONGEST_WORD for word in (told.vendor, told.serial, *told.disks))
