"""The scripts that Panloom hands out do in the interpreter what they do in iPXE."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.decide.boot_answer import BootNode, BootServer, BootTable, boot_script, wait_script
from panloom.errors import MalformedError
from panloom.lab.ipxe_script import Chain, Dhcp, Echo, RootPath, Sanboot, Sleep, run_script
from panloom.values import Iqn, MacAddress

TABLE = BootTable("lab0", IPv4Address("10.77.0.1"), IPv4Network("10.77.0.0/24"))
SERVER = BootServer("shop/web1", 3, Iqn("iqn.2026-11.dev.panloom:shop.web1"), Iqn("iqn.2026-11.dev.panloom:node.n1"))
NODE = BootNode("n1", MacAddress.parse("52:54:00:77:00:01"), IPv4Address("10.77.0.11"), SERVER)
ROOT = "iscsi:10.77.0.1:6:3260:0:iqn.2026-11.dev.panloom:shop.web1"


def acts(text, settings, outcomes):
    """Return what a script does when its acts come out as told, and how it ended: True, False, None for cut off."""
    steps = run_script(text, settings)
    done = []
    outcomes = iter(outcomes)
    try:
        act = next(steps)
        while True:
            done.append(act)
            if isinstance(act, Echo):
                act = steps.send(True)
                continue
            outcome = next(outcomes, None)
            if outcome is None:
                return [act for act in done if not isinstance(act, Echo)], None
            act = steps.send(outcome)
    except StopIteration as end:
        return [act for act in done if not isinstance(act, Echo)], end.value


def script(user="shop.web1.3", secret="c0ffee"):
    server = BootServer(SERVER.name, 3, SERVER.target, SERVER.initiator, user, secret)
    return boot_script(TABLE, NODE, server, TABLE.address)


def test_the_boot_script_sets_the_credentials_and_boots():
    settings = {}
    assert acts(script(), settings, [True]) == ([Sanboot(ROOT)], True)
    assert settings == {
        "initiator-iqn": "iqn.2026-11.dev.panloom:node.n1",
        "username": "shop.web1.3",
        "password": "c0ffee",
    }
    assert RootPath.parse(ROOT) == RootPath("10.77.0.1", 3260, 0, "iqn.2026-11.dev.panloom:shop.web1")


def test_the_boot_script_without_a_disk_forgets_the_secret_and_asks_again():
    settings = {}
    done, _ = acts(script(), settings, [False, True, False, True, True])
    assert done == [Sanboot(ROOT), Sleep(2), Dhcp(), Sleep(2), Dhcp(), Sleep(2)]
    assert "password" not in settings
    settings["filename"] = "http://10.77.0.1:8080/boot/T"
    assert acts(script(), settings, [False, True, True, True]) == (
        [Sanboot(ROOT), Sleep(2), Dhcp(), Chain("http://10.77.0.1:8080/boot/T")],
        True,
    )


def test_the_waiting_script_goes_round():
    settings = {"root-path": ROOT}
    done, ended = acts(wait_script("wait", 4), settings, [True, True, False, True])
    assert (done, ended) == ([Sleep(4), Dhcp(), Sanboot(ROOT), Sleep(4), Dhcp()], None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "first line"),
        ("set a b", "first line"),
        ("#!ipxe\nexplode now", "'explode now'"),
        ("#!ipxe\ngoto nowhere", "'goto nowhere'"),
        ("#!ipxe\n:a\ngoto a", "without doing anything"),
        ("#!ipxe\nsleep soon", "'sleep soon'"),
    ],
)
def test_what_ipxe_does_not_understand_is_malformed(text, why):
    with pytest.raises(MalformedError, match=why):
        acts(text, {}, [])


@pytest.mark.parametrize(
    ("line", "did"),
    [
        ("isset ${no} && sleep 1", []),
        ("isset ${no} || sleep 1", [Sleep(1)]),
        ("isset ${yes} && sleep 1 || sleep 2", [Sleep(1)]),
        ("set no x ||", []),
        ("clear no ||", []),
        ("set a 3\nsleep ${a}", [Sleep(3)]),
    ],
)
def test_operators_and_settings(line, did):
    assert acts(f"#!ipxe\n{line}\n", {"yes": "1"}, [True] * 5) == (did, line != "isset ${no} && sleep 1")


@pytest.mark.parametrize(
    "text", ["", "iscsi:", "iscsi:a:6:x:0:t", "nbd:a:6:1:0:t", "iscsi:a:17:1:0:t", "iscsi:a:6:1:z:t"]
)
def test_no_root_path(text):
    with pytest.raises(MalformedError):
        RootPath.parse(text)


@given(st.text(max_size=200) | st.text(max_size=200).map(lambda tail: "#!ipxe\n" + tail))
def test_any_text_runs_or_is_malformed(text):
    try:
        acts(text, {}, [True, False, True])
    except MalformedError:
        pass
