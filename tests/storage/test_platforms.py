"""Platforms: what a scan finds, what it says of what it cannot use, and what the Connection Manager makes of it."""

import os
from pathlib import Path

import pytest

from panloom.errors import ConfigError
from panloom.storage.connection_manager import ConnectionManager
from panloom.storage.exports import Access, Export, ExportedLun, NoFile
from panloom.storage.frame import Frame, Operation
from panloom.storage.medium import call
from panloom.storage.volume_store import VolumeStore
from panloom.wire import iscsi, scsi_cdb
from panloom.wire.iscsi import ScsiCommand
from panloom.wire.scsi_cdb import BlockCommand
from support.iscsi_peer import talk
from support.loop_device import loop_device
from support.storage_process import StorageProcess
from support.storage_sessions import N1, NOTHING, TARGET, PlainConnection
from support.waiting import until

MIB = 1 << 20


@pytest.fixture
def manager(tmp_path):
    manager = ConnectionManager(VolumeStore(tmp_path / "store"), NoFile(), lambda _: None)
    yield manager
    manager.shut_down()


def make(directory, *names, octets=MIB):
    directory.mkdir(exist_ok=True)
    for name in names:
        (directory / name).touch()
        os.truncate(directory / name, octets)


@pytest.mark.parametrize("names", [(), ("a",), ("a", "b", "c.iso")])
def test_cap_029_devices_named_in_no_file_are_found(tmp_path, names):
    """The real process: it finds them at its start, and what is attached later with the next scan."""
    disks = tmp_path / "disks"
    make(disks, *names)
    (disks / "sub").mkdir()
    (disks / ".hidden").touch()

    def found(process, scan=False):
        (platform,) = [
            each
            for each in process.run(lambda client: client.platforms(scan=scan)).platforms
            if each.name == str(disks)
        ]
        return [Path(device.name).name for device in platform.devices if device.failed is None]

    with StorageProcess(tmp_path, options=("--platform", str(disks))) as process:
        until(lambda: found(process) == sorted(names), "the scan has found them")
        make(disks, "later")
        assert found(process, scan=True) == sorted((*names, "later"))


def test_cap_029_one_broken_device_is_listed_as_failed_and_the_others_start(tmp_path, manager):
    make(tmp_path / "disks", "a", "c")
    make(tmp_path / "disks", "b", octets=700)
    for name in ("v1", "v2"):
        manager._store.create(name, None, MIB)
    (tmp_path / "store/volumes/v1.volume").write_bytes(b"no volume")
    manager.platforms.add([str(tmp_path / "disks"), "rbd:pool:conf=/nothing/ceph.conf"])
    volumes, disks, ceph = manager.platforms.facts(scan=True).platforms
    assert [(device.octets, device.failed is None) for device in disks.devices] == [
        (MIB, True),
        (0, False),
        (MIB, True),
    ]
    assert "has 700 octets" in disks.devices[1].failed
    assert [(device.name, device.failed is None) for device in volumes.devices] == [
        ("volume:v1", False), ("volume:v2", True),
    ]  # fmt: skip
    assert "damaged" in volumes.devices[0].failed
    assert ceph.failed
    for device in (disks.devices[0], disks.devices[2]):
        manager.export(Export(TARGET.name, 1, (ExportedLun(0, device=device.name),), Access(N1.name)))
        admission = manager.admit(N1, TARGET, NOTHING, PlainConnection(N1))
        assert call(admission.descriptors[0], Frame(Operation.READ, 0, 512, memoryview(bytearray(512)))) is None
        manager.gone(admission.session_id, "logout")


def test_cap_029_a_block_device_that_is_attached_is_found(tmp_path, manager):
    make(tmp_path, "disk")
    manager.platforms.add(["block"])
    with loop_device(tmp_path / "disk") as device:
        _, block = manager.platforms.facts(scan=True).platforms
        assert [found.octets for found in block.devices if found.name == str(device)] == [MIB]
    _, block = manager.platforms.facts(scan=True).platforms
    assert str(device) not in [found.name for found in block.devices]


def test_cap_032_one_descriptor_for_each_platform_with_calls_and_context(tmp_path, manager):
    """A platform of three disks is one descriptor and three devices."""
    make(tmp_path / "one", "a", "b", "c")
    make(tmp_path / "two", "d")
    manager.platforms.add([str(tmp_path / "one"), str(tmp_path / "two")])
    platforms = manager.platforms.facts(scan=True).platforms
    assert [(platform.name, len(platform.devices)) for platform in platforms] == [
        ("volumes", 0), (str(tmp_path / "one"), 3), (str(tmp_path / "two"), 1),
    ]  # fmt: skip
    assert len({platform.context for platform in platforms}) == 3
    for platform in platforms:
        assert platform.calls["send_handler"] == "panloom.storage.sending.send"
        assert platform.calls.keys() == {"found", "connect", "disconnect", "send_handler"}


class Sealed:
    """A context that nobody but the Local Transport can look into."""

    def __getattribute__(self, name):
        raise AssertionError(f"somebody looks into a context: {name}")


def test_cap_030_contexts_differ_and_the_remote_transport_looks_into_none(tmp_path, manager):
    make(tmp_path, "a", "b")
    luns = tuple(ExportedLun(number, device=str(tmp_path / name)) for number, name in enumerate("ab"))
    manager.export(Export(TARGET.name, 1, luns, Access(N1.name)))
    admission = manager.admit(N1, TARGET, NOTHING, PlainConnection(N1))
    units = admission.descriptors
    assert len({id(unit.context) for unit in units.values()}) == 2
    contexts, served = {}, []

    def send(context, frame):
        unit = contexts[id(context)]
        served.append(frame.operation)
        unit.send_handler(unit.context, frame)

    class Disk:
        def __init__(self, unit):
            sealed = Sealed()
            contexts[id(sealed)] = unit
            fields = {name: getattr(unit, name) for name in unit.__dataclass_fields__}
            self.descriptor = type(unit)(**{**fields, "context": sealed, "send_handler": send})

    def command(number, code, blocks, flags, data=b""):
        return ScsiCommand(
            flags=iscsi.FINAL | flags, initiator_task_tag=number, cmd_sn=number, data=data,
            expected_data_transfer_length=blocks * 512, cdb=scsi_cdb.encode(BlockCommand(code, 0, 0, blocks)),
        )  # fmt: skip

    talk(
        command(1, scsi_cdb.Operation.WRITE_16, 1, iscsi.WRITE, b"w" * 512),
        command(2, scsi_cdb.Operation.READ_16, 1, iscsi.READ),
        command(3, scsi_cdb.Operation.WRITE_6, 1, iscsi.WRITE, b"w" * 512),
        command(4, scsi_cdb.Operation.SYNCHRONIZE_CACHE_10, 0, 0),
        disks={number: Disk(unit) for number, unit in units.items()},
    )
    assert served == [Operation.WRITE, Operation.READ, Operation.WRITE, Operation.FLUSH]
    manager.gone(admission.session_id, "logout")


@pytest.mark.parametrize("name", ["nowhere", "rbd", "mem:64M", "rbd::cache=no"])
def test_what_is_no_platform_is_told(name, manager):
    with pytest.raises(ConfigError):
        manager.platforms.add([name])
        failed = manager.platforms.facts(scan=True).platforms[-1].failed
        raise ConfigError(name, failed)
