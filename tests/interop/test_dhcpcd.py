"""dhcpcd against the real boot services: a client that probes by itself, informs, and names itself by a DUID."""

import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from interop.test_udhcpc import FRONT_RANGE, N1, N2, add_virtual_nic
from support.boot_chassis import MACS, boot_services, server, table
from support.namespaces import Namespace
from support.waiting import until

SCRIPT = """\
#!/bin/sh
# What dhcpcd tells its hook is written down, by the reason.
cd "$(dirname "$0")"
env > new && mv new "$interface.$reason"
"""
# Its directories are where they are compiled in: they are laid over, in a mount namespace that ends with it.
START = 'for at in /var/lib /run; do mount -t tmpfs none $at; done; mkdir -p /var/lib/dhcpcd /run/dhcpcd; exec "$@"'


def start_dhcpcd(
    machine: Namespace, directory: Path, interface: str, *options: str | Path
) -> "subprocess.Popen[bytes]":
    """Start dhcpcd on an interface; what it is given lands in ``directory/INTERFACE.REASON``."""
    script = directory / "hook"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    with (directory / "log").open("ab") as log:
        return machine.start(
            *("unshare", "--mount", "sh", "-c", START, "sh"),
            *("dhcpcd", "-4", "-B", "-d", "--noipv4ll", "-f", "/dev/null", "-c", script, "-t", "20"),
            *("-o", "root_path", "-o", "routers", "-o", "domain_name_servers", "-o", "domain_name"),
            *(*options, interface),
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def given(directory: Path, interface: str, reason: str) -> dict[str, str]:
    """Return the variables that the hook was called with for ``reason``, once it was."""
    path = directory / f"{interface}.{reason}"
    lines = until(lambda: path.exists() and path.read_text().splitlines(), f"dhcpcd says {reason}", seconds=30)
    return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.fixture
def services(tmp_path):
    with boot_services(tmp_path, table(n1=server(chap=False))) as running:
        yield running


def test_each_scope_has_its_own_variables(services, tmp_path):
    machine = services.chassis["n1"]
    add_virtual_nic(machine)
    start_dhcpcd(machine, tmp_path, "eth0", "--noarp")
    first = given(tmp_path, "eth0", "BOUND")
    assert first["new_ip_address"] == str(N1)
    assert first["new_root_path"].startswith("iscsi:10.77.0.1:")
    start_dhcpcd(machine, tmp_path, "os0", "--noarp")
    second = given(tmp_path, "os0", "BOUND")
    assert IPv4Address(second["new_ip_address"]) in FRONT_RANGE
    assert (second["new_routers"], second["new_domain_name"]) == ("10.99.0.1", "front.example")
    assert "new_root_path" not in second


def test_who_has_its_address_already_is_informed(services, tmp_path):
    """RFC 2131 section 3.4: it is told its options, and no lease is written."""
    start_dhcpcd(services.chassis["n1"], tmp_path, "eth0", f"--inform={N1}/24")
    assert given(tmp_path, "eth0", "INFORM")["new_root_path"].startswith("iscsi:10.77.0.1:")
    assert not [event for event in services.events if event.kind == "dhcp"]


def test_it_declines_an_address_that_somebody_took_after_the_lease(services, tmp_path):
    process = start_dhcpcd(services.chassis["n2"], tmp_path, "eth0", "--noarp")
    assert given(tmp_path, "eth0", "BOUND")["new_ip_address"] == str(N2)
    process.kill()  # with its lease
    process.wait(10)
    services.chassis["n2"].ip("address flush dev eth0")
    services.chassis["stranger"].ip(f"address add {N2}/24 dev eth0")
    start_dhcpcd(services.chassis["n2"], tmp_path, "eth0")
    declined = services.wait_for("declined", seconds=30)
    assert (str(declined.mac), declined.address) == (MACS["n2"], N2)


def test_it_gives_its_lease_back(services, tmp_path):
    (tmp_path / "conf").write_text("release\n")
    process = start_dhcpcd(services.chassis["n2"], tmp_path, "eth0", "--noarp", "-f", tmp_path / "conf")
    given(tmp_path, "eth0", "BOUND")
    process.terminate()
    assert services.wait_for("released", seconds=30).address == N2
