"""Worlds for tests: documents and records put into a store as a control process would find them there."""

import tempfile
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import msgspec

from panloom.control.world import NODES, SERVERS, World
from panloom.decide.records import NodeRecord, Phase, ServerRecord, VirtualNic
from panloom.model import resources
from panloom.model.resources import (
    Liveness,
    Nic,
    Node,
    Pan,
    Platform,
    Server,
    SocketPower,
    StorageNetwork,
    VirtualLan,
    Volume,
)
from panloom.state.sqlite import SqliteStore
from panloom.values import MacAddress

MAC = "02:50:4c:00:00:01"
PLATFORM = Platform(
    name="lab",
    storage=StorageNetwork(interface="br0", address=IPv4Address("10.77.0.1"), subnet=IPv4Network("10.77.0.0/24")),
    liveness=Liveness(interval_seconds=0.05, timeout_seconds=0.3),
)
LAN = VirtualLan(
    pan="shop",
    name="front",
    subnet=IPv4Network("10.1.0.0/24"),
    router=IPv4Address("10.1.0.1"),
    dns=(IPv4Address("10.1.0.2"), IPv4Address("10.1.0.3")),
    domain="shop.example",
)
WEB1 = Server(pan="shop", name="web1", image="web@1", nics=(Nic(lan="front", address=IPv4Address("10.1.0.11")),))
UP = ServerRecord(
    phase=Phase.UP,
    epoch=3,
    node="n1",
    secret="0123456789abcdef",
    beacon_key="00ff",
    nics=(VirtualNic(lan="front", mac=MAC),),
    started=True,
)


def node(number, power=None):
    return Node(
        name=f"n{number}",
        mac=MacAddress.parse(f"52:54:00:77:00:0{number}"),
        address=IPv4Address(f"10.77.0.1{number}"),
        port=f"port-n{number}",
        memory_octets=1 << 30,
        power=SocketPower(path=str(power), name=f"n{number}") if power else None,
    )


DOCUMENTS = (PLATFORM, node(1), node(2), Pan(name="shop"), LAN, WEB1, Volume(pan="shop", name="web1", image="web@1"))


async def put(store, *documents, servers=None, nodes=None):
    """Put documents and records into a store and return the world."""
    entries = {document.key: resources.encode(document) for document in documents}
    entries |= {SERVERS + name: msgspec.json.encode(record) for name, record in (servers or {}).items()}
    entries |= {NODES + name: msgspec.json.encode(record) for name, record in (nodes or {}).items()}
    await store.commit(put=entries)
    return await World.read(store)


async def world_of(store, record=UP, documents=DOCUMENTS):
    """Return the world in which shop/web1 has this record."""
    nodes = {record.node: NodeRecord(server="shop/web1")} if record.node else {}
    return await put(store, *documents, servers={"shop/web1": record}, nodes=nodes)


@asynccontextmanager
async def opened_store():
    """Open a real store in a directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        store = await SqliteStore.open(Path(directory) / "state.sqlite")
        try:
            yield store
        finally:
            await store.close()
