"""Frames in and out of the kernel: all that passes a network card, and interfaces whose other side is ours.

    the wire ◀──▶ Card ◀── octets_of / frame ──▶ Tap ◀──▶ a namespace's own TCP/IP stack

Each frame comes with what the kernel has still to do for it, a checksum or its division into segments (``struct
virtio_net_hdr``, linux/virtio_net.h), and keeps that on its way: else it would arrive with a checksum nobody made.
"""

import ctypes
import errno
import fcntl
import os
import socket
import struct
from contextlib import ExitStack, suppress
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Final

import msgspec

from panloom.errors import KernelError, UnavailableError
from panloom.fabric.namespaces import within
from panloom.values import MacAddress

PLAIN: Final = bytes(10)  # nothing is left to be done

_MOST_OCTETS: Final = len(PLAIN) + 14 + 4 + (1 << 16)
_ETH_P_ALL: Final = 0x0003  # linux/if_ether.h
_SOL_PACKET, _ADD_MEMBERSHIP, _AUXDATA, _VNET_HDR, _IGNORE_OUTGOING = 263, 1, 8, 15, 23  # linux/if_packet.h
_PROMISCUOUS: Final = 1
_AUXILIARY = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata
_TAG_IS_VALID, _TAG_KIND_IS_VALID = 0x10, 0x40
_NEEDS_CHECKSUM: Final = 1
_VLAN: Final = 0x8100

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0  # linux/if_tun.h
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6 = 1, 2, 4
_GET_FLAGS, _SET_FLAGS, _SET_ADDRESS, _SET_MASK = 0x8913, 0x8914, 0x8916, 0x891C  # linux/sockios.h
_GET_MTU, _SET_MTU, _SET_HARDWARE_ADDRESS = 0x8921, 0x8922, 0x8924
_IFF_UP, _IFF_RUNNING = 0x01, 0x40
_LINK_CHANGES: Final = 1  # linux/rtnetlink.h: RTMGRP_LINK
_TUNSETCARRIER, _TUNGETIFF = 0x400454E2, 0x800454D2
_ETHTOOL, _GET_SETTINGS, _SET_SETTINGS = 0x8946, 1, 2  # linux/ethtool.h: struct ethtool_cmd
_SETTINGS = struct.Struct("=III HBBBBBB II H BB I 8x")
_SPEED_LOW, _SPEED_HIGH = 3, 12  # fields of it
_ARPHRD_ETHER: Final = 1  # linux/if_arp.h


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A frame, and what the kernel has still to do for it."""

    octets: bytes
    left: bytes = PLAIN


class Link(msgspec.Struct, frozen=True):
    """What a card's link is like."""

    carrier: bool
    mtu: int  # octets
    speed: int | None  # Mbit/s; None: the card does not tell


