"""The supervisor with real machines that have nothing to boot from: power, faults, and callers that misbehave."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from panloom.lab.chassis import Chassis
from support.namespaces import namespace
from support.waiting import until

CHASSIS = Chassis.of(nodes=2)


class Caller:
    """One connection to the power socket."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")

    def send(self, octets):
        self._socket.sendall(octets)

    def receive(self):
        line = self._lines.readline()
        return json.loads(line) if line else None

    def call(self, **request):
        self.send(json.dumps(request).encode() + b"\n")
        return self.receive()

    def power(self, action, node="n1"):
        answer = self.call(id=7, call="power", node=node, action=action)
        assert answer.pop("id") == 7
        return answer.get("error") or answer["ok"]["power"]

    def close(self):
        self._lines.close()
        self._socket.close()


class Supervised:
    def __init__(self, directory, inside):
        self.directory = directory
        self.inside = inside
        self.path = directory / "power.sock"
        chassis = directory / "chassis.json"
        chassis.write_bytes(msgspec.json.encode(CHASSIS))
        options = ("--socket", self.path, "--chassis", chassis, "--console", directory / "console")
        command = (sys.executable, "-m", "panloom.lab.supervisor", *options)
        with (directory / "log").open("wb") as log:
            self.process = inside.start(*command, stderr=log)
        self._callers = []
        until(self._listens, "the supervisor listens")

    def _listens(self):
        try:
            return self.caller()
        except OSError:
            return None

    def caller(self):
        self._callers.append(Caller(self.path))
        return self._callers[-1]

    def machines(self):
        """Return name → process of every machine in this namespace that is on."""
        found = {}
        pids = subprocess.run(["ip", "netns", "pids", self.inside.name], capture_output=True, text=True, check=True)
        for pid in pids.stdout.split():
            try:
                name = Path(f"/proc/{pid}/comm").read_text().strip()
            except OSError:
                continue
            if name.startswith("panloom-n"):
                found[name.removeprefix("panloom-")] = int(pid)
        return found

    def close(self):
        for caller in self._callers:
            caller.close()


@contextmanager
def supervised(directory, *, ends_with=0):
    with namespace("supervisor") as inside:
        running = Supervised(directory, inside)
        try:
            yield running
        finally:
            running.close()
            running.process.terminate()
            assert running.process.wait(20) == ends_with


@pytest.fixture
def supervisor(tmp_path):
    with supervised(tmp_path) as running:
        yield running


def test_makes_the_chassis(supervisor):
    shown = supervisor.inside.run("ip", "-br", "address", "show", "dev", "lab0").stdout.decode()
    assert "10.77.0.1/24" in shown
    ports = supervisor.inside.run("ls", "/sys/class/net").stdout.decode().split()
    assert {"lab0", "n1", "n2"} <= set(ports)


def test_on_and_off(supervisor):
    caller = supervisor.caller()
    assert caller.power("status") == "off"
    assert caller.power("off") == "off"
    assert caller.power("on") == "on"
    console = supervisor.directory / "console" / "n1.log"
    until(lambda: console.exists() and b"iPXE" in console.read_bytes(), "the firmware speaks", seconds=30)
    machine = supervisor.machines()["n1"]
    assert caller.power("on") == "on"
    assert supervisor.machines() == {"n1": machine}
    assert caller.power("off") == "off"
    assert not Path(f"/proc/{machine}").exists()
    assert caller.power("status") == "off"


def test_reset_starts_from_the_firmware(supervisor):
    caller = supervisor.caller()
    caller.power("on")
    before = until(supervisor.machines, "n1 runs")
    assert caller.power("reset") == "on"
    after = until(supervisor.machines, "n1 runs again")
    assert after.keys() == before.keys()
    assert after != before
    console = supervisor.directory / "console" / "n1.log"
    until(lambda: b"SeaBIOS" in console.read_bytes(), "the firmware speaks", seconds=30)


def test_hung_machine_is_on_and_can_be_switched_off(supervisor):
    caller = supervisor.caller()
    assert caller.power("stop") == "n1 is off"
    caller.power("on")
    machine = until(lambda: supervisor.machines().get("n1"), "n1 runs")
    assert caller.power("stop") == "on"
    until(lambda: "State:\tT" in Path(f"/proc/{machine}/status").read_text(), "n1 hangs")
    assert caller.power("continue") == "on"
    until(lambda: "State:\tT" not in Path(f"/proc/{machine}/status").read_text(), "n1 goes on")
    assert caller.power("stop") == "on"
    assert caller.power("off") == "off"
    assert not Path(f"/proc/{machine}").exists()


