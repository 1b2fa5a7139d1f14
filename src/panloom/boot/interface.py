"""Sockets that see one interface and no other (``SO_BINDTODEVICE``, packet(7))."""

import contextlib
import ctypes
import logging
import socket
import sys
from collections.abc import Callable, Iterator
from struct import Struct
from typing import TypeVar

from panloom.errors import MalformedError, UnavailableError
from panloom.values import IpAddress, MacAddress

_SO_ATTACH_FILTER, _SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 26, 32, 33  # linux/asm-generic/socket.h
_SOL_PACKET = 263  # linux/socket.h
_PACKET_ADD_MEMBERSHIP, _PACKET_MR_MULTICAST, _PACKET_AUXDATA = 1, 0, 8  # linux/if_packet.h
_CHECKSUM_NOT_READY = 8  # TP_STATUS_CSUMNOTREADY, in the first word of struct tpacket_auxdata
_AUXILIARY_OCTETS = 20
_INSTRUCTION = Struct("=HBBI")  # struct sock_filter
_MEMBERSHIP = Struct("=iHH8s")  # struct packet_mreq
_AT_A_TIME = 64  # things read from one socket before others have their turn
_log = logging.getLogger("panloom.boot")

LARGEST_DATAGRAM = 65535
BOOT_STORM_OCTETS = 4 << 20  # some thousand datagrams: a room of machines that is switched on at once
T = TypeVar("T")

Instruction = tuple[int, int, int, int]
"""One step of a classic BPF program: code, jump if true, jump if false, operand."""
LOAD_OCTET, LOAD_HALF_WORD, LOAD_HALF_WORD_AFTER_X = 0x30, 0x28, 0x48  # linux/bpf_common.h
LOAD_X_IPV4_HEAD = 0xB1  # X becomes the length of the IPv4 head that begins at the operand
JUMP_IF_EQUAL, RETURN = 0x15, 0x06
KEEP: Instruction = (RETURN, 0, 0, LARGEST_DATAGRAM)
DROP: Instruction = (RETURN, 0, 0, 0)


def udp_socket(interface: str, address: IpAddress, port: int, *, waiting_octets: int = 0) -> socket.socket:
    """Return a bound UDP socket; UnavailableError says what is in the way.

    ``waiting_octets``: how much may wait to be received, the kernel's own overhead of some 500 octets a datagram
    included; 0 is the kernel's default.
    """
    sock = _bound(socket.SOCK_DGRAM, interface, address, port)
    if waiting_octets:
        _set_size(sock, (socket.SO_RCVBUF, _SO_RCVBUFFORCE), waiting_octets)
    return sock


def tcp_listener(interface: str, address: IpAddress, port: int, *, unsent_octets: int = 0) -> socket.socket:
    """Return a listening TCP socket; UnavailableError says what is in the way.

    ``unsent_octets``: how much the kernel takes from us before it is sent, for each connection; 0 is its default.
    """
    sock = _bound(socket.SOCK_STREAM, interface, address, port)
    if unsent_octets:
        _set_size(sock, (socket.SO_SNDBUF, _SO_SNDBUFFORCE), unsent_octets)
    return sock


def _set_size(sock: socket.socket, options: tuple[int, int], octets: int) -> None:
    for option in options:  # the second is for CAP_NET_ADMIN; with the first net.core.{r,w}mem_max is the most
        with contextlib.suppress(PermissionError):
            sock.setsockopt(socket.SOL_SOCKET, option, octets)


def _bound(kind: socket.SocketKind, interface: str, address: IpAddress, port: int) -> socket.socket:
    # asyncio turns Nagle's algorithm off only where the protocol is said, not left to its default.
    protocol = socket.IPPROTO_TCP if kind is socket.SOCK_STREAM else socket.IPPROTO_UDP
    sock = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        if kind is socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.bind((str(address), port))
        if kind is socket.SOCK_STREAM:
            sock.listen(socket.SOMAXCONN)
    except OSError as error:
        sock.close()
        raise UnavailableError(f"port {port} of {address} on {interface}: {error.strerror}") from error
    return sock


def packet_socket(interface: str, ethertype: int, *, wanted: tuple[Instruction, ...] = ()) -> socket.socket:
    """Return a socket for whole frames, which receives those of ``ethertype`` (0: none) that ``wanted`` keeps."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        sock.setblocking(False)
        if wanted:
            _attach(sock, wanted)
        sock.bind((interface, ethertype))
    except OSError as error:
        sock.close()
        raise UnavailableError(f"frames on {interface}: {error.strerror}") from error
    return sock


def tell_checksums(sock: socket.socket) -> None:
    """Have ``receive_frame`` know of a packet socket's frames whether their checksums are there."""
    sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)


def receive_frame(sock: socket.socket, octets: int) -> tuple[bytes, bool]:
    """Return a frame, and whether its checksum is there: what a card was to add never is between virtual ones."""
    frame, auxiliary, _, _ = sock.recvmsg(octets, socket.CMSG_SPACE(_AUXILIARY_OCTETS))
    status = next((data[:4] for level, kind, data in auxiliary if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA)), b"")
    return frame, not int.from_bytes(status, sys.byteorder) & _CHECKSUM_NOT_READY


def waiting(receive: Callable[[], T], what: str) -> Iterator[T]:
    """Yield what waits at a socket until that is all, or others must have their turn; what is malformed is passed over.

    ``receive`` takes one thing from the socket, which does not block; ``what`` is its name in the log.
    """
    for _ in range(_AT_A_TIME):
        try:
            received = receive()
        except BlockingIOError:
            return
        except MalformedError as error:
            _log.info("%s=ignored why=%r", what, str(error))
            continue
        except OSError as error:  # the interface is down, or an ICMP error came back
            _log.info("%s=unread why=%r", what, str(error))
            return
        yield received


def join(sock: socket.socket, interface: str, group: MacAddress) -> None:
    """Have the interface receive frames to the multicast address ``group`` while the packet socket is open."""
    membership = _MEMBERSHIP.pack(socket.if_nametoindex(interface), _PACKET_MR_MULTICAST, 6, group.to_octets())
    sock.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)


def mac_of(sock: socket.socket) -> MacAddress:
    """Return the MAC of the interface that a packet socket is bound to."""
    return MacAddress.from_octets(sock.getsockname()[4])


def _attach(sock: socket.socket, program: tuple[Instruction, ...]) -> None:
    code = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*step) for step in program))
    # struct sock_fprog: a count, and the address of the instructions after the alignment of a pointer.
    count = len(program).to_bytes(ctypes.sizeof(ctypes.c_void_p), "little")
    fprog = count + bytes(ctypes.c_void_p(ctypes.addressof(code)))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
