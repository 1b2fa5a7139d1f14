"""A cable of some length: whole frames between two interfaces, each a while later, and some of them never.

    ip netns exec relay python bench/delay_line.py r0 r1 --seconds 0.0025 [--loss 0.05]

Kernels on this kind of machine may have no netem.  The interfaces at the far ends must compute their checksums
themselves (``checksummed``): a frame taken off one virtual cable and put on another has them unfinished otherwise.
"""

import argparse
import ctypes
import fcntl
import random
import select
import socket
import struct
import time
from collections import deque

ETH_ALL, PACKET_OUTGOING = 3, 4  # linux/if_ether.h, linux/if_packet.h
SIOCETHTOOL, ETHTOOL_STXCSUM, ETHTOOL_SGSO = 0x8946, 0x17, 0x24  # linux/sockios.h, linux/ethtool.h
LARGEST_FRAME = 65536


def checksummed(interface: str) -> None:
    """Have an interface of this namespace send frames that are whole: summed, and none longer than the cable's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in (ETHTOOL_STXCSUM, ETHTOOL_SGSO):
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            request = struct.pack("16sP8x", interface.encode(), ctypes.addressof(value))
            fcntl.ioctl(control, SIOCETHTOOL, request)


def port(interface: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_ALL))
    made.bind((interface, ETH_ALL))
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("interfaces", nargs=2)
    parser.add_argument("--seconds", type=float, default=0.0, help="one way")
    parser.add_argument("--loss", type=float, default=0.0, help="share of the frames that never arrive")
    options = parser.parse_args()
    ends = [port(interface) for interface in options.interfaces]
    to = {ends[0]: ends[1], ends[1]: ends[0]}
    chance = random.Random(1)
    waiting: deque[tuple[float, socket.socket, bytes]] = deque()
    print("ready", flush=True)
    while True:
        patience = max(waiting[0][0] - time.monotonic(), 0) if waiting else None
        for end in select.select(ends, [], [], patience)[0]:
            for _ in range(64):
                try:
                    frame, (_, _, direction, _, _) = end.recvfrom(LARGEST_FRAME)
                except BlockingIOError:
                    break
                if direction != PACKET_OUTGOING and chance.random() >= options.loss:
                    waiting.append((time.monotonic() + options.seconds, to[end], frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, end, frame = waiting.popleft()
            try:
                end.send(frame)
            except BlockingIOError:
                continue


if __name__ == "__main__":
    main()
