"""The ipmi driver, through ipmitool, against OpenIPMI's simulated management controller in front of a QEMU machine."""

import asyncio
import os
import socket
import subprocess
from pathlib import Path

import pytest

from panloom.control import power_program
from panloom.control.power_program import IpmiDriver
from panloom.errors import UnavailableError
from panloom.model.resources import IpmiPower
from support.waiting import until

pytestmark = pytest.mark.machine

PASSWORD = "correct-horse"
CONTROLLER = """
name "n1"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control "{hook} 0x20"
  user 2 true "panloom" "{password}" admin 10 none md2 md5 straight
"""
ENVIRONMENT = """
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
"""
# What a chassis is to the controller: HOOK ADDRESS get|set NAME [VALUE] …
HOOK = """#!/bin/bash
cd {directory}
runs() { [[ -e pid ]] && kill -0 $(<pid) 2> /dev/null; }
off() { ! runs || [[ -e stuck ]] || { kill -9 $(<pid); while runs; do sleep 0.02; done; }; }
on() {
    runs && return
    setsid qemu-system-x86_64 -nodefaults -no-user-config -display none -M pc,graphics=off,usb=off -accel tcg -m 32 \\
        -serial file:console -monitor none -pidfile pid < /dev/null > /dev/null 2>&1 &
    until runs; do sleep 0.02; done
}
case "$2 $3 $4" in
    "get power "*) runs && echo power:1 || echo power:0 ;;
    "set power 1") on ;;
    "set power 0") off ;;
    "set reset "*) off; on ;;
esac
"""


class Controller:
    """A management controller on loopback, and the machine that it switches."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        hook = directory / "hook"
        hook.write_text(HOOK.replace("{directory}", str(directory)))
        hook.chmod(0o700)
        (directory / "lan.conf").write_text(CONTROLLER.format(port=self.port, hook=hook, password=PASSWORD))
        (directory / "environment").write_text(ENVIRONMENT)
        (directory / "state").mkdir()
        self.process = subprocess.Popen(
            ["ipmi_sim", "-c", "lan.conf", "-f", "environment", "-s", "state", "-n"],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def driver(self, password: str = PASSWORD) -> IpmiDriver:
        file = self.directory / "password"
        file.write_text(password)
        file.chmod(0o600)
        power = IpmiPower(
            address="127.0.0.1", port=self.port, user="panloom", password_file=str(file), cipher_suite=3
        )  # fmt: skip
        return IpmiDriver(power)

    def machine(self) -> int | None:
        """Return the pid of the machine, None when it is off."""
        try:
            pid = int((self.directory / "pid").read_text())
            name = Path(f"/proc/{pid}/comm").read_text()
        except (FileNotFoundError, ValueError):
            return None
        return pid if name.startswith("qemu") else None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        machine = self.machine()
        if machine is not None:
            os.kill(machine, 9)


@pytest.fixture
def controller(tmp_path):
    made = Controller(tmp_path)
    try:
        until(lambda: answers(made.driver()), "the management controller answers", seconds=30)
        yield made
    finally:
        made.close()


def answers(driver: IpmiDriver) -> bool:
    try:
        return not asyncio.run(driver.status())
    except UnavailableError:
        return False


def test_a_machine_is_switched_on_reset_and_off(controller):
    driver = controller.driver()
    assert controller.machine() is None
    asyncio.run(driver.on())
    first = controller.machine()
    assert first is not None
    console = controller.directory / "console"
    until(lambda: b"SeaBIOS" in console.read_bytes(), "the firmware speaks", seconds=30)
    asyncio.run(driver.on())
    assert controller.machine() == first
    asyncio.run(driver.reset())
    assert controller.machine() not in (None, first)
    assert asyncio.run(driver.status()) is True
    asyncio.run(driver.off())
    assert controller.machine() is None
    assert asyncio.run(driver.status()) is False
    asyncio.run(driver.off())


def test_a_machine_that_stays_on_is_not_called_off(controller, monkeypatch):
    driver = controller.driver()
    asyncio.run(driver.on())
    (controller.directory / "stuck").touch()
    monkeypatch.setattr(power_program, "REACH_SECONDS", 1.0)
    with pytest.raises(UnavailableError, match="was told to go off and is not off"):
        asyncio.run(driver.off())
    assert controller.machine() is not None


def test_a_wrong_password_and_a_dead_controller_are_told_and_never_taken_for_off(controller, monkeypatch):
    with pytest.raises(UnavailableError, match=r"power status failed: .*Unable to establish"):
        asyncio.run(controller.driver("wrong").status())
    controller.process.kill()
    controller.process.wait()
    monkeypatch.setattr(power_program, "CALL_SECONDS", 1.0)
    with pytest.raises(UnavailableError, match="did not end within 1 s"):
        asyncio.run(controller.driver().status())
