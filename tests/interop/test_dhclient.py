"""ISC's dhclient against the real boot services: identifiers, leases it remembers, an address it refuses."""

import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from interop.test_udhcpc import FRONT_RANGE, N1, add_virtual_nic
from support.boot_chassis import MACS, boot_services, server, table
from support.namespaces import Namespace
from support.waiting import until

SCRIPT = """\
#!/bin/sh
# What dhclient does with a lease: it is written down; an address that the file "taken" names is declined.
cd "$(dirname "$0")"
env > new && mv new "$reason"
case $reason in
    PREINIT | PREINIT6) ip link set "$interface" up ;;
    BOUND6)
        if grep -qxs "$new_ip6_address" taken; then exit 3; fi
        ip -6 address replace "$new_ip6_address/128" dev "$interface" nodad ;;
    BOUND | REBOOT) ! grep -qxs "$new_ip_address" taken && ip address replace "$new_ip_address/24" dev "$interface" ;;
esac
"""


class Dhclient:
    """One dhclient, with a directory of its own for what it remembers and is given."""

    def __init__(self, machine: Namespace, directory: Path, interface: str, *options: str, family: str = "-4") -> None:
        self._machine, self._interface, self._family = machine, interface, family
        self.directory = directory
        directory.mkdir()
        (directory / "script").write_text(SCRIPT)
        (directory / "script").chmod(0o755)
        lines = ("timeout 20;", "retry 1;", "initial-interval 1;", "option initiator code 203 = text;")
        wanted = "request subnet-mask, routers, domain-name-servers, domain-name, root-path, initiator;"
        if family == "-6":
            wanted = "also request dhcp6.bootfile-url;"
        (directory / "conf").write_text("\n".join((*lines, wanted, *options)) + "\n")

    def run(self, *more: str) -> "subprocess.Popen[bytes]":
        """Start it; what it says is in ``log``."""
        files = {"-sf": "script", "-cf": "conf", "-lf": "leases", "-pf": "pid"}
        named = [word for option, name in files.items() for word in (option, str(self.directory / name))]
        with (self.directory / "log").open("ab") as log:
            return self._machine.start(
                *("dhclient", self._family, "-d", *named, *more, self._interface), stdout=log, stderr=subprocess.STDOUT
            )

    def given(self, reason: str) -> dict[str, str]:
        """Return the variables that its script was called with for ``reason``, once it was."""
        path = self.directory / reason
        lines = until(lambda: path.exists() and path.read_text().splitlines(), f"dhclient says {reason}", seconds=30)
        return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.fixture
def services(tmp_path):
    with boot_services(tmp_path, table(n1=server(chap=False))) as running:
        yield running


def test_each_scope_has_its_own_variables(services, tmp_path):
    machine = services.chassis["n1"]
    add_virtual_nic(machine)
    first, second = Dhclient(machine, tmp_path / "first", "eth0"), Dhclient(machine, tmp_path / "second", "os0")
    for client in (first, second):
        client.run()
    given = first.given("BOUND")
    assert (given["new_ip_address"], given["new_initiator"]) == (str(N1), "iqn.2026-11.dev.panloom:node.n1")
    assert given["new_root_path"].startswith("iscsi:10.77.0.1:")
    given = second.given("BOUND")
    assert IPv4Address(given["new_ip_address"]) in FRONT_RANGE
    assert (given["new_routers"], given["new_domain_name"]) == ("10.99.0.1", "front.example")
    assert given["new_domain_name_servers"] == "10.99.0.2 10.99.0.3"
    assert not {"new_root_path", "new_initiator"} & given.keys()


def test_cap_024_three_clients_of_one_virtual_mac_hold_three_leases_at_once(services, tmp_path):
    machine = services.chassis["n1"]
    add_virtual_nic(machine)
    clients = [
        Dhclient(machine, tmp_path / name, "os0", f'send dhcp-client-identifier "{name}";') for name in ("a", "b", "c")
    ]
    for client in clients:
        client.run()
    addresses = {client.given("BOUND")["new_ip_address"] for client in clients}
    assert len(addresses) == 3

    def shown():
        return machine.run("ip", "-o", "-4", "address", "show", "dev", "os0").stdout.decode()

    until(lambda: all(f"{address}/" in shown() for address in addresses), "the NIC has all three", seconds=30)


def test_a_lease_that_it_remembers_is_confirmed_and_given_back(services, tmp_path):
    client = Dhclient(services.chassis["n2"], tmp_path / "n2", "eth0")
    process = client.run()
    address = client.given("BOUND")["new_ip_address"]
    remembered = client.directory / "leases"
    until(
        lambda: address in remembered.read_text() and remembered.read_text().endswith("}\n"),
        "it is written down",
        seconds=30,
    )
    process.kill()
    process.wait(10)
    client.run()
    assert client.given("REBOOT")["new_ip_address"] == address
    client.run("-r").wait(30)
    assert str(services.wait_for("released", seconds=30).address) == address


def test_an_address_that_it_declines_rests(services, tmp_path):
    client = Dhclient(services.chassis["n2"], tmp_path / "n2", "eth0")
    (client.directory / "taken").write_text("10.77.0.52\n")
    client.run()
    declined = services.wait_for("declined", seconds=30)
    assert (str(declined.mac), str(declined.address)) == (MACS["n2"], "10.77.0.52")
