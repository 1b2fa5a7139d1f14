"""Two hosts export one device, which a third one keeps: each goes on where the other was killed."""

import asyncio
import random

import pytest

from panloom.initiator import Paths, Session
from panloom.values import Iqn
from panloom.wire import scsi_cdb
from support.storage_process import StorageProcess, free_port
from support.target_process import IQN, TargetProcess

OCTETS = 8 << 20
PIECE = 16384
DEPTH = 16
N1 = Iqn("iqn.2026-11.dev.panloom:node.n1")
DESIGNATORS = 0x83  # SPC-4 r37 7.8.6


class Hosts:
    """The target that keeps the device, and two that export it as they have it from there, each at its own portal."""

    def __init__(self, directory):
        self._directory = directory
        self._ports = free_port(), free_port()
        self._processes = {}
        with (directory / "disk").open("wb") as file:
            file.truncate(OCTETS)

    def __enter__(self):
        self.kept = self._started("kept", f"1={self._directory}/disk")
        for number in range(2):
            self.start(number)
        return self

    def __exit__(self, *error):
        for process in self._processes.values():
            process.__exit__(*error)

    @property
    def portals(self):
        return tuple(("127.0.0.1", port) for port in self._ports)

    def start(self, number):
        self._started(f"host{number}", f"1={self.kept.url(1)}", ports=(self._ports[number],))

    def kill(self, number):
        self._processes[f"host{number}"].process.kill()
        self._processes[f"host{number}"].process.wait()

    def _started(self, name, lun, **options):
        place = self._directory / name
        place.mkdir(exist_ok=True)
        self._processes[name] = TargetProcess(place, "--lun", lun, **options)
        return self._processes[name]


@pytest.fixture
def hosts(tmp_path):
    with Hosts(tmp_path) as hosts:
        yield hosts


def opened(portal, **options):
    return Session.open(portal, initiator=N1, target=Iqn(IQN), **options)


async def everything(portal):
    async with await opened(portal) as session:
        return await session.read(1, 0, OCTETS)


def test_cap_046_a_client_goes_on_through_the_other_exporter(hosts):
    """Each is killed in the middle of writes, one after the other; nothing that was answered is missing."""
    content = random.Random(46).randbytes(OCTETS)

    async def write(session, start, end, victim):
        killed = False
        for first in range(start, end, DEPTH * PIECE):
            offsets = range(first, min(first + DEPTH * PIECE, end), PIECE)
            writes = [asyncio.create_task(session.write(1, at, content[at : at + PIECE])) for at in offsets]
            if not killed and first >= (start + end) // 2:
                await asyncio.wait(writes, return_when=asyncio.FIRST_COMPLETED)
                hosts.kill(victim)
                killed = True
            await asyncio.gather(*writes)
        assert killed

    async def there():
        paths = Paths(*hosts.portals)
        async with await opened(hosts.portals[0], connect=paths, reconnect_seconds=60) as session:
            for victim in (0, 1):
                assert paths.here == hosts.portals[victim]
                await write(session, victim * OCTETS // 2, (victim + 1) * OCTETS // 2, victim)
                assert paths.here == hosts.portals[1 - victim]
                await asyncio.to_thread(hosts.start, victim)
            assert session.logins == 3
            await session.flush(1)
        for portal in (*hosts.portals, ("127.0.0.1", hosts.kept.ports[0])):
            assert await everything(portal) == content

    asyncio.run(there())


def test_cap_046_both_exporters_name_the_same_unit(hosts):
    async def names(portal):
        async with await opened(portal) as session:
            cdb = scsi_cdb.encode(scsi_cdb.Inquiry(scsi_cdb.ENABLE_VITAL_PAGE, DESIGNATORS, 255))
            return (await session.execute(1, cdb, data_in_octets=255, insistent=True)).data

    async def there():
        first, second, kept = [await names(each) for each in (*hosts.portals, ("127.0.0.1", hosts.kept.ports[0]))]
        assert first == second != kept

    asyncio.run(there())


def test_cap_046_one_command_lists_the_devices_of_all_hosts(hosts, tmp_path):
    platforms = [f"iscsi://{address}:{port}/{IQN}" for address, port in hosts.portals]
    options = tuple(part for platform in platforms for part in ("--platform", platform))
    place = tmp_path / "lister"
    place.mkdir()
    with StorageProcess(place, options=options) as process:
        found = process.run(lambda client: client.platforms(scan=True)).platforms
        listed = [(device.name, device.octets, device.failed) for each in found for device in each.devices]
        assert listed == [(f"{platform}/1", OCTETS, None) for platform in platforms]
