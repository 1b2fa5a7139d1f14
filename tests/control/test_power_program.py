"""Drivers that run a program, against programs that do well, fail, hang, babble, and say what is not so."""

import asyncio
import stat
from pathlib import Path

import pytest

from panloom.control import power_program
from panloom.control.power_program import IpmiDriver, ScriptDriver
from panloom.errors import UnavailableError
from panloom.model.resources import IpmiPower, ScriptPower
from support.waiting import until

SWITCH = """
state="$(dirname "$0")/$2.state"
echo "$1" >> "$(dirname "$0")/$2.acts"
case $1 in
    on|off) echo "$1" > "$state" ;;
    status) cat "$state" ;;
esac
"""


def program(path, body):
    path.write_text(f"#!/bin/sh\n{body}")
    path.chmod(0o700)
    return path


def script(tmp_path, body):
    return ScriptDriver(ScriptPower(path=str(program(tmp_path / "power", body)), name="n1"))


def test_a_program_switches_a_machine(tmp_path):
    driver = script(tmp_path, SWITCH)
    asyncio.run(driver.on())
    assert asyncio.run(driver.status()) is True
    asyncio.run(driver.off())
    assert asyncio.run(driver.status()) is False
    asyncio.run(driver.reset())
    assert (tmp_path / "n1.acts").read_text().split() == ["on", "status", "status", "off", "status", "status", "reset"]


def test_off_is_believed_only_when_the_status_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(power_program, "REACH_SECONDS", 0.2)
    monkeypatch.setattr(power_program, "ASK_SECONDS", 0.01)
    with pytest.raises(UnavailableError, match="n1 was told to go off and is not off"):
        asyncio.run(script(tmp_path, "[ $1 = off ] || echo on").off())


def test_a_machine_that_goes_off_slowly_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(power_program, "ASK_SECONDS", 0.01)
    counts = (
        'here=$(dirname "$0"); [ $1 = off ] || '
        "{ echo x >> $here/n; [ $(wc -l < $here/n) -gt 3 ] && echo off || echo on; }"
    )
    asyncio.run(script(tmp_path, counts).off())
    assert len((tmp_path / "n").read_text().split()) == 4


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("echo no such blade >&2; exit 3", "n1: power status failed: no such blade"),
        ("exit 3", "n1: power status failed: exit code 3"),
        ("kill -9 $$", "n1: power status failed: exit code -9"),
        ("", "its power status is '', neither on nor off"),
        ("echo maybe", "its power status is 'maybe', neither on nor off"),
        (r"printf '\377\376'", "neither on nor off"),
    ],
)
def test_who_cannot_say_is_not_believed(tmp_path, body, why):
    with pytest.raises(UnavailableError) as error:
        asyncio.run(script(tmp_path, body).status())
    assert why in str(error.value)


def test_a_program_that_says_much_costs_little_and_its_last_word_counts(tmp_path):
    body = "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo Chassis Power is ON"
    assert asyncio.run(script(tmp_path, body).status()) is True


def test_a_program_that_hangs_is_ended_with_what_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(power_program, "CALL_SECONDS", 0.5)
    with pytest.raises(UnavailableError, match=r"status did not end within 0\.5 s"):
        asyncio.run(script(tmp_path, 'sleep 1000 & echo $! > "$(dirname "$0")/child"; wait').status())
    child = int((tmp_path / "child").read_text())
    until(lambda: state_of(child) in ("gone", "Z"), "its child is gone")


def state_of(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "gone"


def test_a_program_that_is_missing_or_may_not_be_run_is_named(tmp_path):
    for path, why in ((tmp_path / "none", "No such file"), (tmp_path / "text", "Permission denied")):
        (tmp_path / "text").write_text("")
        with pytest.raises(UnavailableError) as error:
            asyncio.run(ScriptDriver(ScriptPower(path=str(path), name="n1")).status())
        assert str(path) in str(error.value)
        assert why in str(error.value)


def ipmi(tmp_path, *, mode=0o600):
    password = tmp_path / "password"
    password.write_text("a secret")
    password.chmod(mode)
    return IpmiDriver(IpmiPower(address="10.9.0.11", user="panloom", password_file=str(password)))


def test_the_password_stands_in_no_argument(tmp_path):
    arguments = ipmi(tmp_path).arguments("off")
    assert arguments[-3:] == ("chassis", "power", "off")
    assert not any("a secret" in argument for argument in arguments)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_password_that_others_can_read_is_refused(tmp_path, mode):
    driver = ipmi(tmp_path, mode=mode)
    assert stat.S_IMODE((tmp_path / "password").stat().st_mode) == mode
    with pytest.raises(UnavailableError, match="can be read by others; mend it: chmod 600"):
        asyncio.run(driver.status())


def test_a_password_that_is_missing_is_named(tmp_path):
    driver = ipmi(tmp_path)
    (tmp_path / "password").unlink()
    with pytest.raises(UnavailableError, match=r"password cannot be read: No such file"):
        asyncio.run(driver.status())
