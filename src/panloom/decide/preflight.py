"""What would go wrong later and can be told before: servers whose machine nobody could stand in for.

    servers with fail-over, machines ──placement.place──▶ who carries whom ──▶ who is left, and would it fit?

One spare stands in for all servers that fit it: two machines are not taken to fail at once.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from panloom.decide.placement import Machine, Wish, objection, place

_NAMED = 4  # servers of one line
MEND = "add a node that has what it needs, or write `failover: no`"
"""What a person can do about a warning."""


def without_spare(wishes: Iterable[Wish], machines: Iterable[Machine]) -> Mapping[str, str]:
    """Return server → why no machine could carry it when its own fails; servers for which one could are left out.

    Machines carry what they carry now; servers that wait are placed first, as they would be.
    """
    wished, pool = tuple(wishes), {machine.name: machine for machine in machines}
    carried = {machine.server for machine in pool.values()}
    placed = place([wish for wish in wished if wish.server not in carried], pool.values())
    for server, name in placed.items():
        pool[name] = msgspec.structs.replace(pool[name], server=server)
    spares = [machine for machine in pool.values() if machine.server is None]
    found = {}
    for wish in wished:
        why = [f"{spare.name} {objection(spare, wish)}" for spare in spares]
        if all(objection(spare, wish) is not None for spare in spares):
            found[wish.server] = "; ".join(why) or "no machine is free"
    return found


def warnings(lacking: Mapping[str, str]) -> Sequence[str]:
    """Return a line for each reason, with the servers that it holds for."""
    servers: dict[str, list[str]] = {}
    for server, why in lacking.items():
        servers.setdefault(why, []).append(server)
    lines = []
    for why, names in servers.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        lines.append(f"no spare for {', '.join(names[:_NAMED])}{more}: {why}")
    return tuple(lines)
