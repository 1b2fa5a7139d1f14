"""What sockets of the boot services are set to."""

import asyncio
import socket
from ipaddress import IPv4Address

from panloom.boot.interface import tcp_listener, udp_socket

LOOPBACK = IPv4Address("127.0.0.1")


def test_as_much_may_wait_as_is_said():
    with udp_socket("lo", LOOPBACK, 0, waiting_octets=4 << 20) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 4 << 20

    with tcp_listener("lo", LOOPBACK, 0, unsent_octets=1 << 20) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= 1 << 20


def test_what_is_accepted_sends_small_pieces_at_once():
    async def accepted() -> int:
        seen = asyncio.get_running_loop().create_future()

        async def serve(_reader, writer):
            seen.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with tcp_listener("lo", LOOPBACK, 0) as listener:
            server = await asyncio.start_server(serve, sock=listener)
            _, writer = await asyncio.open_connection(*listener.getsockname())
            try:
                return await seen
            finally:
                writer.close()
                await writer.wait_closed()
                server.close()

    assert asyncio.run(accepted())
