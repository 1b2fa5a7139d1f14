"""Starting, stopping and losing what the services stand on."""

import asyncio

import msgspec
import pytest

from panloom.boot.services import BootServices
from panloom.errors import UnavailableError
from panloom.state.sqlite import SqliteStore
from panloom.wire import dhcp
from panloom.wire.dhcp import MessageType
from support.boot_chassis import MACS, server, table
from support.dhcp_client import IPXE, DhcpClient
from support.dhcp_wire import DhcpWire
from support.namespaces import LoopInside, machines
from support.waiting import until


@pytest.fixture
def chassis():
    with machines({"n1": MACS["n1"]}) as made:
        yield made


async def opened(path, the_table, report=lambda event: None):
    """Return a store and services that have not started."""
    store = await SqliteStore.open(path / "state.sqlite")
    return store, BootServices(the_table, store, report)


@pytest.mark.parametrize(
    ("changes", "why"), [({"interface": "br9"}, "br9"), ({"address": table().subnet[9]}, "10.77.0.9")]
)
def test_a_start_that_fails_leaves_nothing_open(chassis, tmp_path, changes, why):
    async def work():
        store, services = await opened(tmp_path, msgspec.structs.replace(table(), **changes))
        with pytest.raises(UnavailableError, match=why):
            await services.start()
        await services.stop()
        right = BootServices(table(), store, lambda event: None)
        await right.start()
        await right.stop()
        await right.start()
        await right.stop()
        await store.close()

    with LoopInside(chassis.control) as inside:
        inside.call(work())


def test_two_services_cannot_share_an_interface(chassis, tmp_path):
    async def work():
        store, first = await opened(tmp_path, table())
        second = BootServices(table(), store, lambda event: None)
        await first.start()
        with pytest.raises(UnavailableError, match="on br0"):
            await second.start()
        await first.stop()
        await store.close()

    with LoopInside(chassis.control) as inside:
        inside.call(work())


def test_a_table_of_another_place_is_refused(chassis, tmp_path):
    async def work():
        store, services = await opened(tmp_path, table())
        with pytest.raises(ValueError, match="open at"):
            services.replace(msgspec.structs.replace(table(), http_port=81))
        await store.close()

    asyncio.run(work())


def test_without_its_store_the_server_offers_and_never_acknowledges(chassis, tmp_path):
    events = []
    with LoopInside(chassis.control) as inside:
        store, services = inside.call(opened(tmp_path, table(n1=server()), events.append))
        inside.call(services.start())
        inside.call(store.close())
        with DhcpWire(chassis["n1"]) as wire:
            client = DhcpClient(MACS["n1"], IPXE)
            client.receive(dhcp.encode(wire.ask(client.discover())))
            assert client.offer is not None
            wire.send(dhcp.encode(client.request()), client.mac)
            until(lambda: [event for event in events if "could not be stored" in event.why], "the lease is not stored")
            assert wire.is_unanswered(b"", DhcpClient("52:54:00:77:00:02"))
            assert MessageType.ACK not in [reply.message_type for reply in wire.answers_to(client.request())]
        inside.call(services.stop())