class Card:
    """A network card, or its like, from below all stacks: every frame that comes in, whomever it is for.

    The interface has to be up, and should have neither addresses nor ARP: this kernel's stack hears it as well.
    KernelError if there is no such interface.
    """

    def __init__(self, namespace: Path | None, name: str) -> None:
        self.name = name
        with ExitStack() as opened:
            with within(namespace):
                self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            opened.callback(self._socket.close)
            try:
                index = _index(self._socket, name)
                for option in (_VNET_HDR, _AUXDATA, _IGNORE_OUTGOING):
                    self._socket.setsockopt(_SOL_PACKET, option, 1)
                self._socket.bind((name, _ETH_P_ALL))
                member = struct.pack("=iHH8s", index, _PROMISCUOUS, 0, bytes(8))
                self._socket.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, member)
                self.mtu = _ask(self._socket, _GET_MTU, name)
                with within(namespace):
                    self.link_changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
                opened.callback(self.link_changes.close)
                self.link_changes.bind((0, _LINK_CHANGES))
            except OSError as error:
                raise KernelError(f"network card {name}: {error.strerror}") from error
            self._socket.setblocking(False)
            self.link_changes.setblocking(False)
            opened.pop_all()
        self._buffer = bytearray(_MOST_OCTETS)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._socket.fileno()

    def receive(self) -> Frame | None:
        """Return a frame off the wire, None if there is none now."""
        try:
            octets, auxiliary, _, _ = self._socket.recvmsg_into([self._buffer], 256)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in (errno.ENETDOWN, errno.EINVAL):  # the link is down; a kind of segments we do not know
                return None
            raise
        head = len(PLAIN)
        frame = Frame(bytes(self._buffer[head:octets]), bytes(self._buffer[:head]))
        return _with_tag(frame, auxiliary[0][2]) if auxiliary else frame

    def send(self, frame: Frame) -> bool:
        """Send a frame; False if the card has no room for it, or its link is down."""
        try:
            self._socket.send(frame.left + frame.octets)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOBUFS, errno.ENETDOWN, errno.EMSGSIZE, errno.EINVAL):
                return False
            raise
        return True

    def link(self) -> Link:
        """Return what the link is like; it may be another as soon as ``link_changes`` can be read.

        KernelError if the card is gone.
        """
        with suppress(OSError):  # there is nothing left, or more than it could hold
            while self.link_changes.recv(1 << 16):
                pass
        try:
            carrier = bool(_ask(self._socket, _GET_FLAGS, self.name) & _IFF_RUNNING)
            return Link(carrier, _ask(self._socket, _GET_MTU, self.name), _speed(self._socket, self.name))
        except OSError as error:
            raise KernelError(f"network card {self.name}: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the card."""
        self._socket.close()
        self.link_changes.close()


class Tap:
    """An interface of a namespace whose other side is ours; it is gone when this is closed, or when somebody there
    deletes it.

    KernelError if the name is taken or the kernel refuses.
    """

    def __init__(self, namespace: Path | None, name: str, mac: MacAddress, *, mtu: int = 1500) -> None:
        self.name = name
        self.is_gone = False
        self._namespace = namespace
        try:
            with within(namespace):  # the interface appears where the device was opened
                self._device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise UnavailableError(f"/dev/net/tun cannot be opened: {error.strerror}; modprobe tun") from error
        with ExitStack() as opened:
            opened.callback(os.close, self._device)
            try:
                request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
                fcntl.ioctl(self._device, _TUNSETIFF, request)
                fcntl.ioctl(self._device, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6)
                self._tell(_SET_HARDWARE_ADDRESS, struct.pack("=H6s", _ARPHRD_ETHER, mac.to_octets()))
                self._tell(_SET_MTU, struct.pack("=i", mtu))
            except OSError as error:
                raise KernelError(f"interface {name}: {error.strerror}") from error
            opened.pop_all()

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._device

    def receive(self) -> Frame | None:
        """Return a frame that the stack there has sent, None if there is none now, or never again: ``is_gone``."""
        try:
            octets = os.read(self._device, _MOST_OCTETS)
        except OSError as error:
            if error.errno == errno.EBADFD:
                self.is_gone = True
            elif error.errno not in (errno.EAGAIN, errno.EIO):
                raise
            return None
        head = len(PLAIN)
        return Frame(octets[head:], octets[:head])

    def send(self, frame: Frame) -> bool:
        """Give the stack there a frame; False if its interface is down or gone, or takes no more."""
        try:
            os.write(self._device, frame.left + frame.octets)
        except OSError as error:
            if error.errno == errno.EBADFD:
                self.is_gone = True
            elif error.errno not in (errno.EIO, errno.EAGAIN, errno.ENOBUFS, errno.EINVAL):
                raise
            return False
        return True

    def give_address(self, address: IPv4Interface) -> None:
        """Give the interface an address and bring it up; KernelError if the kernel refuses."""
        try:
            for request, value in ((_SET_ADDRESS, address.ip), (_SET_MASK, address.netmask)):
                self._tell(request, struct.pack("=HH4s", socket.AF_INET, 0, value.packed))
            with within(self._namespace):
                asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with asker:
                flags = _ask(asker, _GET_FLAGS, self.name) & 0xFFFF
            self._tell(_SET_FLAGS, struct.pack("=H", flags | _IFF_UP))
        except OSError as error:
            raise KernelError(f"{address} on {self.name}: {error.strerror}") from error

    def be_like(self, link: Link) -> None:
        """Have carrier, MTU and speed of another link; one that is gone or elsewhere by now stays as it is."""
        with suppress(OSError):
            fcntl.ioctl(self._device, _TUNSETCARRIER, struct.pack("=i", link.carrier))
            self._tell(_SET_MTU, struct.pack("=i", link.mtu))
            if link.speed is not None:
                with within(self._namespace):
                    teller = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                with teller:
                    _set_speed(teller, self._name_now(), link.speed)

    def close(self) -> None:
        """Remove the interface."""
        os.close(self._device)

    def _name_now(self) -> bytes:
        """Return its name, which the system may have changed."""
        return bytes(fcntl.ioctl(self._device, _TUNGETIFF, bytes(40))[:16])

    def _tell(self, request: int, value: bytes) -> None:
        with within(self._namespace):
            teller = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with teller:
            fcntl.ioctl(teller, request, struct.pack("16s24s", self._name_now(), value))


def _index(of: socket.socket, name: str) -> int:
    return _ask(of, 0x8933, name)  # SIOCGIFINDEX


def _ask(of: socket.socket, request: int, name: str) -> int:
    answer = fcntl.ioctl(of, request, struct.pack("16s24x", name.encode()))
    return int(struct.unpack_from("=i", answer, 16)[0])


def _speed(of: socket.socket, name: str) -> int | None:
    settings = bytearray(_SETTINGS.size)
    struct.pack_into("=I", settings, 0, _GET_SETTINGS)
    try:
        _settings(of, name.encode(), settings)
    except OSError:  # a card without speeds
        return None
    fields = _SETTINGS.unpack(settings)
    speed = fields[_SPEED_LOW] | fields[_SPEED_HIGH] << 16
    return None if speed == (1 << 32) - 1 else int(speed)


def _set_speed(of: socket.socket, name: bytes, speed: int) -> None:
    settings = bytearray(_SETTINGS.size)
    struct.pack_into("=I", settings, 0, _GET_SETTINGS)
    _settings(of, name, settings)
    fields = list(_SETTINGS.unpack(settings))
    fields[0], fields[_SPEED_LOW], fields[_SPEED_HIGH] = _SET_SETTINGS, speed & 0xFFFF, speed >> 16
    _settings(of, name, bytearray(_SETTINGS.pack(*fields)))


def _settings(of: socket.socket, name: bytes, settings: bytearray) -> None:
    """Have the kernel read or change an interface's settings in place (ethtool's request holds a pointer)."""
    held = (ctypes.c_char * len(settings)).from_buffer(settings)
    fcntl.ioctl(of, _ETHTOOL, struct.pack("16sP16x", name, ctypes.addressof(held)))


def _with_tag(frame: Frame, auxiliary: bytes) -> Frame:
    """Put the 802.1Q tag back that the kernel has taken out of a frame."""
    if len(auxiliary) < _AUXILIARY.size:
        return frame
    status, *_, tag, kind = _AUXILIARY.unpack_from(auxiliary)
    if not status & _TAG_IS_VALID:
        return frame
    kind = kind if status & _TAG_KIND_IS_VALID else _VLAN
    octets = frame.octets[:12] + struct.pack("!HH", kind, tag) + frame.octets[12:]
    flags, segments, header, segment, start, offset = struct.unpack("=BBHHHH", frame.left)
    if header:
        header += 4
    if flags & _NEEDS_CHECKSUM:
        start += 4
    return Frame(octets, struct.pack("=BBHHHH", flags, segments, header, segment, start, offset))
