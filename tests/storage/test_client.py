"""The control channel's client against a storage process that lies or is of another version."""

import asyncio
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest

from panloom.errors import UnavailableError
from panloom.storage import calls
from panloom.storage.client import StorageClient

STATUS = msgspec.json.encode({"id": 0, "ok": {"exports": [], "sessions": []}})


@asynccontextmanager
async def answered(directory, *answers):
    """Yield a client whose first connection gets the first answer to all it asks, the second one the second."""
    left = list(answers)
    serving = []

    async def serve(reader, writer):
        serving.append(asyncio.current_task())
        answer = left.pop(0)
        with suppress(ConnectionError):
            while line := await reader.readline():
                number = msgspec.json.decode(line)["id"]
                writer.write(answer.replace(b'"id":0', b'"id":%d' % number))
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_unix_server(serve, directory / "storage.sock", limit=1 << 20)
    channel = StorageClient(directory / "storage.sock")
    try:
        yield channel
    finally:
        await channel.close()
        server.close()
        await asyncio.gather(*serving)


@pytest.mark.parametrize(
    "line",
    [b"no JSON\n", b"[]\n", b'{"id":"1"}\n', b'{"id":0,"ok":"' + b"x" * calls.MAX_LINE_OCTETS + b'"}\n'],
    ids=["garbage", "list", "text", "without end"],
)
def test_a_line_that_is_no_answer_ends_the_connection_and_every_call_on_it(tmp_path, line):
    async def scenario():
        async with answered(tmp_path, line, STATUS + b"\n") as channel:
            calls_of_it = await asyncio.gather(channel.volumes(), channel.drain("iqn"), return_exceptions=True)
            assert [type(failure) for failure in calls_of_it] == [UnavailableError] * 2
            assert (await channel.status()).sessions == ()

    asyncio.run(scenario())


def test_an_answer_of_another_version_is_said_so_and_leaves_the_connection(tmp_path):
    async def scenario():
        async with answered(tmp_path, STATUS + b"\n") as channel:
            with pytest.raises(UnavailableError, match=r"cannot be read: .*`volumes`; run the same version of both"):
                await channel.volumes()
            assert (await channel.status()).exports == ()

    asyncio.run(scenario())


def test_an_event_of_another_version_ends_the_watch(tmp_path):
    async def scenario():
        async with answered(tmp_path, b'{"id":0}\n{"event":"evaporated"}\n') as channel:
            with pytest.raises(UnavailableError, match="cannot be read"):
                await anext(channel.watch())

    asyncio.run(scenario())
