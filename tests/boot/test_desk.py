"""The desk towards machines that nobody named."""

from ipaddress import IPv4Address, IPv6Address

import msgspec

from panloom.boot.desk import BootDesk
from panloom.boot.file_root import FileRoot
from panloom.boot.ipv6_desk import Ipv6Desk
from panloom.decide.boot_answer import inventory_files
from panloom.decide.boot_menu import menu_of
from panloom.decide.hardware import Hardware
from panloom.model.resources import Becoming, Image, Rule
from panloom.protocol.dhcpv6_request import Request
from panloom.values import MacAddress
from panloom.wire.dhcp import MessageType
from panloom.wire.dhcpv6 import Kind, Message, Option
from support.boot_chassis import IPV6, MACS, server, table, with_ipv6
from support.dhcp_client import IPXE, DhcpClient

STRANGER = MacAddress.parse(MACS["stranger"])
N1 = IPv4Address("10.77.0.51")
ADDRESS, ELSEWHERE = IPv4Address("10.77.0.200"), IPv4Address("10.77.0.201")


class Told:
    """A desk whose tokens are numbered, and the events that it reports."""

    def __init__(self, the_table, files=None):
        self.events = []
        self.tokens = iter(range(100))
        self.desk = BootDesk(the_table, FileRoot(files), self.events.append, lambda: f"token{next(self.tokens)}")

    def kinds(self):
        return [event.kind for event in self.events]


def asks(told, mac=MACS["stranger"], options=IPXE):
    request = DhcpClient(mac, options).message(MessageType.DISCOVER)
    assert told.desk.assignment(request) is not None
    return request


def test_a_stranger_boots_here_once_its_boot_firmware_has_asked():
    told = Told(table())
    assert not told.desk.boots(STRANGER)
    assert told.desk.boots(MacAddress.parse(MACS["n1"]))
    asks(told)
    assert told.desk.boots(STRANGER)


def test_a_stranger_is_told_to_report_and_what_it_reports_is_passed_on():
    told = Told(table())
    told.desk.acknowledged(asks(told), ADDRESS, now=1.0)
    page = told.desk.script("token0", ADDRESS, now=2.0)
    assert "/boot/token0/hardware?manufacturer=${manufacturer:uristring}&" in page.text
    answer = told.desk.hardware("token0", ADDRESS, {"manufacturer": "Dell"}, now=3.0)
    assert (answer.status, "chain --replace --autofree ${filename}" in answer.text) == (200, True)
    assert told.kinds() == ["discovered", "waiting", "hardware"]
    assert told.events[-1].hardware == Hardware(vendor="Dell")
    assert (told.events[-1].mac, told.events[-1].node) == (STRANGER, None)


def test_a_spare_says_what_it_is_once():
    told, n1 = Told(table()), table().nodes[0]
    told.desk.acknowledged(asks(told, MACS["n1"]), n1.address, now=1.0)
    assert "/boot/token0/hardware?" in told.desk.script("token0", n1.address, now=2.0).text
    assert told.desk.hardware("token0", n1.address, {"cores0": "04"}, now=3.0).status == 200
    assert (told.events[-1].kind, told.events[-1].node, told.events[-1].hardware.cores) == ("hardware", "n1", 4)
    assert "hardware" not in told.desk.script("token0", n1.address, now=4.0).text


def with_menu():
    web = Becoming(pan="shop", image="web")
    menu = menu_of(Rule(name="web", server=web, approve="prompt"), [Image(name="web", version=3)])
    return msgspec.structs.replace(table(), menus={STRANGER: menu})


def test_a_stranger_whose_console_is_to_ask_gets_the_menu_and_its_choice_is_passed_on():
    told = Told(with_menu())
    told.desk.acknowledged(asks(told), ADDRESS, now=1.0)
    page = told.desk.script("token0", ADDRESS, now=2.0)
    assert "item --key 1 web 1  web@3\n" in page.text
    assert "choose --default web --timeout 30000 choice" in page.text
    told.desk.acknowledged(asks(told), ADDRESS, now=500.0)  # as the script does: the first token is long over
    assert told.desk.install("token0", ADDRESS, "web", now=500.0).status == 404
    assert told.desk.install("token1", ELSEWHERE, "web", now=500.0).status == 403
    assert told.desk.install("token1", ADDRESS, "root", now=500.0).status == 404
    assert "chosen" not in told.kinds()
    assert told.desk.install("token1", ADDRESS, "web", now=500.0).status == 200
    assert (told.events[-1].kind, told.events[-1].choice, told.events[-1].mac) == ("chosen", "web", STRANGER)
    told.desk.replace(table())
    assert "it is decided" in told.desk.install("token1", ADDRESS, "web", now=501.0).text
    assert told.kinds().count("chosen") == 1


