"""Which free machine carries which waiting server.

One pool of free machines serves every PAN (lines 191, 196).  ``node:`` in a document is a preference: it wins while
that machine is free and fits, and is passed over otherwise.  Among the others those go first of which all that is asked
for is known, then the smallest that fits, so that large ones stay free for servers that need them; equal ones go by
name, n2 before n10, so that two runs decide alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address

import msgspec

from panloom.values import natural_key


class Machine(msgspec.Struct, frozen=True, gc=False):
    """What placement knows of one node. ``unfit`` says why it may carry nothing at all, None if it may.

    Hardware that is 0 or empty is unknown, since no document tells of it and the machine has not yet: it is taken to be
    enough.
    """

    name: str
    memory_octets: int
    cores: int = 0
    architecture: str = ""
    nics: int = 0
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
    cores: int = 0
    architecture: str = ""
    nics: int = 0
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
    if (why := misfit(machine, wish)) is not None:
        return why
    if not machine.has_port:
        return "its port is not known, so it could not be fenced"
    if wish.fence_needs_power and not machine.has_power:
        return "it has no power driver, and the server asks for fence: power"
    return None


def misfit(machine: Machine, wish: Wish) -> str | None:
    """Return what of its hardware is not as the server needs it, None if all is, or nobody knows better."""
    if machine.memory_octets and machine.memory_octets < wish.memory_octets:
        return f"too small ({machine.memory_octets >> 20} MiB, {wish.memory_octets >> 20} MiB needed)"
    if machine.architecture and wish.architecture not in ("", machine.architecture):
        return f"is {machine.architecture}, and {wish.architecture} is needed"
    for what, has, needed in (("core", machine.cores, wish.cores), ("NIC", machine.nics, wish.nics)):
        if has and has < needed:
            return f"has {has} {what}{'s' if has > 1 else ''}, and {needed} are needed"
    return None


def _unknown(machine: Machine, wish: Wish) -> int:
    """Return how much is asked for that nobody knows of the machine."""
    pairs = (
        (machine.memory_octets, wish.memory_octets),
        (machine.cores, wish.cores),
        (machine.architecture, wish.architecture),
        (machine.nics, wish.nics),
    )
    return sum(bool(needed and not has) for has, needed in pairs)


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
                _unknown(machine, wish),
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
