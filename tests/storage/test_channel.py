"""The real storage process, its channel and its client."""

import asyncio
import contextlib
import json
import signal
import socket
import stat
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from panloom.errors import ConfigError, ConflictError, UnavailableError
from panloom.storage.exports import Access, ExportedLun
from support.storage_process import StorageProcess

TARGET = "iqn.2026-11.dev.panloom:shop.web1"
NODE = "iqn.2026-11.dev.panloom:node.n1"


@pytest.fixture
def process(tmp_path):
    with StorageProcess(tmp_path) as process:
        yield process


def test_every_call(process, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"golden" * 1000)

    async def calls(client):
        image = await client.import_image("web@1", source)
        assert image.octets == 6000
        with pytest.raises(ConflictError, match=f"web@1 is another disk by now: its SHA-256 is {image.sha256}"):
            await client.create_volume("shop.web1", "web@1", 1 << 20, image_sha256="ab" * 32)
        created = await client.create_volume("shop.web1", "web@1", 1 << 20, image_sha256=image.sha256)
        assert (created.octets, created.created) == (1 << 20, True)
        await client.export(TARGET, [ExportedLun(0, volume="shop.web1")], 1, Access(NODE, user="u", secret="s" * 12))
        personality = ExportedLun(0, content=b"PAN='shop'\n", read_only=True)
        await client.export(TARGET + ".personality", [personality], 1, None)
        status = await client.status()
        assert [export.target for export in status.exports] == [TARGET, TARGET + ".personality"]
        with pytest.raises(ConflictError, match="exported"):
            await client.delete_volume("shop.web1")
        await client.revoke(TARGET, 2)
        assert await client.drop(TARGET) == 0
        await client.drain(TARGET)
        with pytest.raises(ConflictError, match="epoch"):
            await client.export(TARGET, [], 1, None)
        await client.unexport(TARGET, 2)
        stored = await client.volumes()
        (volume,) = stored.volumes
        assert (volume.name, volume.epoch) == ("shop.web1", 2)
        assert [facts.readers for facts in stored.images] == [("shop.web1",)]
        await client.delete_volume("shop.web1")
        with pytest.raises(ConfigError, match="no image name"):
            await client.import_image("web", source)
        with pytest.raises(UnavailableError, match="no image web@7"):
            await client.create_volume("v", "web@7", 0)

    process.run(calls)


def test_calls_side_by_side_on_one_connection(process):
    async def calls(client):
        names = [f"v{number}" for number in range(20)]
        created = await asyncio.gather(*(client.create_volume(name, None, 4096) for name in names))
        assert all(each.created for each in created)
        assert len((await client.volumes()).volumes) == 20

    process.run(calls)


def test_the_client_comes_back_after_a_restart(process):
    async def calls(client):
        await client.create_volume("v", None, 4096)
        process.kill()
        with pytest.raises(UnavailableError, match="does not answer"):
            await client.volumes()
        process.start()
        assert (await client.volumes()).volumes[0].name == "v"

    process.run(calls)


def test_waiting_calls_learn_of_the_end(process):
    async def calls(client):
        await client.status()
        process.stop(signal.SIGSTOP)
        waiting = [asyncio.ensure_future(client.status()) for _ in range(3)]
        await asyncio.sleep(0)
        process.kill()
        for call in waiting:
            with pytest.raises(UnavailableError):
                await call

    process.run(calls)


def test_a_watcher_sees_refused_logins_and_the_end(process):
    async def calls(client):
        async with contextlib.aclosing(client.watch()) as events:
            first = asyncio.ensure_future(anext(events))
            await client.status()  # the watch has been asked for before
            while not first.done():
                with socket.create_connection(("127.0.0.1", process.port)) as sock:
                    sock.sendall(bytes(48))
                await asyncio.wait([first], timeout=0.05)
            event = first.result()
            assert (event.event, event.peer.partition(":")[0]) == ("refused", "127.0.0.1")
            process.kill()
            with pytest.raises(UnavailableError):
                async for _ in events:
                    pass

    process.run(calls)


