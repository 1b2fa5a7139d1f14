"""How a portal is written: ``192.0.2.1:3260``, ``[2001:db8::1]:3260``."""

from ipaddress import ip_address


def parse_portal(text: str) -> tuple[str, int]:
    """Return address and port; ValueError says what is wrong."""
    host, _, port = text.rpartition(":")
    if host.startswith("[") != host.endswith("]"):
        raise ValueError(f"{text!r} has a bracket too few")
    address = str(ip_address(host.removeprefix("[").removesuffix("]")))
    if not port.isascii() or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError(f"{port!r} is no port")
    return address, int(port)


def portal_text(address: str, port: int) -> str:
    """Return what ``parse_portal`` reads."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
