"""How portals are written, and which of them lead to ourselves."""

import socket
from pathlib import Path

import pytest

from panloom.storage.portals import leads_here, parse_portal, portal_text, send_unpaced


@pytest.mark.parametrize("text", ["192.0.2.1:3260", "[2001:db8::1]:3260"])
def test_decode_undoes_encode(text):
    assert portal_text(*parse_portal(text)) == text


@pytest.mark.parametrize(
    ("portal", "listened"),
    [
        ("192.0.2.1:3260", "192.0.2.1:3260"),
        ("[2001:0db8::1]:3260", "[2001:db8::1]:3260"),
        ("127.0.0.1:3260", "0.0.0.0:3260"),
        ("[::1]:3260", "[::]:3260"),
    ],
)
def test_a_portal_that_leads_to_ourselves(portal, listened):
    assert leads_here(parse_portal(portal), map(parse_portal, ["192.0.2.7:3260", listened]))


@pytest.mark.parametrize(
    ("portal", "listened"),
    [
        ("192.0.2.1:3261", "192.0.2.1:3260"),
        ("192.0.2.2:3260", "192.0.2.1:3260"),
        ("192.0.2.1:3260", "0.0.0.0:3260"),
        ("127.0.0.1:3261", "0.0.0.0:3260"),
        ("127.0.0.1:3260", "[::]:3260"),
    ],
    ids=["another port", "another address", "no address of ours", "another port of ours", "another family"],
)
def test_a_portal_that_leads_elsewhere(portal, listened):
    assert not leads_here(parse_portal(portal), [parse_portal(listened)])


@pytest.mark.parametrize("kind", Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split())
def test_connections_are_not_paced_and_else_as_the_system_has_them(kind):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, kind.encode())
        send_unpaced(listener)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as connection:
            used = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
    assert used in ({"cubic", "reno"} if kind == "bbr" else {kind})
