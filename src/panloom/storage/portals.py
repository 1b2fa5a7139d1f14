"""How a portal is written, ``192.0.2.1:3260`` or ``[2001:db8::1]:3260``, which ones are ours, and how they send."""

import socket
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address

from panloom.errors import ConfigError


def parse_portal(text: str) -> tuple[str, int]:
    """Return address and port; ValueError says what is wrong."""
    host, _, port = text.rpartition(":")
    if host.startswith("[") != host.endswith("]"):
        raise ValueError(f"{text!r} has a bracket too few")
    address = str(ip_address(host.removeprefix("[").removesuffix("]")))
    if not port.isascii() or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError(f"{port!r} is no port")
    return address, int(port)


def leads_here(portal: tuple[str, int], listened: Iterable[tuple[str, int]]) -> bool:
    """Whether who connects to a portal comes to one of those that are listened at, as far as this machine can tell.

    Not told is what other machines do to the address on the way, such as to translate it.
    """
    address, port = portal
    for our_address, our_port in listened:
        if port == our_port and (
            address == our_address
            or (ip_address(our_address).is_unspecified and _are_one_family(address, our_address) and _is_here(address))
        ):
            return True
    return False


def check_elsewhere(portal: str, listened: Iterable[str]) -> None:
    """Raise ConfigError for a portal to move to that is one of our own."""
    if leads_here(parse_portal(portal), map(parse_portal, listened)):
        why = "is this process itself, and initiators would go in a circle; name another"
        raise ConfigError("moved", f"{portal} {why}")


def send_unpaced(listener: socket.socket) -> None:
    """Have a listener's connections send what there is at once, where the system would have them use BBR.

    That paces what it sends by timers, for long ways with deep queues.  On a storage network it halves 1 MiB reads.
    """
    if listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).startswith(b"bbr"):
        for instead in (b"reno", b"cubic"):  # the second, which every Linux but the smallest has, if it can be had
            with suppress(OSError):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, instead)


def _are_one_family(one: str, other: str) -> bool:
    return ip_address(one).version == ip_address(other).version


def _is_here(address: str) -> bool:
    """Whether an address is of this machine: only such a one can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def portal_text(address: str, port: int) -> str:
    """Return what ``parse_portal`` reads."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
