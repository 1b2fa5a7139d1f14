"""Which free machine carries which waiting server.

One pool of free machines serves every PAN (lines 191, 196).  ``node:`` in a document is a preference: it wins while
that machine is free and fits, and is passed over otherwise.  Among the others the smallest machine that fits is
taken, so that large ones stay free for servers that need them; equal ones go by name, n2 before n10, so that two runs
decide alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address

import msgspec

from panloom.values import natural_key


class Machine(msgspec.Struct, frozen=True, gc=False):
    """What placement knows of one node. ``unfit`` says why it may carry nothing at all, None if it may.

    ``memory_octets`` 0 is unknown (a discovered machine that a person approved): it is taken to be enough.
    """

    name: str
    memory_octets: int
    server: str | None = None
    unfit: str | None = None
    has_port: bool = True
    has_power: bool = True
    held_for: str | None = None
    """The only server that may be placed on it."""


class Wish(msgspec.Struct, frozen=True, gc=False):
    """What a waiting server asks of a machine; ``avoid`` is the node it has just been fenced from."""

    server: str
    memory_octets: int
    prefer: str | None = None
    avoid: str | None = None
    fence_needs_power: bool = False
    waiting_since: float = 0.0


def objection(machine: Machine, wish: Wish) -> str | None:
    """Return why the machine cannot carry the server now, None if it can."""
    if machine.server is not None:
        return f"carries {machine.server}"
    if machine.held_for not in (None, wish.server):
        return f"is being installed as {machine.held_for}"
    if machine.unfit is not None:
        return machine.unfit
    if machine.memory_octets and machine.memory_octets < wish.memory_octets:
        return f"too small ({machine.memory_octets >> 20} MiB, {wish.memory_octets >> 20} MiB needed)"
    if not machine.has_port:
        return "its port is not known, so it could not be fenced"
    if wish.fence_needs_power and not machine.has_power:
        return "it has no power driver, and the server asks for fence: power"
    return None


def place(wishes: Iterable[Wish], machines: Iterable[Machine]) -> Mapping[str, str]:
    """Return server → node for every wish that can be met; those who wait longest choose first."""
    free = {machine.name: machine for machine in machines}
    placed: dict[str, str] = {}
    ordered = sorted(wishes, key=lambda wish: (wish.waiting_since, wish.server))
    for wish in sorted(ordered, key=lambda wish: wish.prefer is None):
        fitting = [machine for machine in free.values() if objection(machine, wish) is None]
        if not fitting:
            continue
        best = min(
            fitting,
            key=lambda machine: (
                machine.name != wish.prefer,
                machine.name == wish.avoid,
                machine.memory_octets,
                natural_key(machine.name),
            ),
        )
        placed[wish.server] = best.name
        del free[best.name]
    return placed


def why_none(portals: Sequence[str] | None, address: IPv4Address, port: int) -> str | None:
    """Return why no machine could reach its disk at all, None if one could, or if the portals are not known.

    ``portals``: ADDRESS:PORT where disks are served; ``address`` and ``port`` are what boot scripts say.
    """
    if portals is None or not {f"{address}:{port}", f"0.0.0.0:{port}"}.isdisjoint(portals):
        return None
    where = ", ".join(portals) or "no portal"
    return (
        f"the storage process listens at {where}, and machines are told {address}:{port}; "
        "make its --portal and the platform's `storage: {address, iscsi_port}` one"
    )


def why_not(wish: Wish, machines: Iterable[Machine]) -> str:
    """Return one line that says, machine by machine, why the server waits."""
    reasons = [f"{machine.name} {objection(machine, wish) or 'was given to another server'}" for machine in machines]
    return "no spare: " + ("; ".join(reasons) if reasons else "no node is declared")
