"""Consoles of real machines, at a real terminal: firmware, boot loader, kernel and login, by the command line."""

import os
import re
import signal
import subprocess
import termios

import pytest

from support.lab import pan, running_lab
from support.terminal import COMMAND, console

pytestmark = [pytest.mark.machine, pytest.mark.timeout(240)]


def replay(lab):
    done = subprocess.run(
        (*COMMAND, "n1", "--replay", "--speed", "0"),
        env={**os.environ, "PANLOOM_SOCKET": str(lab.lab.control_socket)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_cap_197_199_a_console_from_firmware_to_login_and_what_is_written_down_of_it(tmp_path):
    with running_lab(tmp_path) as lab, console(lab, "n1") as first:
        first.until(rb"n1: its console", "it opens while the machine is off")
        lab.power("n1", "on")
        first.until(rb"SeaBIOS", "the firmware speaks")
        first.until(rb"Ctrl-B", "the boot loader says how to stop it")
        first.type(b"\x02")
        first.until(rb"iPXE>", "typing has reached the boot loader")
        first.enter("show net0/mac")
        first.until(rb"52:54:00:77:00:01", "it answers")
        lab.apply(pan(servers="web1", address="10.1.0.11", more="node: n1"))
        first.enter("autoboot")
        first.until(rb"web1 login: ", "the system asks who is there")
        first.type(b"root\r")
        first.until(rb"/ # ", "a shell answers")
        first.type(b"echo $((6 * 7)) of $(hostname)\r")
        first.until(rb"\n42 of web1", "typing has reached the system")
        first.type(b"echo h > /proc/sysrq-trigger\r")
        first.until(rb"sysrq: HELP", "and the kernel, which speaks for itself")
        first.leave()
        lines = replay(lab)
        assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \S", line) for line in lines)
        assert lines == sorted(lines, key=lambda line: line[:23])
        written = "\n".join(lines)
        for said in ("SeaBIOS", "iPXE> show net0/mac", "login: root", "42 of web1", "sysrq: HELP"):
            assert said in written
        told = [(event["text"], event["data"]["who"]) for event in lab.events("console", node="n1")]
        assert told == [("looks and types", "root"), ("leaves", "root")]


def test_a_console_ends_with_the_control_process_and_says_so(tmp_path):
    with running_lab(tmp_path) as lab, console(lab, "n1") as terminal:
        terminal.until(rb"its console", "it is open")
        lab.call(lab.lab.kill("control"))
        terminal.until(rb"the control process has gone", "it says why it ends")
        assert terminal.process.wait(timeout=20) == 1
        assert b"Traceback" not in terminal.seen
        assert termios.tcgetattr(terminal.far)[3] == terminal.before[3]


def test_a_console_that_is_killed_gives_the_keyboard_back(tmp_path):
    with running_lab(tmp_path) as lab:
        with console(lab, "n1") as first:
            first.until(rb"its console\. Leave with \^\]\.\r", "it may type")
            os.kill(first.process.pid, signal.SIGKILL)
            first.process.wait()
        with console(lab, "n1") as second:
            second.until(rb"its console\. Leave with \^\]\.\r", "the next one may type")
            second.leave()


def test_a_second_one_sees_the_same_and_types_nothing(tmp_path):
    with running_lab(tmp_path) as lab, console(lab, "n1") as first:
        lab.power("n1", "on")
        first.until(rb"Ctrl-B", "the boot loader says how to stop it")
        first.type(b"\x02")
        first.until(rb"iPXE>", "typing has reached the boot loader")
        with console(lab, "n1") as second:
            second.until(rb"You read; somebody else types", "the second one reads")
            second.until(rb"iPXE>", "and sees what was said before")
            second.type(b"echo intruded\r")
            first.enter("echo both see this")
            second.until(rb"\nboth see this", "the second one sees what the first one does")
            second.leave()
        first.enter("echo still here")
        first.until(rb"\nstill here", "the first one goes on")
        assert b"intruded" not in first.seen
        first.leave()
