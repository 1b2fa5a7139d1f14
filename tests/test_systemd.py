"""The units: a restart of control takes nothing away from storage, and Type=notify hears what it waits for."""

import configparser
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = Path(__file__).parent.parent / "systemd"
NAMES = ("panloom-control.service", "panloom-storage.service")


def unit(name):
    parser = configparser.ConfigParser(strict=True, interpolation=None, delimiters=("=",))
    parser.optionxform = str
    parser.read(UNITS / name)
    return parser


def test_storage_depends_on_control_in_no_way():
    assert "panloom-control" not in " ".join(unit(NAMES[1])["Unit"].values())
    for dependency in ("Requires", "BindsTo", "PartOf", "Upholds", "Conflicts", "PropagatesStopTo"):
        assert dependency not in unit(NAMES[0])["Unit"]


@pytest.mark.parametrize("name", NAMES)
def test_stopping_one_leaves_the_other_its_directory(name):
    service = unit(name)["Service"]
    assert (service["RuntimeDirectory"], service["RuntimeDirectoryPreserve"]) == ("panloom", "yes")
    assert service["Restart"] == "always"


@pytest.mark.parametrize("name", NAMES)
def test_the_command_and_its_options_exist(name):
    program, *arguments = shlex.split(unit(name)["Service"]["ExecStart"])
    assert program == "panloom"
    command = [sys.executable, "-c", "from panloom.command import main; main()", *arguments[:1], "--help"]
    usage = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    for option in arguments[1:]:
        assert not option.startswith("--") or option in usage


def test_storage_says_when_it_is_ready_and_when_it_stops(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        arguments = ["--directory", tmp_path / "storage", "--socket", tmp_path / "sock", "--portal", "127.0.0.1:0"]
        process = subprocess.Popen(
            [sys.executable, "-m", "panloom.storage", *arguments],
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
            stderr=subprocess.DEVNULL,
        )
        try:
            assert manager.recv(100) == b"READY=1"
            assert (tmp_path / "sock").is_socket()
            process.send_signal(signal.SIGTERM)
            assert manager.recv(100) == b"STOPPING=1"
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
