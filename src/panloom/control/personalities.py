"""From documents and records to what a machine must know to be a server."""

from ipaddress import ip_network

from panloom.control.world import World
from panloom.decide.liveness import beacon_seconds
from panloom.decide.personality import Personality, PersonalityNic
from panloom.decide.records import ServerRecord
from panloom.errors import UnavailableError
from panloom.model.resources import Auth, Nic, Server, VirtualLan


def personality_of(name: str, record: ServerRecord, world: World) -> Personality:
    """Return what the machine that carries ``name`` must know; UnavailableError while a MAC or document is missing."""
    server, platform = world.all(Server).get(name), world.platform
    if server is None or platform is None:
        raise UnavailableError(f"{name} has no document")
    macs = {nic.lan: nic.mac for nic in record.nics}
    return Personality(
        pan=server.pan,
        server=server.name,
        node=record.node or "",
        epoch=record.epoch,
        nics=tuple(_nic(server.pan, nic, macs.get(nic.lan, ""), world) for nic in server.nics),
        beacon_address=platform.storage.address,
        beacon_key=record.beacon_key,
        beacon_seconds=beacon_seconds(platform.liveness.timeout_seconds),
    )


def booted_with(name: str, record: ServerRecord, world: World) -> str:
    """Return what changes when the machine must boot again: its personality, or what it must prove at the target.

    UnavailableError as for ``personality_of``.
    """
    digest = personality_of(name, record, world).digest()
    auth = auth_of(name, world)
    return digest if auth == "chap" else f"{digest}.{auth}"


def auth_of(name: str, world: World) -> Auth:
    """Return what the server's machine must prove; UnavailableError while a document is missing."""
    server, platform = world.all(Server).get(name), world.platform
    if server is None or platform is None:
        raise UnavailableError(f"{name} has no document")
    return server.auth or platform.auth


def _nic(pan: str, nic: Nic, mac: str, world: World) -> PersonalityNic:
    lan = world.all(VirtualLan).get(f"{pan}/{nic.lan}")
    if lan is None:
        raise UnavailableError(f"LAN {pan}/{nic.lan} has no document")
    return PersonalityNic(
        lan=nic.lan,
        mac=mac,
        address=str(nic.address) if nic.address else "",
        prefix=ip_network(lan.subnet).prefixlen,
        router=str(lan.router or ""),
        dns=" ".join(str(address) for address in lan.dns),
        domain=lan.domain or "",
    )