def test_broken_switch(supervisor):
    caller = supervisor.caller()
    caller.power("on")
    caller.power("refuse")
    assert caller.power("off") == caller.power("reset") == "the power switch of n1 is broken"
    assert caller.power("status") == "on"
    assert caller.power("kill") == "off"
    assert caller.power("obey") == "off"
    assert caller.power("on") == "on"
    assert caller.power("off") == "off"


def test_broken_machine_has_power_and_runs_nothing_until_it_is_mended_and_switched_on_again(supervisor):
    watcher, caller = supervisor.caller(), supervisor.caller()
    watcher.call(id=1, call="watch")
    caller.power("on")
    until(supervisor.machines, "n1 runs")
    assert caller.power("break") == "off"
    assert caller.power("on") == caller.power("reset") == "on"
    assert caller.power("stop") == "n1 is broken"
    assert supervisor.machines() == {}
    assert caller.power("mend") == caller.power("on") == "on"
    assert supervisor.machines() == {}
    assert caller.power("reset") == "on"
    until(supervisor.machines, "n1 runs again")
    assert caller.power("off") == "off"
    told = [watcher.receive()["power"] for _ in range(8)]
    assert told == ["on", "off"] * 4


def test_watcher_sees_a_machine_die(supervisor):
    watcher, caller = supervisor.caller(), supervisor.caller()
    assert watcher.call(id=1, call="watch") == {"id": 1, "ok": {"n1": "off", "n2": "off"}}
    caller.power("on", "n2")
    on = watcher.receive()
    os.kill(until(lambda: supervisor.machines().get("n2"), "n2 runs"), signal.SIGKILL)
    off = watcher.receive()
    assert on["at"] < off.pop("at")
    assert off == {"event": "power", "node": "n2", "power": "off"}
    assert caller.power("status", "n2") == "off"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"\n", "no JSON object"),
        (b"power on\n", "no JSON object"),
        (b"[1]\n", "no JSON object"),
        (b"\xff\xfe\n", "no JSON object"),
        (b"{}\n", "a request is a call of"),
        (b'{"id": 1, "call": "power"}\n', "a request is a call of"),
        (b'{"call": "power", "node": "n9", "action": "on"}\n', "no machine 'n9'"),
        (b'{"call": "power", "node": ["n1"], "action": "on"}\n', "no machine ['n1']"),
        (b'{"call": "power", "node": "n1", "action": "explode"}\n', "does not know 'explode'"),
        (b'{"call": "power", "node": "n1", "action": 1}\n', ""),
    ],
)
def test_nonsense_gets_an_error_and_the_next_line_an_answer(supervisor, line, why):
    caller = supervisor.caller()
    caller.send(line)
    assert why in caller.receive()["error"]
    assert caller.power("status") == "off"


def test_endless_line_ends_its_caller_only(supervisor):
    endless, caller = supervisor.caller(), supervisor.caller()
    endless.send(b"x" * (1 << 17))
    assert endless.receive() is None
    assert caller.power("status") == "off"


def test_caller_that_leaves_disturbs_nobody(supervisor):
    watcher, caller = supervisor.caller(), supervisor.caller()
    watcher.call(id=1, call="watch")
    watcher.close()
    assert caller.power("on") == "on"
    assert caller.power("off") == "off"


def test_end_of_the_supervisor_is_the_end_of_its_machines(tmp_path):
    with supervised(tmp_path) as running:
        running.caller().power("on")
        machine = until(lambda: running.machines().get("n1"), "n1 runs")
    assert not Path(f"/proc/{machine}").exists()


def test_machines_do_not_outlive_a_killed_supervisor(tmp_path):
    with supervised(tmp_path, ends_with=-signal.SIGKILL) as running:
        running.caller().power("on")
        machine = until(lambda: running.machines().get("n1"), "n1 runs")
        running.process.kill()
        until(lambda: not Path(f"/proc/{machine}").exists(), "n1 is gone")
