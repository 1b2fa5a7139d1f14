"""The firmware of an emulated machine: iPXE as the boot services see it, from power-on to the first blocks of a disk.

    DHCP ─▶ script over HTTP ─▶ runs it ─▶ sanboot: login, first blocks ─▶ Disk
     ▲               │ told to wait: sleeps, asks again
     └───────────────┘

Its session ends there, or stays the only one that the machine ever has (``Machine.initiators``).

It differs from iPXE in a ROM in one thing: it never gives up, as if its machine were set to try the network for ever.
"""

import asyncio
import os
import re
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import msgspec

from panloom.errors import MalformedError, PanloomError, UnavailableError
from panloom.initiator import Session
from panloom.lab.board import NIC, Board
from panloom.lab.ipxe_script import Act, Chain, Choose, Dhcp, Echo, RootPath, Sanboot, Sleep, run_script
from panloom.lab.qemu import Machine, uuid_of
from panloom.protocol.dhcp_client import DhcpClient
from panloom.values import Iqn, MacAddress
from panloom.wire import dhcp
from panloom.wire.dhcp import Message, Option
from panloom.wire.internet import BROADCAST_MAC, ETHERTYPE_IPV4, UdpFrame, decode_udp_frame, encode_udp_frame

FIRMWARE_ISID = bytes.fromhex("400027230001")  # iPXE's kind: random, RFC 7143 section 11.12.5
_FIRST_BLOCKS = 8
_HTTP_SECONDS = 5.0
_LOGIN_SECONDS = 10.0
_AGAIN_SECONDS = 0.5
_MAX_FRAME_OCTETS = 65535
_MAX_PAGE_OCTETS = 1 << 16
_ARCHITECTURE, _NII_REVISION = b"\0\0", b"\1\2\1"  # RFC 4578: a BIOS; UNDI 2.1
_PARAMETERS = bytes((1, 3, 6, 12, 15, 17, 26, 43, 60, 66, 67, 175, 203))  # option 55, as iPXE asks
_FEATURES = dhcp.encode_options({16: b"\2", 19: b"\1", 17: b"\1"})  # HTTP, DNS and iSCSI, within option 175
_URL = re.compile(r"http://([0-9.]+):([0-9]+)(/\S*)\Z")


class Disk(msgspec.Struct, frozen=True):
    """What firmware leaves behind for the kernel, in the iBFT of a real machine."""

    portal: tuple[str, int]
    target: Iqn
    lun: int
    initiator: Iqn
    user: str | None = None
    secret: str | None = None


