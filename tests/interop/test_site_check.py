"""``panloom check`` of a real site: nothing is wrong at first, then one thing after the other, dnsmasq among them."""

import json
import subprocess

import pytest

from support.control_node import address_of, control_node, pan, run_panloom
from support.namespaces import namespace
from support.waiting import until

pytestmark = pytest.mark.timeout(180)
PARTS = {"boot services", "MTU", "addresses", "DHCP", "portal", "power", "nodes", "images", "spares"}
STRANGER = "52:54:00:99:00:01"


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    with control_node(tmp_path_factory.mktemp("site"), nodes=2) as made:
        made.start()
        made.apply(pan("shop", "web1"))
        made.until_up("shop/web1")
        yield made


@pytest.fixture
def stranger(control):
    """A machine that no document names, at a port of its own."""
    with namespace("stranger") as made:
        made_here = f"link add port-stranger type veth peer name eth0 address {STRANGER} netns {made.name}"
        control.inside.ip(made_here)
        control.inside.ip("link set port-stranger master br0 up")
        made.ip("address add 10.77.0.200/24 dev eth0")
        made.ip("link set eth0 addrgenmode none up")
        yield made


def check(control, *files):
    code, said, _ = run_panloom(control, "check", *map(str, files), "-o", "json")
    told = json.loads(said)
    wrong = {
        (one["part"], one["where"]): f"{one['found']}; {one['mend']}"
        for one in told["findings"]
        if one["state"] == "wrong"
    }
    states = {one["state"] for one in told["findings"]}
    assert told["state"] == next((state for state in ("wrong", "unknown") if state in states), "ok")
    assert code == (told["state"] != "ok")
    return told["findings"], wrong


def test_a_site_that_is_well(control):
    findings, wrong = check(control)
    assert wrong == {}
    assert {one["part"] for one in findings} == PARTS
    assert {one["state"] for one in findings} == {"ok"}
    code, said, told = run_panloom(control, "check")
    assert (code, "DHCP" in said, "panloom doctor" in told) == (0, True, True)


def test_another_dhcp_server_and_who_has_an_address_of_ours(control, stranger, tmp_path):
    stranger.ip(f"address add {address_of(2)}/24 dev eth0")
    configuration = tmp_path / "dnsmasq.conf"
    configuration.write_text(
        "port=0\nuser=root\ninterface=eth0\nbind-interfaces\ndhcp-range=10.77.0.210,10.77.0.220\nleasefile-ro\n"
        f"pid-file={tmp_path}/pid\n"
    )
    said = tmp_path / "log"
    with said.open("wb") as log:
        command = ("dnsmasq", "--keep-in-foreground", "--log-facility=-", f"--conf-file={configuration}")
        server = stranger.start(*command, stderr=log, stdout=subprocess.DEVNULL)
    try:
        until(lambda: b"DHCP, IP range" in said.read_bytes(), "dnsmasq is ready")
        _, wrong = check(control)
    finally:
        server.terminate()
        server.wait()
    assert "10.77.0.200 offers addresses: machines may take its offer; switch that server off" in wrong["DHCP", "br0"]
    assert f"{STRANGER} has {address_of(2)} too; take the address" in wrong["addresses", "node n2"]
    assert len(wrong) == 2
    _, wrong = check(control)
    assert ("DHCP", "br0") not in wrong


def test_frames_that_a_port_does_not_take(control):
    control.inside.ip("link set port-n2 mtu 1400")
    try:
        _, wrong = check(control)
    finally:
        control.inside.ip("link set port-n2 mtu 1500")
    # A bridge takes its smallest port's MTU where nobody has set one.
    assert [where for part, where in wrong if part == "MTU"] in (["port-n2 of node n2"], ["port-n1 of node n1"])


def test_documents_that_are_not_applied_yet(control, tmp_path):
    same, more, bad = (tmp_path / f"{name}.yaml" for name in ("same", "more", "bad"))
    same.write_text(control.platform())
    findings, wrong = check(control, same)
    assert ([one["state"] for one in findings if one["part"] == "files"], wrong) == (["ok"], {})
    more.write_text(pan("blog", "web1", host=31))
    assert "no machine is free; add a node" in check(control, more)[1]["files", str(more)]
    bad.write_text(pan("blog", "web1", host=31).replace("image:", "imagee:"))
    assert any("imagee: no such key" in f"{where}: {why}" for (_, where), why in check(control, bad)[1].items())


def test_an_image_that_is_not_there_a_portal_that_is_closed_and_power_that_nobody_has(control):
    control.apply("apiVersion: panloom/v1\nkind: Image\nname: lost\nversion: 1\nsource: /nonexistent\n", "lost.yaml")
    until(lambda: any("lost@1" in event.get("text", "") for event in control.events("held up")), "the image is missed")
    assert "/nonexistent" in check(control)[1]["images", "image lost@1"]
    control.kill("storage")
    control.supply.close()
    findings, wrong = check(control)
    assert "start the storage process with --portal 10.77.0.1:3260" in wrong["portal", "10.77.0.1:3260"]
    assert {where for part, where in wrong if part == "power"} == {"node n1", "node n2"}
    assert {one["part"] for one in findings if one["state"] == "unknown"} == {"images"}
    control.start_storage()
