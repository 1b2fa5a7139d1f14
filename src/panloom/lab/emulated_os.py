"""The operating system of an emulated machine: what the lab's Linux image does, in so many tasks.

    login to both targets ─▶ personality ─▶ boots + 1 on the disk ─▶ NICs ─▶ page, beacons, load
           (the kernel's own sessions, which answer NOP-In)

The page is the image's: ``/`` for people, ``/facts.txt`` for programs.  The console says ``PANLOOM stage=…`` as the
image's does; under load also ``PANLOOM wrote=EPOCH:NUMBER`` for each write that was acknowledged, and ``PANLOOM
fault=…`` for what the disk should not have said.
"""

import asyncio
import itertools
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv4Address, IPv4Interface

from panloom.decide.personality import SIZE_OCTETS, settings_of
from panloom.errors import MalformedError
from panloom.initiator import Session
from panloom.lab import disk_marks
from panloom.lab.attachment import Attachment
from panloom.lab.board import Board
from panloom.lab.disk_marks import Mark
from panloom.lab.emulated_lans import keep_lans
from panloom.lab.firmware import Disk, bind, interface_of, log_in
from panloom.node.agent import REPORT_SECONDS, Voice
from panloom.values import Iqn, MacAddress
from panloom.wire.dhcp import Option

LINUX_ISID = bytes.fromhex("00023d000001")  # open-iscsi's kind, RFC 7143 section 11.12.5
PERSONALITY_ISID = bytes.fromhex("00023d000002")
_HTTP_PORT = 80
_REQUEST_OCTETS = 4096
_REQUEST_SECONDS = 5.0


