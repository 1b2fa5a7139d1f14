"""Units of other targets as devices of ours: of tgtd, which dies and comes back, and of a Panloom beside us."""

import errno
import random

import pytest

from panloom.errors import ConfigError, UnavailableError
from panloom.storage.exports import ExportedLun
from panloom.storage.frame import Frame, Operation
from panloom.storage.local_transport import LocalTransport
from panloom.storage.medium import call
from panloom.storage.stand_alone import NoStore
from panloom.storage.stores import remote
from panloom.storage.stores.names import open_store
from support.target_process import TargetProcess
from support.tgtd import TARGET, Tgtd

MIB = 1 << 20
SIZE = 16 * MIB


@pytest.fixture
def tgtd(tmp_path):
    with Tgtd(tmp_path, SIZE) as tgtd:
        yield tgtd


def exercise(store):
    """Write, unmap and read at random beside plain octets."""
    rng, twin = random.Random(1), bytearray(SIZE)
    assert (store.octets, store.block_octets, store.may_block) == (SIZE, 512, True)
    for _ in range(60):
        offset = rng.randrange(SIZE // 512) * 512
        octets = min(rng.choice((512, 4096, 65536, MIB)), SIZE - offset)
        if rng.random() < 0.2:
            store.unmap(offset, octets)
            twin[offset : offset + octets] = bytes(octets)
        else:
            data = rng.randbytes(octets)
            store.write(offset, memoryview(data))
            twin[offset : offset + octets] = data
    store.flush()
    found = bytearray(SIZE)
    store.read(0, memoryview(found))
    assert found == twin
    assert not store.read_now(0, memoryview(bytearray(512)))


def test_a_unit_of_tgtd_holds_what_was_written(tgtd):
    name = f"iscsi://127.0.0.1:{tgtd.port}/{TARGET}/1"
    store = open_store(name)
    exercise(store)
    store.close()
    assert remote.unit_names(name.rpartition("/")[0]) == (name[:-1] + "0", name)


def test_a_unit_of_another_panloom_holds_what_was_written(tmp_path):
    (tmp_path / "secret").write_text("a secret of length\n")
    (tmp_path / "secret").chmod(0o600)
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(SIZE))
    chap = f"web1:{tmp_path / 'secret'}"
    with TargetProcess(tmp_path, "--lun", f"1={disk}", "--chap", chap) as target:
        login = f"web1:{str(tmp_path / 'secret').replace('/', '%2F')}@"
        name = f"iscsi://{login}127.0.0.1:{target.ports[0]}/{target.iqn}/1"
        store = open_store(name)
        assert store.thin
        exercise(store)
        store.close()
        with pytest.raises(UnavailableError):
            open_store(name.replace(login, ""))


def test_a_unit_whose_blocks_are_not_those_of_a_disk_is_refused(tmp_path):
    disc = tmp_path / "disc.iso"
    disc.write_bytes(bytes(64 * 2048))
    with (
        TargetProcess(tmp_path, "--lun", f"1={disc}") as target,
        pytest.raises(ConfigError, match="has blocks of 2048 octets"),
    ):
        open_store(f"iscsi://127.0.0.1:{target.ports[0]}/{target.iqn}/1")


def test_frames_wait_for_a_target_that_comes_back(tgtd):
    """While it is away the connection's thread goes on; the frame is answered once it is back."""
    transport = LocalTransport(NoStore())
    lun = ExportedLun(1, device=f"iscsi://127.0.0.1:{tgtd.port}/{TARGET}/1")
    unit = transport.connect("t", lun, 1)
    data = memoryview(bytearray(b"x" * 4096))
    assert call(unit, Frame(Operation.WRITE, 0, 4096, data)) is None
    tgtd.kill()
    tgtd.start()
    found = bytearray(4096)
    assert call(unit, Frame(Operation.READ, 0, 4096, memoryview(found))) is None
    assert found == b"x" * 4096
    transport.disconnect(unit)
    transport.shut_down()


def test_a_target_that_stays_away_is_an_error(tgtd, monkeypatch):
    monkeypatch.setattr(remote, "RECONNECT_SECONDS", 0.5)
    store = open_store(f"iscsi://127.0.0.1:{tgtd.port}/{TARGET}/1")
    tgtd.kill()
    with pytest.raises(OSError, match=r".") as failure:
        store.read(0, memoryview(bytearray(512)))
    assert failure.value.errno == errno.EIO
    with pytest.raises(OSError, match=r"."):
        store.flush()
    assert "a flush of" in store.lost
    with pytest.raises(OSError, match="a flush of"):
        store.close()


def test_a_refusal_of_the_other_target_keeps_its_sense(tmp_path):
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(SIZE))
    with TargetProcess(tmp_path, "--lun", f"1={disk},ro") as target:
        store = open_store(f"iscsi://127.0.0.1:{target.ports[0]}/{target.iqn}/1")
        with pytest.raises(OSError, match="07/2700") as failure:
            store.write(0, memoryview(bytes(512)))
        assert failure.value.errno == errno.EROFS
        store.close()