class Firmware:
    """One power-on's worth of iPXE; ``say`` is the serial line."""

    def __init__(self, machine: Machine, board: Board, say: Callable[[str], None]) -> None:
        self._name = machine.name
        self._board = board
        self._say = say
        self._settings = hardware_settings(machine)
        self._interface: IPv4Interface | None = None
        self._hands_over = machine.initiators == 1
        self._session: Session | None = None

    def session(self) -> Session | None:
        """Return the session with the disk, for whoever goes on with it and ends it; None where it has ended."""
        session, self._session = self._session, None
        return session

    async def boot(self) -> Disk:
        """Return the disk that the machine boots from, once there is one."""
        while True:
            try:
                if await self._dhcp():
                    disk = await self._boot_once()
                    if disk is not None:
                        return disk
            except (PanloomError, OSError) as error:
                self._say(f"iPXE: {error}")
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _boot_once(self) -> Disk | None:
        """Do what DHCP said: run the script that it names, or boot from its root path."""
        url = self._settings.get("filename", "")
        while url:
            script, url = await self._fetch(url), ""
            steps = run_script(script, self._settings)
            try:
                act = next(steps)
                while True:
                    if isinstance(act, Chain):
                        url = act.url
                        steps.send(True)
                    elif isinstance(act, Sanboot):
                        disk = await self._sanboot(act.root_path)
                        if disk is not None:
                            return disk
                        act = steps.send(False)
                    else:
                        act = steps.send(await self._do(act))
            except StopIteration:
                continue
        root_path = self._settings.get("root-path")
        return await self._sanboot(root_path) if root_path else None

    async def _do(self, act: Act) -> bool:
        match act:
            case Echo(text):
                self._say(text)
            case Sleep(seconds):
                await asyncio.sleep(seconds)
            case Dhcp():
                return await self._dhcp()
            case Choose(title, items, default, seconds, setting):  # nobody sits at its keyboard
                for line in (title, *(text for _, text in items)):
                    self._say(line)
                await asyncio.sleep(seconds)
                self._settings[setting] = default
        return True

    # ── DHCP ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _dhcp(self) -> bool:
        ack = await bind(self._board, NIC, self._board.mac, options_of(self._name, self._board.mac))
        self._settings.pop("root-path", None)
        self._settings["filename"] = (ack.file or ack.options.get(Option.BOOT_FILE_NAME, b"")).decode(
            "ascii", "replace"
        )
        for option, name in ((Option.ROOT_PATH, "root-path"), (Option.IPXE_INITIATOR, "initiator-iqn")):
            if option in ack.options:
                self._settings[name] = ack.options[option].decode("ascii", "replace")
        interface = interface_of(ack)
        if interface != self._interface:
            await self._board.give_storage_address(interface)
            self._interface = interface
        self._say(f"iPXE: {interface} {self._settings['filename'].rpartition('/')[0] or 'no file name'}")
        return True

    # ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _fetch(self, url: str) -> str:
        match = _URL.match(url)
        if match is None:
            raise MalformedError(f"{url!r} is no address that this firmware can fetch from")
        host, port, path = match.groups()
        async with asyncio.timeout(_HTTP_SECONDS):
            connection = await connect(self._board, host, int(port))
            reader, writer = await asyncio.open_connection(sock=connection)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
                head, _, body = (await reader.read(_MAX_PAGE_OCTETS)).partition(b"\r\n\r\n")
                while piece := await reader.read(_MAX_PAGE_OCTETS):
                    body += piece
            finally:
                writer.close()
        status = head.split(b" ", 2)[1:2]
        if status != [b"200"]:
            raise UnavailableError(f"http status {b''.join(status).decode()} for its script")
        return body.decode("ascii", "replace")

    # ── iSCSI ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _sanboot(self, root_path: str) -> Disk | None:
        settings = self._settings
        root = RootPath.parse(root_path)
        try:
            disk = Disk(
                portal=(root.address, root.port),
                target=Iqn.parse(root.target),
                lun=root.lun,
                initiator=Iqn.parse(settings.get("initiator-iqn", "")),
                user=settings.get("username") or None,
                secret=settings.get("password") or None,
            )
            async with asyncio.timeout(_LOGIN_SECONDS):
                session = await log_in(self._board, disk, isid=FIRMWARE_ISID)
                async with AsyncExitStack() as opened:
                    opened.push_async_callback(session.abort)
                    await session.read(disk.lun, 0, _FIRST_BLOCKS * 512)
                    if self._hands_over:
                        self._session = session
                        opened.pop_all()
        except (PanloomError, OSError, ValueError) as error:  # a time-out, or a name that is none
            self._say(f"iPXE: no disk {root_path}: {error}")
            return None
        return disk


def hardware_settings(machine: Machine) -> dict[str, str]:
    """Return what iPXE knows of a machine by itself: its SMBIOS tables, its NIC, and what it was set to."""
    last_kib = (machine.memory_octets >> 10) - 1
    return {
        "manufacturer": "Panloom",
        "product": "emulated machine",
        "serial": machine.name,
        "uuid": str(machine.uuid),
        "buildarch": "x86_64",
        "platform": "pcbios",
        "netX/chip": "veth",
        "net0/mac": machine.mac.replace(":", ""),
        "smbios/4.16.0": "emulated processor",
        "smbios/0.4.35.1": "01",
        "smbios/0.19.4.8": (bytes(4) + last_kib.to_bytes(4, "little")).hex(),
        **({"initiator-iqn": machine.initiator} if machine.initiator else {}),
    }


