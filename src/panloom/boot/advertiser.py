"""The router-advertisement responder: each solicitation of a machine that boots here is answered to it alone.

iPXE waits about 13 s for a router before it boots from IPv4.  The answer has a router lifetime of 0: nobody gets a
route from it.  Where the machine's network has a prefix, the answer says that this is on the link, and that DHCPv6 has
addresses of it; nobody makes itself one.
"""

import asyncio
import logging
import socket

from panloom.boot.desk import BootDesk
from panloom.boot.interface import DROP, JUMP_IF_EQUAL, KEEP, LOAD_OCTET, join, mac_of, packet_socket
from panloom.decide.boot_answer import BootTable
from panloom.errors import MalformedError
from panloom.values import MacAddress
from panloom.wire.internet import ETHERTYPE_IPV6
from panloom.wire.router_advertisement import (
    ALL_NODES,
    ALL_ROUTERS_MAC,
    Advertisement,
    decode_solicitation,
    encode_advertisement,
    link_local,
)

_LARGEST_FRAME = 2048
_ONLY_SOLICITATIONS = (
    (LOAD_OCTET, 0, 0, 20),  # IPv6 next header
    (JUMP_IF_EQUAL, 0, 3, 58),  # ICMPv6
    (LOAD_OCTET, 0, 0, 54),  # ICMPv6 type
    (JUMP_IF_EQUAL, 0, 1, 133),  # router solicitation
    KEEP,
    DROP,
)
_log = logging.getLogger("panloom.boot")


class Advertiser:
    """Answers router solicitations on one interface until it is stopped."""

    def __init__(self, table: BootTable, desk: BootDesk) -> None:
        self._interface = table.interface
        self._desk = desk
        self._frames: socket.socket | None = None
        self._mac = MacAddress(0)

    async def start(self) -> None:
        """Listen; UnavailableError if the interface is not there."""
        self._frames = packet_socket(self._interface, ETHERTYPE_IPV6, wanted=_ONLY_SOLICITATIONS)
        self._mac = mac_of(self._frames)
        join(self._frames, self._interface, ALL_ROUTERS_MAC)
        asyncio.get_running_loop().add_reader(self._frames, self._readable, self._frames)

    async def stop(self) -> None:
        """Close the socket."""
        if self._frames is not None:
            asyncio.get_running_loop().remove_reader(self._frames)
            self._frames.close()
        self._frames = None

    def _readable(self, frames: socket.socket) -> None:
        try:
            solicitation = decode_solicitation(frames.recv(_LARGEST_FRAME))
            mac = solicitation.source_mac
            link = self._desk.link(mac)
            if not self._desk.boots(mac) and (link is None or not self._desk.knows(mac)):
                return
            unspecified = not int(solicitation.source)  # RFC 4861 section 6.2.6: to all nodes, in a frame to one
            frames.send(
                encode_advertisement(
                    Advertisement(
                        destination_mac=mac,
                        source_mac=self._mac,
                        destination=ALL_NODES if unspecified else solicitation.source,
                        source=link_local(self._mac),
                        link=link,
                    )
                )
            )
        except MalformedError as error:
            _log.info("solicitation=dropped why=%r", str(error))
        except OSError as error:
            _log.info("solicitation=unanswered why=%r", str(error))
