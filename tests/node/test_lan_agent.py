"""The node's side of the virtual LANs: it holds to what its control node says, and to nobody else's word."""

from ipaddress import IPv4Interface

import msgspec
import pytest

from panloom.decide.fabric_plan import states
from panloom.decide.lan_news import LanNews
from panloom.node.lan_agent import LanAgent
from support.fabrics import fabrics, lan

KEY = "00ff" * 8
NEWS = LanNews("shop/web1", 3, 7, (("fa", IPv4Interface("10.78.0.11/24")),), (), ())


@pytest.fixture
def agent():
    return LanAgent(None, server="shop/web1", epoch=3, key=KEY)


def test_news_are_heard_once_and_older_ones_never(agent):
    newer = msgspec.structs.replace(NEWS, counter=9)
    assert agent.hear(NEWS.encode(KEY)) == NEWS
    assert agent.hear(NEWS.encode(KEY)) is None
    assert agent.hear(newer.encode(KEY)) == newer
    assert agent.hear(NEWS.encode(KEY)) is None


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"anything",
        NEWS.encode("0123"),
        msgspec.structs.replace(NEWS, server="shop/web2").encode(KEY),
        msgspec.structs.replace(NEWS, epoch=2).encode(KEY),
    ],
)
def test_what_is_not_for_this_boot_or_not_true_changes_nothing(agent, octets):
    assert agent.hear(octets) is None
    assert agent.hear(NEWS.encode(KEY)) == NEWS


def test_a_kernel_is_held_to_what_was_told_last():
    with fabrics(2) as made:
        host = made["n1"]
        agent = LanAgent(host.file, server="shop/web1", epoch=3, key=KEY)
        both = tuple(states(made.fabric(lan(1, 1, 2), lan(2, 1)))[host.host.place])
        assert agent.hold(msgspec.structs.replace(NEWS, items=both)) > 0
        assert host.lans.observe() == set(both)
        assert agent.hold(msgspec.structs.replace(NEWS, items=both)) == 0
        assert agent.hold(NEWS) > 0
        assert host.lans.observe() == set()
