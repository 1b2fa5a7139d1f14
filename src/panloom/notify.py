"""Tell systemd how a service is: ``READY=1``, ``STATUS=…``, ``STOPPING=1``, ``WATCHDOG=1`` (sd_notify(3))."""

import os
import socket


def sd_notify(state: str) -> bool:
    """Send ``state`` to the service manager; False if no one listens, which is no error outside systemd."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # an abstract socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(state.encode(), address)
        except OSError:
            return False
    return True
