"""The TFTP server's sockets: port 69 for requests, one socket a transfer, connected to its client.

A connected socket hears nobody but its client, and hears when the client's port is closed.
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable
from ipaddress import ip_address

from panloom.boot.desk import BootDesk
from panloom.boot.file_root import FileRoot
from panloom.boot.interface import udp_socket
from panloom.decide.boot_answer import BootTable
from panloom.errors import PanloomError
from panloom.protocol.tftp_server import Transfer, open_transfer
from panloom.values import IpAddress
from panloom.wire import tftp
from panloom.wire.tftp import Error, ErrorCode

_LARGEST_DATAGRAM = 2048
_AT_A_TIME = 64
_TRANSFERS = 512
_TRANSFERS_OF_A_CLIENT = 8  # its oldest makes room for one more: who vanishes, or forges a source, costs no more
_Peer = tuple[str, int]
_log = logging.getLogger("panloom.boot")


class _Serving:
    """One transfer with its socket and its open file."""

    def __init__(self, transfer: Transfer, sock: socket.socket, file: int, over: Callable[[], None]) -> None:
        self.transfer = transfer
        self._sock = sock
        self._file = file
        self._over = over
        self._timer: asyncio.TimerHandle | None = None
        asyncio.get_running_loop().add_reader(sock, self._readable)
        self._flush()

    def close(self) -> None:
        """Let go of socket, file and timer."""
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()
        os.close(self._file)
        if self._timer is not None:
            self._timer.cancel()

    def _readable(self) -> None:
        try:
            self.transfer.receive(self._sock.recv(_LARGEST_DATAGRAM), now=time.monotonic())
        except BlockingIOError:
            return
        except OSError as error:  # ICMP: nobody is at the client's port any more
            self.transfer.abandon(error.strerror or str(error))
        self._flush()

    def _expire(self) -> None:
        self._timer = None
        self.transfer.handle_timer(now=time.monotonic())
        self._flush()

    def _flush(self) -> None:
        transfer, now = self.transfer, time.monotonic()
        while (wanted := transfer.octets_wanted()) is not None:
            try:
                octets = os.pread(self._file, wanted.octets, wanted.offset)
            except OSError as error:
                transfer.abandon(f"the file cannot be read: {error.strerror}")
                break
            transfer.supply(octets, now=now)
        for packet in transfer.packets_to_send():
            # What cannot be sent is lost like any datagram: the timer sends it again.
            with contextlib.suppress(OSError):
                self._sock.send(packet)
        if transfer.is_over:
            self._over()
        elif (deadline := transfer.deadline) is not None:
            if self._timer is not None and self._timer.when() <= deadline:
                return  # it goes off too early, finds nothing to do and comes back here
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_at(deadline, self._expire)


class TftpService:
    """Serves the files of one directory at one of our addresses until it is stopped."""

    def __init__(self, table: BootTable, address: IpAddress, files: FileRoot, desk: BootDesk) -> None:
        self._interface = table.interface
        self._address = address
        self._files = files
        self._desk = desk
        self._requests: socket.socket | None = None
        self._serving: dict[_Peer, _Serving] = {}

    async def start(self) -> None:
        """Listen; UnavailableError if the address is not there."""
        self._requests = udp_socket(self._interface, self._address, tftp.SERVER_PORT)
        asyncio.get_running_loop().add_reader(self._requests, self._readable, self._requests)

    async def stop(self) -> None:
        """Break off all transfers and close the sockets."""
        if self._requests is not None:
            asyncio.get_running_loop().remove_reader(self._requests)
            self._requests.close()
        self._requests = None
        for serving in self._serving.values():
            serving.close()
        self._serving.clear()

    def _readable(self, requests: socket.socket) -> None:
        for _ in range(_AT_A_TIME):
            try:
                octets, source = requests.recvfrom(_LARGEST_DATAGRAM)
            except BlockingIOError:
                return
            except OSError as error:
                _log.info("tftp=unread why=%r", str(error))
                return
            peer = source[:2]
            try:
                answer = self._open(octets, peer)
            except PanloomError as error:
                _log.info("tftp=refused peer=%s:%d why=%r", *peer, str(error))
                answer = Error(ErrorCode.ILLEGAL_OPERATION, "no request")
            if answer is not None:
                with contextlib.suppress(OSError):
                    requests.sendto(tftp.encode(answer), peer)

    def _open(self, octets: bytes, peer: _Peer) -> Error | None:
        """Begin what ``octets`` ask for; return the error to send, None if there is none."""
        if peer in self._serving:
            return None  # the same request again: the transfer's own timer repeats what was lost
        if not self._desk.is_customer(ip_address(peer[0])):
            _log.info("tftp=ignored peer=%s:%d why=%r", *peer, "of no network here")
            return None
        missing: list[str] = []

        def size_of(name: str) -> int | None:
            size = self._size_of(name)
            if size is None:
                missing.append(name)
            return size

        opened = open_transfer(octets, size_of, now=time.monotonic())
        if isinstance(opened, Error):
            if missing:
                self._desk.tell_file("no file", ip_address(peer[0]), missing[0], now=time.monotonic())
            _log.info("tftp=refused peer=%s:%d why=%r", *peer, opened.text)
            return opened
        transfer, file = opened
        if not self._make_room(peer):
            _log.info("tftp=refused peer=%s:%d why=%r", *peer, "too many transfers")
            return Error(ErrorCode.NOT_DEFINED, "too many transfers")
        path = self._files.find(file.name)
        if path is None:
            return Error(ErrorCode.FILE_NOT_FOUND, "no such file")
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            _log.info("tftp=refused peer=%s:%d name=%r why=%r", *peer, file.name, error.strerror)
            return Error(ErrorCode.ACCESS_VIOLATION, "the file cannot be read")
        try:
            sock = udp_socket(self._interface, self._address, 0)
            sock.connect(peer)
        except (OSError, PanloomError) as error:
            os.close(descriptor)
            _log.info("tftp=refused peer=%s:%d why=%r", *peer, str(error))
            return Error(ErrorCode.NOT_DEFINED, "no port is free")
        self._serving[peer] = _Serving(transfer, sock, descriptor, lambda: self._end(peer))
        return None

    def _make_room(self, peer: _Peer) -> bool:
        """End a transfer where there are too many: the client's own oldest, or the oldest that nobody has answered."""
        mine = [other for other in self._serving if other[0] == peer[0]]
        if len(mine) >= _TRANSFERS_OF_A_CLIENT:
            self._abandon(mine[0], "the client asked for more than it finished")
        if len(self._serving) < _TRANSFERS:
            return True
        unanswered = (other for other, serving in self._serving.items() if not serving.transfer.is_answered)
        oldest = next(unanswered, None)
        if oldest is not None:
            self._abandon(oldest, "the client has never answered, and others ask")
        return oldest is not None

    def _abandon(self, peer: _Peer, why: str) -> None:
        self._serving[peer].transfer.abandon(why)
        self._end(peer)

    def _size_of(self, name: str) -> int | None:
        path = self._files.find(name)
        try:
            return path.stat().st_size if path is not None else None
        except OSError:
            return None

    def _end(self, peer: _Peer) -> None:
        serving = self._serving.pop(peer)
        serving.close()
        for end in serving.transfer.events():
            _log.info(
                "tftp=%s peer=%s:%d name=%r octets=%d why=%r",
                *("broken" if end.why else "sent", *peer, end.name, end.sent_octets, end.why),
            )
            said, now = "file" if not end.why else "broken file", time.monotonic()
            if not end.why or end.sent_octets or end.is_silence:  # ROMs ask for a file's size alone, and leave
                why = f"{end.name}: {end.why}" if end.why else end.name
                self._desk.tell_file(said, ip_address(peer[0]), why, now=now)