async def log_in(board: Board, disk: Disk, *, target: Iqn | None = None, isid: bytes) -> Session:
    """Log in to a disk, or to another target of the same portal with the same credentials."""
    return await Session.open(
        disk.portal,
        initiator=disk.initiator,
        target=target or disk.target,
        user=disk.user,
        secret=disk.secret,
        isid=isid,
        connect=lambda address, port: connect(board, address, port),
    )


async def connect(board: Board, address: str, port: int) -> socket.socket:
    """Return a connection from a machine's firmware or kernel, by its storage NIC."""
    connection = board.socket(socket.AF_INET, socket.SOCK_STREAM)
    with ExitStack() as opened:
        opened.callback(connection.close)
        await asyncio.get_running_loop().sock_connect(connection, (address, port))
        opened.pop_all()
    return connection


def options_of(name: str, mac: MacAddress) -> dict[int, bytes]:
    """Return the options by which iPXE in a BIOS's ROM says who and what it is."""
    return {
        Option.MAXIMUM_SIZE: (1472).to_bytes(2, "big"),
        Option.CLIENT_ARCHITECTURE: _ARCHITECTURE,
        Option.CLIENT_INTERFACE: _NII_REVISION,
        Option.VENDOR_CLASS: b"PXEClient:Arch:00000:UNDI:002001",
        Option.USER_CLASS: b"iPXE",
        55: _PARAMETERS,
        Option.IPXE: _FEATURES,
        Option.CLIENT_IDENTIFIER: b"\1" + mac.to_octets(),
        Option.CLIENT_MACHINE: b"\0" + uuid_of(name).bytes,
    }


async def bind(
    board: Board, interface: str, mac: MacAddress, options: dict[int, bytes], *, of_os: bool = False
) -> Message:
    """Get a lease for an interface that has no address yet, however long it takes, and return the ACK."""
    loop = asyncio.get_running_loop()
    client = DhcpClient(mac, int.from_bytes(os.urandom(4), "big"), options)
    with board.socket(socket.AF_PACKET, socket.SOCK_RAW, of_os=of_os) as frames:
        frames.bind((interface, ETHERTYPE_IPV4))
        client.start(now=time.monotonic())
        while client.lease is None:
            for payload in client.packets_to_send():
                frames.send(encode_udp_frame(_from_nobody(mac, payload)))
            try:
                async with asyncio.timeout_at(client.deadline):
                    octets = await loop.sock_recv(frames, _MAX_FRAME_OCTETS)
            except TimeoutError:
                client.handle_timer(now=time.monotonic())
                continue
            try:
                frame = decode_udp_frame(octets)
            except MalformedError:
                continue
            if frame.destination_port == dhcp.CLIENT_PORT:
                client.receive(frame.payload, now=time.monotonic())
    return client.lease


def interface_of(ack: Message) -> IPv4Interface:
    """Return the address of a lease with its prefix; a lease without one is of a network of one address."""
    mask = ack.address(Option.SUBNET_MASK) or IPv4Address("255.255.255.255")
    return IPv4Interface((ack.yiaddr, IPv4Network((0, str(mask))).prefixlen))


def _from_nobody(mac: MacAddress, payload: bytes) -> UdpFrame[IPv4Address]:
    return UdpFrame(
        destination_mac=BROADCAST_MAC,
        source_mac=mac,
        destination=IPv4Address("255.255.255.255"),
        source=dhcp.UNSPECIFIED,
        destination_port=dhcp.SERVER_PORT,
        source_port=dhcp.CLIENT_PORT,
        payload=payload,
    )