def talk(process, octets):
    """Send octets and return the answers."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(process.socket))
        sock.settimeout(10)
        sock.sendall(octets)
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as file:
            return [json.loads(line) for line in file]


@pytest.mark.parametrize(
    ("line", "number"),
    [
        (b"", None),
        (b"{", None),
        (b"[" * 100_000, None),
        (b'{"id":7,"call":"format_all"}', 7),
        (b'{"id":7,"call":"drop"}', 7),
        (b'{"id":7,"call":"drop","target":1}', 7),
        (b'{"id":7,"call":"revoke","target":"t","epoch":18446744073709551616}', 7),
        (b'{"id":7,"call":"status","more":true}', 7),
        (b'{"id":"7","call":"status"}', None),
        (b"\xff\xfe", None),
    ],
)
def test_a_malformed_request_gets_one_error_line(process, line, number):
    bad, good = sorted(talk_both(process, line), key=lambda answer: "ok" in answer)
    assert (bad["id"], bad["error"]["kind"]) == (number, "config")
    assert good["id"] == 9


def talk_both(process, line):
    """Both on one connection: the second is answered whatever the first was."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(process.socket))
        sock.settimeout(10)
        sock.sendall(line + b"\n" + b'{"id":9,"call":"drop","target":"t"}\n')
        with sock.makefile("rb") as file:
            return [json.loads(file.readline()) for _ in range(2)]


def test_a_line_without_end_is_cut_off(process):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(process.socket))
        with contextlib.suppress(ConnectionError):
            for _ in range(6):
                sock.sendall(b"x" * (1 << 20))
        with contextlib.suppress(ConnectionError):
            assert b"too long" in sock.recv(4096)
    assert process.run(lambda client: client.status()).exports == ()


def test_modes(process, tmp_path):
    assert stat.S_IMODE(process.socket.stat().st_mode) == 0o600
    process.run(lambda client: client.revoke(TARGET, 1))
    assert stat.S_IMODE((process.directory / "exports.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(process.directory.stat().st_mode) == 0o700


def test_another_user_is_not_served(process):
    process.socket.chmod(0o666)
    process.socket.parent.chmod(0o755)
    ask = (
        "import os, socket, sys\n"
        "sock = socket.socket(socket.AF_UNIX)\n"
        "os.chdir(sys.argv[1])\n"
        "os.setuid(65534)\n"
        "sock.connect('storage.sock')\n"
        'sock.sendall(b\'{"id":1,"call":"status"}\\n\')\n'
        "print(sock.recv(100))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask, process.socket.parent], capture_output=True, text=True, check=False, timeout=20
    )
    assert done.stdout == "b''\n" or "ConnectionResetError" in done.stderr or "BrokenPipe" in done.stderr
    assert process.run(lambda client: client.status()).exports == ()


def start(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "panloom.storage", *arguments], capture_output=True, text=True, check=False, timeout=20
    )


def test_wrong_arguments_are_one_clear_error(tmp_path):
    good = ["--directory", str(tmp_path), "--socket", str(tmp_path / "s"), "--portal", "127.0.0.1:0"]
    for wrong in ([], good[:4], [*good[:5], "nowhere"], [*good[:5], "127.0.0.1:65536"], [*good[:5], "127.0.0.1"]):
        done = start(*wrong)
        assert done.returncode == 2
        assert "error:" in done.stderr
        assert "Traceback" not in done.stderr
    (tmp_path / "file").touch()
    for wrong in (
        ["--directory", str(tmp_path / "file"), *good[2:]],
        [*good[:2], "--socket", str(tmp_path / "missing" / "s"), *good[4:]],
        [*good[:2], "--socket", str(tmp_path / ("long" * 40)), *good[4:]],
    ):
        done = start(*wrong)
        assert done.returncode == 1
        assert done.stderr.startswith("panloom.storage: ")
        assert done.stderr.count("\n") == 1


def test_a_second_process_and_a_damaged_file_are_refused(process):
    arguments = ["--directory", str(process.directory), "--socket", str(process.socket), "--portal", "127.0.0.1:0"]
    assert "another storage process" in start(*arguments).stderr
    process.end()
    (process.directory / "exports.json").write_bytes(b'{"format":2}')
    done = start(*arguments)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "format 2" in done.stderr


def test_a_portal_whose_address_comes_later(tmp_path):
    """In a network namespace of its own: the address is added while the process waits for it."""
    script = (
        "ip link set lo up\n"
        'python="$1"; shift\n'
        '"$python" -m panloom.storage "$@" 2>log & \n'
        "until grep -q listening=no log; do sleep 0.01; done\n"
        "ip address add 192.0.2.1/32 dev lo\n"
        "until grep -q 'listening=yes' log; do sleep 0.01; done\n"
        "kill $!; wait $!; echo $?\n"
    )
    arguments = ["--directory", "store", "--socket", "s", "--portal", "192.0.2.1:3260"]
    done = subprocess.run(
        ["unshare", "--net", "timeout", "20", "sh", "-c", script, "sh", sys.executable, *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.stdout == "0\n", done.stderr


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(octets=st.binary(max_size=300))
def test_any_octets_disturb_nobody(process, octets):
    talk(process, octets)
    assert process.process.poll() is None
