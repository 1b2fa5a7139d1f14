"""What a check of a site tells where it gets no answer: of whom, and of everything else as ever."""

import asyncio
from ipaddress import IPv4Address, IPv4Network

import pytest

from panloom.control import site_check
from panloom.control.boots import Boots
from panloom.control.edge import Edge
from panloom.control.events import EventLog
from panloom.control.observer import Observer
from panloom.control.site_check import SiteCheck, state_of
from panloom.errors import UnavailableError
from panloom.model.resources import ScriptPower, StorageNetwork
from support.dict_store import DictStore
from support.world import PLATFORM, node, put

NOWHERE = StorageNetwork(interface="nothere0", address=IPv4Address("127.0.0.1"), subnet=IPv4Network("127.0.0.0/24"))


class NoStorage:
    """A storage process that does not run."""

    async def volumes(self):
        raise UnavailableError("the storage process does not answer")


@pytest.fixture
def script(tmp_path):
    """Make a power driver of a shell script; return it as a document has it."""

    def made(name, text):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return ScriptPower(path=str(path), name=name)

    return made


def findings(*nodes, rows):
    """Return what is found of nodes on an interface that is not there, by part and where."""

    async def preflight(_wanted):
        return ()

    async def work():
        store = DictStore()
        await put(store, PLATFORM.model_copy(update={"storage": NOWHERE}), *nodes)
        events = EventLog(DictStore())
        observer = Observer(NoStorage(), Boots(DictStore()), events)
        edge = Edge(store, events, files=None, boot_event=observer.boot_event, beacon=observer.beacon)
        return await SiteCheck(store, observer, edge, preflight).findings(rows)

    found = asyncio.run(work())
    return {(one.part, one.where): one for one in found}


async def no_rows(_kind):
    return ()


def with_power(number, power):
    return node(number).model_copy(update={"power": power})


def test_a_driver_that_hangs_is_told_of_by_its_node_and_hides_no_other(script, monkeypatch):
    monkeypatch.setattr(site_check, "POWER_SECONDS", 0.5)
    hanging, well = script("hanging", "sleep 60"), script("well", "echo off")
    found = findings(with_power(1, hanging), with_power(2, well), rows=no_rows)
    power = {where: (one.state, one.found) for (part, where), one in found.items() if part == "power"}
    assert power["node n1"] == ("wrong", "its driver did not answer within 0.5 s")
    assert power["node n2"] in (("ok", "off"), ("wrong", "its driver did not answer within 0.5 s"))  # a busy machine's
    assert site_check.TURN_SECONDS + site_check.POWER_SECONDS < site_check.PART_SECONDS


def test_who_has_no_turn_while_others_hang_is_unknown_by_name(script, monkeypatch):
    monkeypatch.setattr(site_check, "_AT_ONCE", 1)
    monkeypatch.setattr(site_check, "TURN_SECONDS", 0.1)
    monkeypatch.setattr(site_check, "POWER_SECONDS", 0.5)
    hanging = script("hanging", "sleep 60")
    found = findings(with_power(1, hanging), with_power(2, hanging), rows=no_rows)
    assert {where: one.state for (part, where), one in found.items() if part == "power"} == {
        "node n1": "wrong",
        "node n2": "unknown",
    }


def test_a_fault_in_one_part_is_that_part_s_and_is_in_the_log(caplog):
    async def faulty(_kind):
        raise ValueError("a MAC of 0 octets")

    found = findings(rows=faulty)
    assert (found["nodes", ""].state, "ValueError: a MAC of 0 octets" in found["nodes", ""].found) == ("unknown", True)
    assert "check='nodes'" in caplog.text
    assert found["images", ""].found == "the storage process does not answer"
    assert found["spares", "servers"].state == "ok"
    assert {part for part, _ in found} >= {"boot services", "MTU", "DHCP", "portal"}
    assert state_of(found.values()) == "wrong"


def test_what_could_not_be_looked_at_keeps_a_site_from_being_ok():
    ok, unknown, wrong = (site_check.Finding("p", "", state) for state in ("ok", "unknown", "wrong"))
    assert [state_of(some) for some in ((), (ok,), (ok, unknown), (unknown, wrong, ok))] == [
        "ok",
        "ok",
        "unknown",
        "wrong",
    ]
