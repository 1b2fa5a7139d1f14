"""From documents and records to what a machine must know."""

import asyncio

import msgspec
import pytest

from panloom.control.personalities import booted_with, personality_of
from panloom.decide.records import Clone
from panloom.errors import UnavailableError
from panloom.model.resources import Liveness, Volume
from support.dict_store import DictStore
from support.world import DOCUMENTS, LAN, MAC, PLATFORM, UP, WEB1, world_of


def personality(record=UP, documents=DOCUMENTS, name="shop/web1"):
    return personality_of(name, record, asyncio.run(world_of(DictStore(), record, documents)))


def changed(old, **changes):
    return tuple(old.model_copy(update=changes) if document is old else document for document in DOCUMENTS)


def test_the_lan_gives_what_the_nic_does_not_say():
    found = personality()
    (nic,) = found.nics
    assert msgspec.structs.asdict(nic) == {
        "lan": "front", "mac": MAC, "address": "10.1.0.11", "prefix": 24, "router": "10.1.0.1",
        "dns": "10.1.0.2 10.1.0.3", "domain": "shop.example",
    }  # fmt: skip
    assert (found.pan, found.server, found.node, found.epoch) == ("shop", "web1", "n1", 3)
    assert (str(found.beacon_address), found.beacon_key) == ("10.77.0.1", UP.beacon_key)
    assert b"EPOCH='3'\n" in found.to_octets()


@pytest.mark.parametrize(("timeout", "seconds"), [(1.0, 0.25), (3.0, 0.75), (60.0, 1.0)])
def test_beacons_come_the_oftener_the_sooner_silence_is_judged_and_that_needs_no_boot(timeout, seconds):
    hasty = changed(PLATFORM, liveness=Liveness(timeout_seconds=timeout))
    assert personality(documents=hasty).beacon_seconds == seconds
    assert personality(documents=hasty).digest() == personality().digest()


def test_a_nic_without_an_address_of_its_own_asks_for_one():
    nics = (WEB1.nics[0].model_copy(update={"address": None}),)
    assert personality(documents=changed(WEB1, nics=nics)).nics[0].address == ""


def test_a_move_is_no_change_of_what_a_machine_must_know_and_a_document_is():
    moved = msgspec.structs.replace(UP, epoch=4, node="n2", beacon_key="1234", secret="x")
    assert personality(moved).digest() == personality().digest()
    assert personality(moved).to_octets() != personality().to_octets()
    for documents in (changed(LAN, domain="other.example"), changed(LAN, router=None), changed(WEB1, nics=())):
        assert personality(documents=documents).digest() != personality().digest()


def test_an_instance_is_the_clone_that_is_the_servers_disk_now_and_each_keeps_its_own():
    old, new = Clone("shop.web1", "first"), Clone("shop.web1-2", "second", prepared=False)
    both = UP.with_clone(old, ()).with_clone(new, {"shop.web1"})
    assert personality(both).instance == "first"
    other = tuple(
        document.model_copy(update={"name": "web1-2", "server": "web1"}) if isinstance(document, Volume) else document
        for document in DOCUMENTS
    )
    assert personality(both, other).instance == "second"
    assert both.with_clone(new, ()).clones == (new,)
    assert personality().instance == personality().instance != personality(documents=other).instance
    assert personality(both).digest() == personality().digest()


def test_a_machine_boots_again_for_another_personality_or_another_proof():
    def booted(*documents):
        return booted_with("shop/web1", UP, asyncio.run(world_of(DictStore(), UP, documents)))

    chap, moved = booted(*DOCUMENTS), changed(LAN, domain="other.example")
    none = booted(*changed(WEB1, auth="none"))
    assert len({chap, none, booted(*moved)}) == 3
    assert booted(*changed(PLATFORM, auth="none")) == none
    assert booted(*changed(WEB1, auth="chap")) == chap


def test_a_server_or_lan_without_a_document_has_none_yet():
    with pytest.raises(UnavailableError, match="shop/web9 has no document"):
        personality(name="shop/web9")
    with pytest.raises(UnavailableError, match="LAN shop/front has no document"):
        personality(documents=tuple(document for document in DOCUMENTS if document is not LAN))
