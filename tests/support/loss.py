"""A network that loses packets: nftables where namespaces receive, by chance."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from panloom.fabric.nftables import Nftables
from support.namespaces import Namespace

_numbers = itertools.count()


@contextmanager
def losing(*places: Namespace, percent: int) -> Iterator[None]:
    """Lose ``percent`` of the IPv4 packets that each of ``places`` receives, until the block ends.

    Where they are received, since a sender is told of what is dropped on its own side.
    """
    with ExitStack() as stack:
        for place in places:
            stack.enter_context(_losing(place, percent))
        yield


@contextmanager
def _losing(place: Namespace, percent: int) -> Iterator[None]:
    table = {"family": "ip", "name": f"loss{next(_numbers)}"}
    chain = {"family": "ip", "table": table["name"], "name": "input"}
    rule = {"family": "ip", "table": table["name"], "chain": "input"}
    chance = {"match": {"op": "<", "left": {"numgen": {"mode": "random", "mod": 100, "offset": 0}}, "right": percent}}
    those = [chance] if percent < 100 else []  # nft refuses what is always true
    nftables = Nftables(Path("/run/netns", place.name))
    try:
        nftables.run(
            {
                "nftables": [
                    {"add": {"table": table}},
                    {"add": {"chain": {**chain, "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}}},
                    {"add": {"rule": {**rule, "expr": [*those, {"drop": None}]}}},
                ]
            }
        )
        try:
            yield
        finally:
            nftables.run({"nftables": [{"delete": {"table": table}}]})
    finally:
        nftables.close()
