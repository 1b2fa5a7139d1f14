"""sd_notify, heard by a socket like the service manager's."""

import socket

import pytest

from panloom.notify import sd_notify


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_the_manager_hears_the_state(tmp_path, monkeypatch, kind):
    name = str(tmp_path / "notify") if kind == "path" else f"panloom-{tmp_path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name if kind == "path" else "\0" + name)
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name if kind == "path" else "@" + name)
        assert sd_notify("READY=1\nSTATUS=serving")
        assert manager.recv(100) == b"READY=1\nSTATUS=serving"


@pytest.mark.parametrize("address", [None, "", "nonsense", "/run/nobody-listens-here"])
def test_without_a_manager_nothing_happens(monkeypatch, address):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not sd_notify("READY=1")
