"""From documents and records to what a machine must know to be a server."""

import hashlib
from collections.abc import Container
from ipaddress import ip_network
from uuid import NAMESPACE_URL, uuid5

from panloom.control.world import World
from panloom.decide.cloud_init import identity_disc
from panloom.decide.liveness import beacon_seconds
from panloom.decide.personality import Personality, PersonalityNic
from panloom.decide.records import ServerRecord
from panloom.errors import UnavailableError
from panloom.model.resources import Auth, Nic, Server, VirtualLan


def personality_of(name: str, record: ServerRecord, world: World) -> Personality:
    """Return what the machine that carries ``name`` must know; UnavailableError while a MAC or document is missing.

    Of LANs over the fabrics it is told while it runs: ``control.lans``.
    """
    server, platform = world.all(Server).get(name), world.platform
    if server is None or platform is None:
        raise UnavailableError(f"{name} has no document")
    macs = {nic.lan: nic.mac for nic in record.nics}
    return Personality(
        pan=server.pan,
        server=server.name,
        node=record.node or "",
        epoch=record.epoch,
        nics=tuple(
            _nic(server.pan, nic, macs.get(nic.lan, ""), world)
            for nic in server.nics
            if not world.is_over_fabrics(server, nic)
        ),
        beacon_address=platform.storage.address,
        beacon_key=record.beacon_key,
        beacon_seconds=beacon_seconds(platform.liveness.timeout_seconds),
        instance=_instance(name, record, world),
    )


def identity_of(name: str, record: ServerRecord, world: World) -> bytes:
    """Return what the LUN holds that tells a machine who it is; UnavailableError where it does not fit, too."""
    personality, server = personality_of(name, record, world), world.all(Server)[name]
    try:
        return identity_disc(personality, server.ssh_keys, server.user_data)
    except ValueError as error:
        raise UnavailableError(f"{error}; give {name} fewer NICs or keys, or its LANs shorter settings") from error


class Identities:
    """What each server's content should be: its SHA-256, made anew when what it is made of changes."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[tuple[object, ...], str, str]] = {}
        """Server → what its content is made of, the digest of that, and why there is none."""

    def digest(self, name: str, record: ServerRecord, world: World) -> str:
        """Return the SHA-256 in hex, empty where the content does not fit; UnavailableError as ``personality_of``."""
        return self._look(name, record, world)[1]

    def why_not(self, name: str, record: ServerRecord, world: World) -> str | None:
        """Return why a server's content does not fit, None if it does or documents are missing."""
        try:
            return self._look(name, record, world)[2] or None
        except UnavailableError:
            return None

    def keep(self, names: Container[str]) -> None:
        """Forget all servers but these."""
        self._made = {name: made for name, made in self._made.items() if name in names}

    def _look(self, name: str, record: ServerRecord, world: World) -> tuple[tuple[object, ...], str, str]:
        server = world.all(Server).get(name)
        of = (
            personality_of(name, record, world),
            server.ssh_keys if server else (),
            server.user_data if server else "",
        )
        made = self._made.get(name)
        if made is None or made[0] != of:
            try:
                made = (of, hashlib.sha256(identity_of(name, record, world)).hexdigest(), "")
            except UnavailableError as error:
                made = (of, "", str(error))
            self._made[name] = made
        return made


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


def _instance(name: str, record: ServerRecord, world: World) -> str:
    disk = world.disk(name)
    volume = disk.storage_name if disk is not None else name
    clone = record.clone_of(volume)
    return clone.instance if clone is not None else str(uuid5(NAMESPACE_URL, f"panloom:{volume}"))


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