def test_a_stranger_that_waits_looks_at_what_it_has_once_where_there_is_an_inventory(tmp_path):
    for name in inventory_files("x86-64"):
        (tmp_path / name).write_bytes(b"")
    told = Told(table(), tmp_path)
    told.desk.acknowledged(asks(told), ADDRESS, now=1.0)
    assert "/hardware?" in told.desk.script("token0", ADDRESS, now=2.0).text
    told.desk.hardware("token0", ADDRESS, {"arch": "x86_64", "manufacturer": "Dell"}, now=3.0)
    page = told.desk.script("token0", ADDRESS, now=4.0).text
    assert "kernel http://10.77.0.1:8080/files/inventory-x86-64.vmlinuz initrd=inventory-x86-64.cpio.gz " in page
    assert "panloom.report=http://10.77.0.1:8080/boot/token0/inventory ||" in page
    assert told.desk.inventory("token0", ELSEWHERE, "cores=4\n", now=5.0).status == 403
    assert told.desk.inventory("token0", ADDRESS, "cores=4\n", now=5.0).status == 200
    assert (told.events[-1].kind, told.events[-1].hardware) == ("hardware", Hardware(cores=4))
    assert "/hardware?" in told.desk.script("token0", ADDRESS, now=6.0).text


def test_one_of_another_architecture_does_not(tmp_path):
    for name in inventory_files("x86-64"):
        (tmp_path / name).write_bytes(b"")
    told = Told(table(), tmp_path)
    told.desk.acknowledged(asks(told), ADDRESS, now=1.0)
    told.desk.hardware("token0", ADDRESS, {"arch": "arm64"}, now=3.0)
    for now in (4.0, 5.0):
        assert "/hardware?" in told.desk.script("token0", ADDRESS, now=now).text


def test_a_report_counts_with_the_machines_own_token_from_its_own_address_only():
    told = Told(table())
    told.desk.acknowledged(asks(told), ADDRESS, now=1.0)
    assert told.desk.hardware("token0", ELSEWHERE, {"manufacturer": "Dell"}, now=2.0).status == 403
    assert told.desk.hardware("token1", ADDRESS, {"manufacturer": "Dell"}, now=2.0).status == 404
    assert told.desk.hardware("token0", ADDRESS, {"manufacturer": "Dell"}, now=100.0).status == 404
    assert told.kinds() == ["discovered", "refused", "refused", "refused"]


def test_a_node_that_boots_as_a_server_is_not_asked_what_it_is():
    told = Told(table(n1=server()))
    request = DhcpClient(MACS["n1"], IPXE).message(MessageType.DISCOVER)
    told.desk.acknowledged(request, told.desk.assignment(request).first, now=1.0)
    assert "hardware" not in told.desk.script("token0", told.desk.index.nodes[request.chaddr].address, now=2.0).text


def scripts(told, times, *, epoch=1):
    """Return how many seconds each of a node's scripts waits when there is no disk."""
    told.desk.replace(table(n1=server(epoch=epoch)))
    pages = []
    for _ in range(times):
        token = told.desk.acknowledged(asks(told, MACS["n1"]), N1, now=1.0).decode().rpartition("/")[2]
        pages.append(told.desk.script(token, N1, now=2.0).text)
    return [int(line.split()[-2]) for page in pages for line in page.splitlines() if "asking again in" in line]


def test_a_machine_that_comes_again_without_its_disk_waits_ever_longer_and_is_told_so():
    told = Told(table())
    assert scripts(told, 5) == [2, 4, 8, 10, 10]
    told.desk.login_seen(server().initiator, 1)
    assert scripts(told, 2) == [2, 4]
    assert scripts(told, 1, epoch=2) == [2], "what another boot has met says nothing of this one"


def test_a_script_that_comes_by_ipv6_is_for_the_address_beside_the_nodes():
    told = Told(with_ipv6(table(n1=server())))
    desk = Ipv6Desk(told.desk)
    message = Message(Kind.REQUEST, b"abc", ((Option.USER_CLASS, b"\0\4iPXE"),))
    request = Request(message, MacAddress.parse(MACS["n1"]), IPv6Address("fe80::1"))
    assert desk.assignment(request).file == "", "the offer has no token yet"
    assert desk.acknowledged(request, IPV6["n1"], now=1.0) == "http://[2001:db8:77::a4d:1]:8080/boot/token0"
    assert told.desk.script("token0", IPV6["n2"], now=2.0).status == 403
    page = told.desk.script("token0", IPV6["n1"], now=2.0)
    assert "sanboot iscsi:[2001:db8:77::a4d:1]:6:3260:0:iqn.2026-11.dev.panloom:shop.web1 ||" in page.text
    assert [event.kind for event in told.events] == ["dhcp", "refused", "script"]
