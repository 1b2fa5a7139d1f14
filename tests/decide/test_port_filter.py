"""The fence as a value: normal form, differences, and what it reads back from nft's listings."""

from ipaddress import IPv4Address, IPv6Address

import hypothesis.strategies as st
import pytest
from hypothesis import given

from panloom.decide.port_filter import PortFilter, PortRule, ReplaceTable, changes, parse, refused, render
from panloom.values import MacAddress

ports = st.sampled_from(["n1", "n2", "lab0.3"])
macs = st.integers(1, 4).map(lambda n: MacAddress(0x02_50_4C_00_00_00 + n))
addresses = (
    st.none()
    | st.integers(1, 4).map(lambda n: IPv4Address("10.0.0.0") + n)
    | st.integers(1, 4).map(lambda n: IPv6Address("2001:db8::") + n)
)
rules = st.builds(PortRule, ports, macs, addresses, st.booleans())
filters = st.builds(
    lambda wanted, more: PortFilter.of({rule.port for rule in wanted} | more, wanted), st.sets(rules), st.sets(ports)
)


def listing_of(commands):
    """Return what nft would list after these commands: the model kernel holds what it was told."""
    return {"nftables": [command["add"] for command in commands["nftables"] if "add" in command]}


@given(filters)
def test_parse_undoes_render(wanted):
    assert parse(listing_of(render(wanted))) == wanted


@given(filters, filters)
def test_equal_fences_need_no_change(one, other):
    assert changes(one, one) == ()
    assert changes(None, one) == (ReplaceTable(one),)
    assert (changes(one, other) == ()) == (render(one) == render(other))


@given(st.lists(rules, max_size=6), st.randoms())
def test_the_order_of_rules_does_not_matter(wanted, random):
    shuffled = list(wanted) + wanted[:2]
    random.shuffle(shuffled)
    managed = {rule.port for rule in wanted}
    assert PortFilter.of(managed, shuffled) == PortFilter.of(list(managed), wanted)


def test_a_rule_without_address_adds_nothing_to_one_with():
    mac = MacAddress.parse("52:54:00:00:00:01")
    placed = PortRule("n1", mac, IPv4Address("10.0.0.1"))
    assert PortFilter.of(["n1"], [placed, PortRule("n1", mac, None)]) == PortFilter.of(["n1"], [placed])


@pytest.mark.parametrize("port", ["", "n*", "n 1", "n/1", "p" * 16, "-n", 'n"'])
def test_what_is_no_interface_is_refused(port):
    with pytest.raises(ValueError, match="no name of an interface"):
        PortFilter.of([port], [])


def test_a_rule_for_a_port_that_is_not_managed_is_refused():
    with pytest.raises(ValueError, match="not managed"):
        PortFilter.of([], [PortRule("n1", MacAddress(1), None)])


def test_a_listing_with_a_set_changed_by_others_is_not_ours():
    mac = MacAddress.parse("52:54:00:00:00:01")
    addresses = (IPv4Address("10.0.0.1"), IPv6Address("2001:db8::a00:1"))
    wanted = PortFilter.of(["n1"], [PortRule("n1", mac, address) for address in addresses])
    for name in ("managed", "refused", "stations", "addresses", "senders", "ipv6_addresses", "targets", "neighbours"):
        listing = listing_of(render(wanted))
        for item in listing["nftables"]:
            if item.get("set", {}).get("name") == name:
                del item["set"]["elem"]
        assert parse(listing) is None
    assert parse({"nftables": []}) is None


def test_counts_are_read_by_port():
    element = {"elem": {"val": "n1", "counter": {"packets": 3, "bytes": 180}}}
    assert refused({"nftables": [{"set": {"name": "refused", "elem": [element]}}]}) == {"n1": 3}
    assert refused({"nftables": [{"set": {"name": "refused"}}]}) == {}
