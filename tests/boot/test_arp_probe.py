"""What is read of the wire when it is asked who has an address."""

import asyncio
import socket
from ipaddress import IPv4Address

from panloom.boot.arp_probe import replies
from panloom.values import MacAddress
from panloom.wire.arp import REPLY, encode_probe

SENDER = MacAddress.parse("52:54:00:77:00:09")


class EndlessWire(socket.socket):
    """A socket at which the next frame has always come already."""

    def recv(self, *_):
        frame = bytearray(encode_probe(IPv4Address("10.77.0.5"), SENDER))
        frame[20:22], frame[28:32] = REPLY.to_bytes(2), IPv4Address("10.77.0.5").packed
        return bytes(frame)


def test_frames_that_never_cease_keep_nobody_from_his_work():
    async def scenario(sock):
        turns = 0

        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        found = await replies(sock, 0.05)
        task.cancel()
        return found, turns

    with EndlessWire(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        found, turns = asyncio.run(scenario(sock))
    assert {reply.sender for reply in found} == {IPv4Address("10.77.0.5")}
    assert turns > 1