class OperatingSystem:
    """One boot of a server on a machine.

    ``say`` is the console; ``load_seconds`` is the pause between two writes, 0 for none at all.  ``session`` is that of
    firmware with the disk, where the system goes on with it.
    """

    def __init__(
        self,
        board: Board,
        disk: Disk,
        say: Callable[[str], None],
        *,
        load_seconds: float,
        session: Session | None = None,
    ) -> None:
        self._session = session
        self._board = board
        self._disk = disk
        self._say = say
        self._load_seconds = load_seconds
        self._began = time.monotonic()
        self._settings: Mapping[str, str] = {}
        self._server = ""
        self._epoch = 0
        self._boots = 0
        self._address = ""

    async def run(self) -> None:
        """Be the server until cancelled."""
        self._stage("kernel")
        identity = self._attachment(Iqn(f"{self._disk.target}.personality"), PERSONALITY_ISID)
        root = self._attachment(self._disk.target, LINUX_ISID, self._session)
        async with identity, asyncio.TaskGroup() as group:
            group.create_task(identity.keep())
            self._settings = settings_of(await identity.read(0, 0, SIZE_OCTETS))
            self._server = f"{self._settings['PAN']}/{self._settings['SERVER']}"
            self._epoch = int(self._settings["EPOCH"])
            async with root:
                self._stage("login")
                group.create_task(root.keep())
                await self._be_server(root)

    def _attachment(self, target: Iqn, isid: bytes, session: Session | None = None) -> Attachment:
        def again() -> Awaitable[Session]:
            return log_in(self._board, self._disk, target=target, isid=isid)

        return Attachment(str(target), again, self._say, session)

    def _stage(self, stage: str) -> None:
        self._say(f"PANLOOM stage={stage} t={time.monotonic() - self._began:.2f}")

    async def _be_server(self, root: Attachment) -> None:
        self._boots = await self._count_boot(root)
        await self._make_nics()
        self._stage("userland")
        listener = self._board.socket(socket.AF_INET, socket.SOCK_STREAM, of_os=True)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier boot linger on
        listener.bind(("0.0.0.0", _HTTP_PORT))
        pages = await asyncio.start_server(self._converse, sock=listener)
        async with pages, asyncio.TaskGroup() as group:
            if self._settings.get("BEACON_ADDRESS"):
                mouth = self._board.socket(socket.AF_INET, socket.SOCK_DGRAM)
                group.create_task(self._send_beacons(mouth))
                group.create_task(keep_lans(self._board, mouth, self._settings, self._say))
            if self._load_seconds:
                group.create_task(self._write(root))
            await asyncio.Event().wait()

    # ── disk ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _count_boot(self, root: Attachment) -> int:
        """Add one to the count of boots, on the disk before anybody can read it from the page."""
        lun = self._disk.lun
        octets = await root.read(lun, disk_marks.BOOTS_OFFSET, disk_marks.MARK_OCTETS)
        before = self._readable(octets)
        boots = before.number + 1 if before is not None else 1
        mark = Mark(self._server, self._epoch, boots)
        await root.write(lun, disk_marks.BOOTS_OFFSET, mark.encode(), fua=True)
        return boots

    def _readable(self, octets: bytes) -> Mark | None:
        try:
            return Mark.decode(octets)
        except MalformedError as error:
            self._say(f"PANLOOM fault={error}")
            return None

    async def _write(self, root: Attachment) -> None:
        """Go round the ring, one write after the other, each on the disk before the next."""
        lun = self._disk.lun
        octets = await root.read(lun, disk_marks.RING_OFFSET, disk_marks.RING_MARKS * disk_marks.MARK_OCTETS)
        try:
            known = disk_marks.ring(octets)
        except MalformedError as error:
            self._say(f"PANLOOM fault={error}")
            known = {}
        for fault in disk_marks.faults(known, self._server):
            self._say(f"PANLOOM fault={fault}")
        newest = max(known, default=-1)
        self._say(f"PANLOOM found={known[newest].epoch}:{newest}" if known else "PANLOOM found=nothing")
        for number in itertools.count(newest + 1):
            mark = Mark(self._server, self._epoch, number)
            await root.write(lun, mark.offset, mark.encode(), fua=True)
            self._say(f"PANLOOM wrote={self._epoch}:{number}")
            await asyncio.sleep(self._load_seconds)

    # ── network ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _make_nics(self) -> None:
        for number in range(int(self._settings["NICS"])):
            facts = {name: self._settings[f"NIC{number}_{name}"] for name in ("MAC", "ADDRESS", "PREFIX", "ROUTER")}
            mac = MacAddress.parse(facts["MAC"])
            name = await self._board.make_os_nic(number, mac)
            if facts["ADDRESS"]:
                address = IPv4Interface(f"{facts['ADDRESS']}/{facts['PREFIX']}")
                router = IPv4Address(facts["ROUTER"]) if facts["ROUTER"] else None
            else:
                await self._board.raise_os_nic(name)
                ack = await bind(self._board, name, mac, {}, of_os=True)
                address = interface_of(ack)
                packed = ack.options.get(Option.ROUTER, b"")[:4]
                router = IPv4Address(packed) if packed else None
            await self._board.give_os_address(name, address, router)
            if number == 0:
                self._address = str(address.ip)

    async def _send_beacons(self, mouth: socket.socket) -> None:
        """Be the agent: a report first, then beacons."""
        voice, seconds = Voice(self._settings), float(self._settings.get("BEACON_SECONDS", "1"))
        to = (self._settings["BEACON_ADDRESS"], int(self._settings["BEACON_PORT"]))
        report_at = float("-inf")
        with mouth:
            while True:
                datagram, now = voice.beacon(time.time()), time.monotonic()
                if now >= report_at:
                    datagram, report_at = (
                        voice.report(("system=emulated", "kernel=emulated"), time.time()),
                        now + REPORT_SECONDS,
                    )
                try:
                    mouth.sendto(datagram, to)
                except OSError:  # nobody listens there just now
                    pass
                await asyncio.sleep(seconds)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                words = (await reader.readline())[:_REQUEST_OCTETS].split()
                while (await reader.readline()).strip():
                    pass
                pages = {b"/": ("text/html", self._page()), b"/facts.txt": ("text/plain", self._facts())}
                kind, text = pages.get(words[1] if len(words) > 1 else b"", ("", ""))
                status = "200 OK" if kind else "404 Not Found"
                head = (
                    f"HTTP/1.0 {status}\r\nContent-Type: {kind or 'text/plain'}\r\nContent-Length: {len(text)}\r\n\r\n"
                )
                writer.write((head + text).encode())
                await writer.drain()
        except (OSError, ValueError):  # its caller went away, took too long or sends no lines
            pass
        finally:
            writer.close()

    def _facts(self) -> str:
        settings = self._settings
        return (
            f"server={self._server}\nepoch={self._epoch}\nnode={settings['NODE']}\nboots={self._boots}\n"
            f"mac={settings.get('NIC0_MAC', '')}\naddress={self._address}\nkernel=emulated\n"
        )

    def _page(self) -> str:
        settings = self._settings
        return (
            f"<!doctype html>\n<title>{self._server}</title>\n<h1>{self._server}</h1>\n"
            f"<p>Boot <b>{self._boots}</b> of this disk, on node <b>{settings['NODE']}</b>,"
            f" at epoch <b>{self._epoch}</b>.</p>\n"
            f"<p>{self._address} at {settings.get('NIC0_MAC', '')}, emulated;"
            f" the same <a href=facts.txt>as plain text</a></p>\n"
        )
