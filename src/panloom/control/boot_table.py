"""From documents and records to what the boot services may hand out."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from panloom.control.world import World
from panloom.decide.boot_answer import BootNode, BootRelay, BootServer, BootTable, ServerNic
from panloom.decide.boot_menu import Menu
from panloom.decide.records import Phase, target_of, user_of
from panloom.model.resources import Node, Server, VirtualLan
from panloom.values import MacAddress

NO_MENUS: Final[Mapping[MacAddress, Menu]] = MappingProxyType({})


def boot_table(world: World, menus: Mapping[MacAddress, Menu] = NO_MENUS) -> BootTable | None:
    """Return who is handed what now, None before a platform is declared.

    A server is handed out only while its record says that it boots or runs on that node: not during its fence.
    """
    platform = world.platform
    if platform is None:
        return None
    return BootTable(
        interface=platform.storage.interface,
        address=platform.storage.address,
        subnet=platform.storage.subnet,
        http_port=platform.storage.http_port,
        iscsi_port=platform.storage.iscsi_port,
        is_proxy=platform.storage.dhcp == "proxy",
        discovery=platform.storage.discovery,
        relays=tuple(
            BootRelay(relay.address, relay.subnet, relay.router or relay.address, relay.prefix)
            for relay in platform.storage.relays
        ),
        nodes=tuple(
            BootNode(name=node.name, mac=node.mac, address=node.address, server=_server_on(node.name, world))
            for node in world.all(Node).values()
        ),
        nics=_nics(world),
        menus=menus,
        prefix=platform.storage.prefix,
    )


def _server_on(node: str, world: World) -> BootServer | None:
    known = world.node_records.get(node)
    name = known.server if known else None
    record, server, platform = world.server_records.get(name or ""), world.all(Server).get(name or ""), world.platform
    if name is None or record is None or server is None or platform is None:
        return None
    if record.node != node or record.phase not in (Phase.BOOTING, Phase.UP):
        return None
    chap = (server.auth or platform.auth) == "chap"
    return BootServer(
        name=name,
        epoch=record.epoch,
        target=target_of(name),
        initiator=world.initiator(node),
        user=user_of(name, record.epoch) if chap else None,
        secret=record.secret if chap else None,
    )


def _nics(world: World) -> tuple[ServerNic, ...]:
    nics = []
    for name, server in world.all(Server).items():
        record = world.server_records.get(name)
        macs = {nic.lan: nic.mac for nic in record.nics} if record else {}
        for nic in server.nics:
            lan = world.all(VirtualLan).get(f"{server.pan}/{nic.lan}")
            if lan is None or nic.lan not in macs or world.is_over_fabrics(server, nic):
                continue
            nics.append(
                ServerNic(
                    server=name,
                    mac=MacAddress.parse(macs[nic.lan]),
                    lan=nic.lan,
                    subnet=lan.subnet,
                    address=nic.address,
                    range=lan.range,
                    router=lan.router,
                    dns=lan.dns,
                    domain=lan.domain,
                    prefix=lan.prefix,
                )
            )
    return tuple(nics)
