"""Images of a real Ceph cluster as devices: they hold what was written, are found by a scan, and have one writer."""

import asyncio
import errno
import json
import random

import pytest

from panloom.errors import UnavailableError
from panloom.protocol.iscsi_initiator_task import CommandError
from panloom.storage.exports import ExportedLun
from panloom.storage.frame import Frame, Operation
from panloom.storage.local_transport import LocalTransport
from panloom.storage.medium import call
from panloom.storage.platforms import found_at
from panloom.storage.stand_alone import NoStore
from panloom.storage.stores.names import open_store
from support.ceph import Ceph
from support.checked_use import checked, opened
from support.target_process import TargetProcess

MIB = 1 << 20
SIZE = 32 * MIB


@pytest.fixture(scope="module")
def ceph(tmp_path_factory):
    with Ceph(tmp_path_factory.mktemp("ceph")) as ceph:
        yield ceph


def image(ceph, name):
    ceph.run("rbd", "create", "--size", f"{SIZE // MIB}M", f"rbd/{name}")
    return f"rbd:rbd/{name}:conf={ceph.conf}"


def test_an_image_holds_what_was_written(ceph):
    name = image(ceph, "written")
    rng, twin = random.Random(1), bytearray(SIZE)
    store = open_store(name)
    assert (store.octets, store.may_block, store.thin) == (SIZE, True, True)
    for _ in range(80):
        offset = rng.randrange(SIZE // 512) * 512
        octets = min(rng.choice((512, 4096, 65536, MIB)), SIZE - offset)
        if rng.random() < 0.3:
            store.unmap(offset, octets)  # to the octet: Ceph's own discard leaves small parts as they were
            twin[offset : offset + octets] = bytes(octets)
        else:
            data = rng.randbytes(octets)
            store.write(offset, memoryview(data if rng.random() < 0.5 else bytearray(data)))
            twin[offset : offset + octets] = data
    store.flush()
    store.close()
    ceph.run("rbd", "snap", "create", "rbd/written@then")
    store = open_store(name)
    store.write(0, memoryview(bytes(MIB)))
    store.resize(2 * SIZE)
    store.write(2 * SIZE - 512, memoryview(b"x" * 512))
    store.close()
    then = open_store(name.replace("written", "written@then"))
    found = bytearray(SIZE)
    then.read(0, memoryview(found))
    assert found == twin
    with pytest.raises(OSError, match="read-only"):
        then.write(0, memoryview(bytes(512)))
    then.close()
    assert f"size {2 * SIZE // MIB} MiB" in ceph.run("rbd", "info", "rbd/written")


def test_an_image_is_served_and_has_one_writer(ceph):
    transport = LocalTransport(NoStore())
    lun = ExportedLun(1, device=image(ceph, "served"))
    unit = transport.connect("t", lun, 1)
    data = memoryview(bytearray(b"served" * 1024))[:4096]
    assert call(unit, Frame(Operation.WRITE, 0, 4096, data)) is None
    assert call(unit, Frame(Operation.FLUSH)) is None
    with pytest.raises(UnavailableError, match="another client has it open"):
        open_store(lun.device)
    status = json.loads(ceph.run("rbd", "status", "rbd/served", "--format", "json"))
    assert len(status["watchers"]) == 1  # who was refused has left
    reader = open_store(lun.device, read_only=True)
    found = bytearray(4096)
    reader.read(0, memoryview(found))
    assert found == data
    reader.close()
    transport.disconnect(unit)
    transport.shut_down()
    open_store(lun.device).close()


def test_a_pool_is_scanned_and_what_is_not_there_is_told(ceph):
    names = [image(ceph, "one"), image(ceph, "two")]
    platform = found_at(f"rbd:rbd:conf={ceph.conf}", lambda _: None)
    platform.scan()
    found = {device.name: device.octets for device in platform.devices}
    assert {name: found[name] for name in names} == dict.fromkeys(names, SIZE)
    with pytest.raises(UnavailableError, match="there is no such image"):
        open_store(f"rbd:rbd/nothing:conf={ceph.conf}")
    with pytest.raises(UnavailableError, match="there is no such pool"):
        open_store(f"rbd:nothing/one:conf={ceph.conf}")


def test_a_writer_that_is_shut_out_is_offline_and_writes_no_more(ceph):
    """Another client breaks the lock, as a node does that takes over: nothing late lands, and it is told why."""
    name = image(ceph, "fought")
    store = open_store(name)
    store.write(0, memoryview(b"a" * 512))
    store.flush()
    ceph.ask(prefix="osd blocklist", blocklistop="add", addr=_owner(ceph, "fought"))
    with pytest.raises(OSError, match=r".") as failure:
        for _ in range(50):
            store.write(0, memoryview(b"b" * 512))
            store.flush()
    assert failure.value.errno in (errno.ESHUTDOWN, errno.EROFS, errno.EIO)
    assert store.lost
    with pytest.raises(OSError, match=r"."):
        store.read(0, memoryview(bytearray(512)))


def test_cap_043_an_initiator_uses_an_image_and_hears_when_it_is_lost(ceph, tmp_path):
    async def there():
        async with await opened(target.ports[0], target.iqn) as session:
            assert (await session.capacity(0)).octets == SIZE
            await checked(session, 0, start=0, octets=2 * MIB, seed="rbd")
            ceph.ask(prefix="osd blocklist", blocklistop="add", addr=_owner(ceph, "exported"))
            with pytest.raises(CommandError) as failure:
                for _ in range(50):
                    await session.write(0, 0, b"b" * 512)
                    await session.flush(0)
            assert failure.value.sense.key in (0x03, 0x07)  # MEDIUM ERROR, DATA PROTECT
            with pytest.raises(CommandError):
                await session.read(0, 0, 512)

    with TargetProcess(tmp_path, "--lun", f"0={image(ceph, 'exported')}") as target:
        asyncio.run(there())


def _owner(ceph, name):
    """Return the address of the client that has an image's lock."""
    (lock,) = json.loads(ceph.run("rbd", "lock", "ls", f"rbd/{name}", "--format", "json"))
    return lock["address"]
