"""shared-nic.sh on a real kernel, in either layout: what an initramfs and a system do with it, here in namespaces."""

import shlex
from importlib.resources import files

import pytest

from support.namespaces import machines

MAC1, MAC2 = "52:54:00:77:00:01", "02:50:4c:00:00:01"
SCRIPT = str(files("panloom.node").joinpath("guest/shared-nic.sh"))
BEGIN = f"""
set -e
mount -t tmpfs run /run
shared_nic() {{ sh {shlex.quote(SCRIPT)} "$@"; }}
unshare --net sleep 300 &
system=$!
trap 'kill $system' EXIT
first=$(readlink /proc/self/ns/net)
until [ "$(readlink /proc/$system/ns/net)" != "$first" ]; do :; done
of_system() {{ nsenter -n/proc/$system/ns/net "$@"; }}
"""


@pytest.fixture
def machine():
    with machines({"n1": MAC1}) as chassis:
        yield chassis["n1"]


def run(machine, script, *, check=True):
    """Run a script with a /run of its own; ``$system`` is a process in the system's namespace."""
    done = machine.run("unshare", "--mount", "--propagation", "private", "sh", "-c", BEGIN + script, check=check)
    return done.stdout.decode().splitlines(), done.stderr.decode(), done.returncode


@pytest.mark.parametrize(("layout", "interface"), [("merged", "eth0"), ("split", "storage0")])
def test_cap_011_either_layout_has_the_disks_mac_and_the_systems_over_one_card(machine, layout, interface):
    said, _, _ = run(
        machine,
        f"""
        shared_nic storage eth0 {layout}
        shared_nic plug eth0 {MAC2} $system
        shared_nic show $system
        """,
    )
    assert said[:2] == [interface, f"layout: {layout}; the disk's address is on {interface}"]
    divide = said.index("the system's:")
    ours, theirs = said[2:divide], said[divide:]
    (line,) = [line for line in ours if f" {interface}" in line]
    assert MAC1 in line
    assert [line for line in ours if MAC2 in line] == []
    (line,) = [line for line in theirs if " eth0@" in line]
    assert MAC2 in line
    assert [line for line in theirs if MAC1 in line] == []
    (card,) = [line for line in ours if " eth0@" in line]
    assert (MAC1 in card) == (layout == "merged")


def test_cap_005_the_system_deletes_its_nic_and_has_it_again(machine):
    said, _, _ = run(
        machine,
        f"""
        shared_nic storage eth0 split
        for round in 1 2 3 4 5; do
            shared_nic plug eth0 {MAC2} $system
            of_system ip link set eth0 up
            of_system ip link del eth0
        done
        shared_nic plug eth0 {MAC2} $system
        shared_nic unplug eth0 $system
        of_system ip -o link
        cat /run/shared-nic/events
        """,
    )
    assert said[0] == "storage0"
    assert said[-8:] == ["card eth0", "storage storage0", *["nic eth0"] * 6]
    assert [line for line in said[:-8] if "eth0" in line] == []


@pytest.mark.parametrize(("layout", "interface"), [("merged", "eth0"), ("split", "storage0")])
def test_cap_207_loading_the_storage_driver_loads_the_shared_one_first_and_once(machine, layout, interface):
    """Asked for twice there is one; the virtual NIC lies over the card that it shares."""
    said, _, _ = run(
        machine,
        f"""
        shared_nic storage eth0 {layout}
        shared_nic storage eth0 {layout}
        ip -o link | wc -l
        shared_nic plug eth0 {MAC2} $system
        cat /sys/class/net/eth0/ifindex
        of_system ip -o link show eth0
        cat /run/shared-nic/events
        """,
    )
    assert said[:2] == [interface, interface]
    assert int(said[2]) == {"merged": 2, "split": 3}[layout]  # lo and the card; the disk's
    assert f"eth0@if{said[3]}:" in said[4]
    assert said[5:] == ["card eth0", f"storage {interface}", "nic eth0"]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("shared_nic storage eth0; shared_nic storage eth0 split", "eth0 is shared already, in the layout merged"),
        ("shared_nic storage eth7", "there is no network card eth7"),
        ("shared_nic storage eth0 mixed", "mixed is no layout; there are merged and split"),
        (f"shared_nic plug eth0 {MAC2} $system", "there is no card yet; shared-nic storage CARD comes first"),
        (
            f"shared_nic storage eth0; shared_nic plug eth0 {MAC2} $system; shared_nic plug eth0 {MAC2} $system",
            "the system has an interface eth0",
        ),
        ("shared_nic storage eth0; shared_nic plug eth0 nonsense $system", "eth0 cannot be plugged in"),
        ("shared_nic storage eth0; shared_nic plug eth0 ff:ff:ff:ff:ff:ff $system", "eth0 cannot be plugged in"),
        ("shared_nic frobnicate", "there are storage, plug, unplug and show"),
    ],
)
def test_what_cannot_be_is_one_clear_error_and_leaves_nothing(machine, script, why):
    _, complaint, status = run(machine, script, check=False)
    assert status == 1
    assert complaint.splitlines()[-1] == f"shared-nic: {why}"
    assert "nic" not in machine.run("ip", "-o", "link").stdout.decode()
