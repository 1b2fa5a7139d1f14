"""Carrying out the changes makes what is stored what is wanted; after that there are no changes."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.decide.plan import Effect, Mark, absent, changes, newest, result, volumes
from panloom.model.resources import (
    Disk,
    Failover,
    Image,
    Needs,
    Nic,
    Node,
    Pan,
    Platform,
    Resource,
    Server,
    VirtualLan,
    Volume,
)
from panloom.values import MacAddress


def by_key(*resources: Resource) -> dict[str, Resource]:
    return {resource.key: resource for resource in resources}


def server(name: str = "web1", **fields: object) -> Server:
    return Server.model_validate({"pan": "shop", "name": name, "image": "web", **fields})


def platform(**fields: object) -> Platform:
    storage = {"interface": "br0", "address": "10.77.0.1", "subnet": "10.77.0.0/24"}
    return Platform.model_validate({"name": "lab", "storage": storage, **fields})


def lan(**fields: object) -> VirtualLan:
    return VirtualLan.model_validate({"pan": "shop", "name": "front", "subnet": "10.1.0.0/24", **fields})


WEB1, WEB2, WEB3 = (Image(name="web", version=number, source=f"/{number}") for number in (1, 2, 3))
NIC = Nic(lan="front", address=IPv4Address("10.1.0.11"))

names = st.sampled_from(["a", "b", "c10", "c9"])
octets = st.sampled_from([0, 1 << 30, 2 << 30])
servers = st.builds(
    Server,
    pan=st.sampled_from(["p", "q"]),
    name=names,
    image=st.sampled_from(["web", "web@1"]),
    disk=st.builds(Disk, size_octets=octets),
    nics=st.lists(st.builds(Nic, lan=names, address=st.none() | st.just(IPv4Address("10.1.0.1"))), max_size=2).map(
        tuple
    ),
    node=st.none() | names,
    needs=st.builds(Needs, memory_octets=octets),
    failover=st.builds(Failover, within_seconds=st.sampled_from([5.0, 10.0])),
)
lans = st.builds(
    VirtualLan,
    pan=st.sampled_from(["p", "q"]),
    name=names,
    subnet=st.sampled_from([IPv4Network("10.1.0.0/24"), IPv4Network("10.1.0.0/16")]),
    router=st.none() | st.just(IPv4Address("10.1.0.254")),
)
nodes = st.builds(
    Node,
    name=names,
    mac=st.integers(1, 9).map(MacAddress),
    address=st.just(IPv4Address("10.0.0.9")),
    port=names,
    memory_octets=octets,
)
disks = st.builds(Volume, pan=st.sampled_from(["p", "q"]), name=names, image=st.just("web@1"), size_octets=octets)
anything = servers | lans | nodes | disks | st.builds(Pan, name=names) | st.sampled_from([WEB1, WEB2])
sets = st.lists(anything, max_size=12).map(lambda resources: by_key(*resources))


@given(sets, sets)
def test_what_is_stored_becomes_what_is_wanted(have, want):
    gone = frozenset(have) - frozenset(want)
    plan = changes(have, want, absent=gone)
    after = result(have, plan, prune=True)
    assert after == want
    assert changes(after, want).changes == ()


@given(sets, sets)
def test_without_prune_nothing_is_lost(have, want):
    plan = changes(have, want, absent=frozenset(have) - frozenset(want))
    after = result(have, plan, prune=False)
    assert after == {**have, **want}
    assert changes(after, want).changes == ()


@given(sets, sets)
def test_nothing_is_made_before_what_it_refers_to_or_removed_after_it(have, want):
    order = ["platform", "node", "image", "pan", "lan", "server", "volume"]
    plan = changes(have, want, absent=frozenset(have) - frozenset(want))
    removed = [order.index(change.resource.kind) for change in plan.changes if change.mark is Mark.REMOVE]
    assert removed == sorted(removed, reverse=True)
    made = [order.index(change.resource.kind) for change in plan.changes if change.mark is Mark.ADD]
    assert made == sorted(made)


@given(sets, sets, st.sets(st.sampled_from(["a.yaml", "b.yaml"])), st.sets(st.sampled_from(["p", "q"])))
def test_no_volume_is_ever_absent(have, want, files, pans):
    origins = dict.fromkeys(have, "a.yaml")
    gone = absent(have, want, origins=origins, files=frozenset(files), pans=frozenset(pans))
    assert not any(isinstance(have[key], Volume) for key in gone)
    assert not gone & want.keys()


def test_a_file_speaks_for_what_it_brought_and_a_pan_for_its_members():
    have = by_key(Pan(name="shop"), server("web1"), server("web2"), WEB1, WEB2)
    origins = {WEB1.key: "images.yaml", WEB2.key: "other.yaml", "/want/server/shop/web2": "old.yaml"}
    assert absent(have, [], origins=origins, files=frozenset(["images.yaml"]), pans=frozenset()) == {WEB1.key}
    want = ["/want/pan/shop", "/want/server/shop/web1"]
    gone = absent(have, want, origins=origins, files=frozenset(["new.yaml"]), pans=frozenset(["shop"]))
    assert gone == {"/want/server/shop/web2"}


def test_a_new_server_boots_where_the_preview_says():
    asked: list[tuple[Server, ...]] = []

    def preview(wanted, booting):
        asked.append(booting)
        return {"shop/web1": "boots on n1 (free, fits)"} if "/want/pan/shop" in wanted else {}

    one, two = server("web1", nics=(NIC,)), server("web2")
    plan = changes(by_key(Pan(name="shop"), two), by_key(one, two), preview=preview)
    (change,) = plan.changes
    assert (change.mark, change.effect, change.note) == (Mark.ADD, Effect.BOOTS, "boots on n1 (free, fits)")
    assert change.detail == "image web, 10.1.0.11"
    assert asked == [(one,)]
    assert plan.servers(Effect.BOOTS) == ("shop/web1",)


@pytest.mark.parametrize(
    ("fields", "effect", "detail"),
    [
        ({"nics": [{"lan": "front"}]}, Effect.REBOOTS, "nics[0].address 10.1.0.11 → -"),
        ({"nics": []}, Effect.REBOOTS, "nics [front 10.1.0.11] → []"),
        ({"auth": "none"}, Effect.REBOOTS, "auth - → none"),
        ({"node": "n2"}, Effect.NONE, "node - → n2"),
        ({"needs": {"memory_octets": 1 << 30}}, Effect.NONE, "needs.memory 0 B → 1 GiB"),
        ({"failover": {"within_seconds": 5}}, Effect.NONE, "failover.within 10 s → 5 s"),
    ],
)
def test_a_changed_server_boots_again_only_for_a_new_personality(fields, effect, detail):
    before = server(nics=(NIC,))
    (change,) = changes(by_key(before), by_key(server(**{"nics": (NIC,), **fields}))).changes
    assert (change.mark, change.effect, change.detail) == (Mark.CHANGE, effect, detail)


def test_servers_on_a_changed_lan_boot_again():
    have = by_key(lan(), server(nics=(NIC,)), server("web2"))
    plan = changes(have, by_key(lan(router="10.1.0.1")))
    assert [(change.key, change.effect, change.implied) for change in plan.changes] == [
        ("/want/lan/shop/front", Effect.NONE, False),
        ("/want/server/shop/web1", Effect.REBOOTS, True),
    ]
    assert result(have, plan, prune=True)["/want/server/shop/web1"] == server(nics=(NIC,))
    assert not changes(have, by_key(lan(range=(IPv4Address("10.1.0.5"), IPv4Address("10.1.0.9"))))).servers(
        Effect.REBOOTS
    )


def test_a_nic_over_the_fabrics_comes_and_goes_without_a_boot():
    red = lan(name="red", subnet="10.5.0.0/24", network="fabrics")
    both = server(nics=(NIC, Nic(lan="red", address=IPv4Address("10.5.0.11"))))
    have, more = by_key(lan(), red, server(nics=(NIC,))), by_key(lan(), red, both)
    assert not changes(have, more).servers(Effect.REBOOTS)
    assert not changes(more, have).servers(Effect.REBOOTS)
    assert not changes(more, by_key(red.model_copy(update={"router": IPv4Address("10.5.0.1")}))).servers(Effect.REBOOTS)
    flat = red.model_copy(update={"network": "flat"})
    assert changes(more, by_key(flat)).servers(Effect.REBOOTS) == ("shop/web1",)


def test_servers_that_must_prove_something_else_boot_again():
    have = by_key(platform(), server(), server("web2", auth="none"))
    plan = changes(have, by_key(platform(auth="none")))
    (_, again) = plan.changes
    assert (again.key, again.effect, again.implied) == ("/want/server/shop/web1", Effect.REBOOTS, True)
    assert again.detail == "auth chap → none"
    (said,) = changes(have, by_key(server(auth="chap"))).changes  # what it was anyhow
    assert said.effect is Effect.NONE


def test_a_pruned_server_says_that_its_disk_stays():
    have = by_key(server(), Volume(pan="shop", name="web1", image="web@1"))
    plan = changes(have, {}, absent=frozenset(["/want/server/shop/web1"]))
    (change,) = plan.changes
    assert (change.effect, change.note) == (
        Effect.STOPS,
        "its disk stays; destroy it: panloom delete volume shop/web1 --yes",
    )
    assert change.detail == "image web@1", "as it is said of one that is added"
    assert "/want/volume/shop/web1" in result(have, plan, prune=True)


def test_a_disk_that_comes_with_a_server_is_not_counted():
    want = by_key(server(), Volume(pan="shop", name="web1", image="web@1"), Volume(pan="shop", name="x", image="web@1"))
    plan = changes({}, want)
    assert plan.count(Mark.ADD) == 2
    assert [change.key for change in plan.changes if change.implied] == ["/want/volume/shop/web1"]


def test_the_newest_version_is_the_highest():
    images = (WEB1, WEB3, WEB2, Image(name="other", version=9, source="/9"))
    assert newest("web", images) == "web@3"
    assert newest("web@1", images) == "web@1"
    assert newest("none", images) is None


def test_a_tag_is_the_newest_version_that_carries_it_and_a_disk_keeps_what_it_was_then():
    tags = {1: ("stable",), 2: ("stable", "lts"), 3: ()}
    images = [Image(name="web", version=number, source="/web.img", tags=words) for number, words in tags.items()]
    assert [newest(f"web@{tag}", images) for tag in ("stable", "lts", "none")] == ["web@2", "web@2", None]
    assert newest("other@stable", images) is None
    want = by_key(*images, server(image="web@stable"))
    made, refusals = volumes({}, want)
    assert (made["/want/volume/shop/web1"].image, refusals) == ("web@2", [])
    moved = by_key(*images[:2], images[2].model_copy(update={"tags": ("stable",)}), server(image="web@stable"))
    again, refusals = volumes(made, moved)
    assert (again, refusals) == (made, [])
    _, refusals = volumes(made, by_key(*images, server(image="web@3")))
    assert "is a clone of web@2" in refusals[0].why


def test_a_new_disk_takes_the_newest_version_and_keeps_it():
    want = by_key(WEB1, WEB2, server())
    made, refusals = volumes({}, want)
    assert (made["/want/volume/shop/web1"].image, refusals) == ("web@2", [])
    again, refusals = volumes(by_key(*made.values()), by_key(WEB1, WEB2, WEB3, server()))
    assert (again, refusals) == (made, [])


@pytest.mark.parametrize(
    ("asked", "steps", "words"),
    [
        ({"image": "web@2"}, ("image",), "clone of web@1"),
        ({"image": "db"}, ("image",), "clone of web@1"),
        ({"disk": {"size_octets": 1 << 29}}, ("disk", "size"), "has 1 GiB and cannot become smaller"),
        ({"disk": {"size_octets": 0}}, ("disk", "size"), "has 1 GiB"),
        ({"disk": {"size_octets": 1 << 30, "snapshot": "db@a"}}, ("disk", "snapshot"), "clone of web@1"),
        ({"disk": {"size_octets": 1 << 30, "provisioning": "thick"}}, ("disk", "provisioning"), "is thin"),
    ],
)
def test_a_disk_that_exists_never_becomes_another(asked, steps, words):
    disk = Volume(pan="shop", name="web1", image="web@1", size_octets=1 << 30)
    made, (refusal,) = volumes(by_key(disk), by_key(WEB1, WEB2, server(**{"disk": {"size_octets": 1 << 30}, **asked})))
    assert made == by_key(disk)
    assert (refusal.key, refusal.steps) == ("/want/server/shop/web1", steps)
    assert words in refusal.why
    to_another_version = asked.get("image") == "web@2"
    mend = "panloom image update web@2 shop/web1" if to_another_version else "panloom delete volume shop/web1 --yes"
    assert mend in refusal.why
