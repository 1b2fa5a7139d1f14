"""What machines say of themselves: read where it is sense, and left aside where it is none."""

from urllib.parse import parse_qsl, urlsplit

from hypothesis import given
from hypothesis import strategies as st

from panloom.decide.hardware import Hardware, hardware_of_report, hardware_of_request, report_address
from panloom.lab.firmware import options_of
from panloom.lab.qemu import uuid_of
from panloom.values import MacAddress
from panloom.wire.dhcp import MessageType, Option
from support.dhcp_client import DhcpClient

MAC = "52:54:00:77:00:01"


def test_a_request_tells_architecture_and_uuid():
    options = options_of("n1", MacAddress.parse(MAC))
    told = hardware_of_request(DhcpClient(MAC, options).message(MessageType.DISCOVER))
    assert told == Hardware(architecture="x86-64", firmware="bios", uuid=str(uuid_of("n1")))
    arm = {Option.CLIENT_ARCHITECTURE: b"\0\x0b"}
    assert hardware_of_request(DhcpClient(MAC, arm).message(MessageType.DISCOVER)) == Hardware("arm64", "efi")
    strange = {Option.CLIENT_ARCHITECTURE: b"\xff\xff", Option.CLIENT_MACHINE: b"\7" + bytes(16)}
    assert hardware_of_request(DhcpClient(MAC, strange).message(MessageType.DISCOVER)) == Hardware(firmware="bios")


def test_a_report_tells_what_smbios_and_the_nic_say():
    words = {"manufacturer": "Dell Inc.", "cpu": "Xeon", "cores0": "10", "arch": "arm64", "platform": "efi"}
    words |= {"memory0": "00000000ffff2f00", "memory1": "0000400000ffff00", "nic": "i40e"}
    words |= {"nic0": "525400770001", "nic1": "", "nic2": "000000000000", "nic3": "5254"}
    told = hardware_of_report(words)
    assert (told.vendor, told.processor, told.cores, told.nic) == ("Dell Inc.", "Xeon", 16, "i40e")
    assert (told.architecture, told.firmware, told.nics) == ("arm64", "efi", ("52:54:00:77:00:01",))
    assert told.memory_octets == (3 << 30) + ((0xFFFF01 - 0x400000) << 10)


def test_cores_are_those_of_all_sockets():
    assert hardware_of_report({"cores0": "18", "cores1": "18", "cores2": "00", "cores3": ""}).cores == 48


def test_what_makes_no_sense_tells_nothing():
    nonsense = {
        "uuid": "x",
        "cores0": "zz",
        "memory0": "00",
        "memory1": "ffffffff00000000",
        "memory2": "00000000ffffffff",
    }
    nonsense |= {"initiator": "not one", "arch": "vax", "platform": "toaster", "unasked": "x"}
    assert hardware_of_report(nonsense) == Hardware()
    assert hardware_of_report({"manufacturer": "a\x1b[2J\nb" + "c" * 100}).vendor == "a[2Jb" + "c" * 59


def test_the_address_asks_ipxe_for_every_word_that_is_read():
    query = parse_qsl(urlsplit(report_address("http://10.77.0.1:8080/boot/T/hardware")).query, strict_parsing=True)
    assert ("manufacturer", "${manufacturer:uristring}") in query
    full = {word: "1" for word, _ in query} | {
        "uuid": str(uuid_of("n1")),
        "initiator": "iqn.2026-01.a:b",
    }
    full |= {"arch": "x86_64", "platform": "efi", "cores0": "01", "memory0": "0000000000000100"}
    full["nic0"] = "525400770001"
    told = hardware_of_report(full)
    of_the_inventory = {"links", "disks"}
    assert all(getattr(told, name) for name in {*told.__struct_fields__} - of_the_inventory)


@given(
    st.dictionaries(st.sampled_from(["cores0", "cores3", "memory0", "memory3", "uuid", "initiator", "cpu"]), st.text())
)
def test_any_report_is_read(words):
    told = hardware_of_report(words)
    assert told.memory_octets >= 0
    assert told.cores <= 4 * 255


def test_what_is_said_later_lies_over_what_was_said_before():
    before, later = Hardware(architecture="x86-64", uuid="u"), Hardware(architecture="arm64", vendor="v")
    assert later.over(before) == Hardware(architecture="arm64", uuid="u", vendor="v")
