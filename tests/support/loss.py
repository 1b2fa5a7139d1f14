"""A link that loses packets: nftables at a namespace's own interface, by chance."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from panloom.fabric.nftables import Nftables
from support.namespaces import Namespace

_numbers = itertools.count()


@contextmanager
def losing(place: Namespace, *, percent: int) -> Iterator[None]:
    """Lose ``percent`` of what ``place`` receives and of what it sends, ARP excepted, until the block ends."""
    table = {"family": "ip", "name": f"loss{next(_numbers)}"}
    chance = {"match": {"op": "<", "left": {"numgen": {"mode": "random", "mod": 100, "offset": 0}}, "right": percent}}
    commands: list[dict[str, object]] = [{"add": {"table": table}}]
    for hook in ("input", "output"):
        chain = {"family": "ip", "table": table["name"], "name": hook}
        hooked = {"type": "filter", "hook": hook, "prio": 0, "policy": "accept"}
        commands += [{"add": {"chain": {**chain, **hooked}}}]
        commands += [
            {"add": {"rule": {"family": "ip", "table": table["name"], "chain": hook, "expr": [chance, {"drop": None}]}}}
        ]
    nftables = Nftables(Path("/run/netns", place.name))
    try:
        nftables.run({"nftables": commands})
        yield
        nftables.run({"nftables": [{"delete": {"table": table}}]})
    finally:
        nftables.close()
