"""HTTP as octets: what a client sends that no library would, and every answer that comes of it."""

import re
import socket


def talk(connection, request, *, half=True):
    """Send octets and return all that comes back; with ``half`` the sending side is closed behind them."""
    answer = b""
    with connection:
        connection.settimeout(20)
        try:
            connection.sendall(request)
            if half:
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionError:
            pass  # it was refused while it was being sent
    return answer


def statuses(answer):
    """Return the status of each answer in a stream of them."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) [A-Z]", answer)]


def head(*lines, host=b"Host: x"):
    """Return a request's head of these lines; ``host`` empty leaves that line out."""
    return b"\r\n".join((lines[0], *((host,) if host else ()), *lines[1:])) + b"\r\n\r\n"
