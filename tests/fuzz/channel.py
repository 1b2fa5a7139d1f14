"""The control channel of the storage process, whole: any octets on its socket, a store in memory behind it."""

import asyncio
import json
import os
import tempfile
from pathlib import Path

from fuzz.target import target
from panloom.storage.channel import Channel, Events
from panloom.storage.connection_manager import ConnectionManager
from panloom.storage.exports import ExportsFile
from panloom.storage.flattening import Flattening
from panloom.storage.volume_store import VolumeStore

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
TARGET = "iqn.2026-11.dev.panloom:shop.web1"
ACCESS = {"initiator": "iqn.2026-11.dev.panloom:node.n1", "user": "web1", "secret": "secret-of-web1"}
LUNS = [{"lun": 0, "volume": "shop.web1"}, {"lun": 1, "content": "UEFOCg==", "read_only": True}]
LONGEST_SECONDS = 5


def _lines(*calls):
    return b"".join(json.dumps({"id": number, **call}).encode() + b"\n" for number, call in enumerate(calls))


def _seeds():
    create = {"call": "create_volume", "name": "shop.web1", "image": None, "size_octets": 1 << 20}
    export = {"call": "export", "target": TARGET, "epoch": 3, "luns": LUNS, "access": ACCESS}
    yield _lines(create, export, {"call": "status"}, {"call": "volumes"})
    yield _lines(create, export, export | {"luns": [], "moved": {"portal": "192.0.2.9:3260", "permanent": True}})
    yield _lines({"call": "revoke", "target": TARGET, "epoch": 4}, {"call": "drop", "target": TARGET})
    yield _lines({"call": "drain", "target": TARGET}, {"call": "unexport", "target": TARGET, "epoch": 4})
    yield _lines({"call": "delete_volume", "name": "shop.web1"}, {"call": "watch"})
    yield _lines({"call": "import_image", "name": "web@1", "source": "/nowhere"}, create | {"image": "web@1"})
    yield b'{"id":7,"call":"format_all"}\n[[[[\n\xff\n{"id":1e400,"call":"status"}\n'


@target(seeds=_seeds)
def lines(octets):
    """Every line is answered by one, whatever it holds, and the store goes on: it lists what it has."""
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="fuzz-") as directory:
        asyncio.run(asyncio.wait_for(_converse(Path(directory), octets), LONGEST_SECONDS))


async def _converse(directory, octets):
    events = Events()
    store = VolumeStore(directory / "store")
    manager = ConnectionManager(store, ExportsFile(directory / "store" / "exports.json"), events.report)
    channel = Channel(store, manager, Flattening(store), events)
    await channel.start(directory / "socket")
    try:
        said = octets.removesuffix(b"\n").split(b"\n")
        answers = await _say(directory / "socket", b"\n".join(said) + b"\n", len(said))
        assert all(("ok" in answer) != ("error" in answer) for answer in answers)
        (listed,) = await _say(directory / "socket", _lines({"call": "volumes"}), 1)
        assert "ok" in listed
    finally:
        await channel.stop()
        manager.shut_down()


async def _say(path, octets, answers):
    """Send lines and return as many answers."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(octets)
        return [json.loads(await reader.readline()) for _ in range(answers)]
    finally:
        writer.close()
        await writer.wait_closed()
