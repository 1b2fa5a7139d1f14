"""``panloom doctor`` says what is there, what is not, and what brings it; it changes nothing."""

import errno
import json
import os
import socket
import subprocess
import sys

import pytest
import yaml
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from panloom.doctor import host, packages, service
from panloom.doctor.check import Check, Purpose, State, lacks
from panloom.storage import hot
from support.command_line import PANLOOM, CommandLine
from support.served import served


@pytest.fixture
def panloom(tmp_path):
    return CommandLine(tmp_path, tmp_path / "no.sock")


def test_what_a_power_driver_runs_is_looked_for_on_a_control_node():
    needed = {line.proof for line in packages.lines() if line.purpose is Purpose.CONTROL_NODE}
    assert "program:ipmitool" in needed


def doctor(line, *arguments, **environment):
    """Return exit status and the checks by name, of a machine whose directories are those of the test."""
    places = ("--directory", str(line.directory / "disks"), "--storage", str(line.directory / "storage.sock"))
    said = line("doctor", *places, *arguments, "-o", "json", **environment)
    told = json.loads(said.data)
    assert (told["state"] == "missing") == bool(said.code)
    return said.code, {check["what"]: check for check in told["checks"]}


def test_a_bare_machine_is_told_what_to_install(panloom):
    empty = panloom.directory / "empty"
    empty.mkdir()
    bare = {"PATH": str(empty), "PANLOOM_PACKAGES": str(empty), "PANLOOM_ACCELERATOR": "tcg"}
    code, checks = doctor(panloom, "--for", "tests", **bare)
    assert code == 1
    assert checks["libiscsi-bin"]["state"] == "missing"
    assert checks["qemu-utils"]["packages"] == ["qemu-utils", "qemu-block-extra"]
    said = panloom("doctor", "--for", "tests", **bare)
    assert said.code == 1
    (line,) = [line for line in said.talk.splitlines() if "apt-get" in line]
    assert line.startswith("Install what is missing: apt-get install --no-install-recommends atftp ")
    assert {"tgt", "qemu-block-extra", "zsh-common"} <= set(line.split())
    assert said.talk.splitlines()[-1].endswith(": scripts/setup test")


def test_what_is_wanted_for_decides(panloom):
    bare = {"PATH": "/nowhere", "PANLOOM_PACKAGES": "/nowhere", "PANLOOM_ACCELERATOR": "tcg"}
    assert doctor(panloom, "--for", "benchmarks", **bare)[0] == 1
    _, checks = doctor(panloom, "--for", "control-node", **bare)
    assert "qemu-system-x86" not in checks
    assert {check["purpose"] for check in checks.values()} == {"control-node"}


def test_the_forms_say_the_same(panloom):
    said = panloom("doctor", "--for", "control-node", "-o", "yaml")
    told = yaml.safe_load(said.data)
    assert (said.code == 1) == (told["state"] == "missing")
    table = panloom("doctor", "--for", "control-node").data
    for check in told["checks"]:
        assert f"  {check['state']:<7}  {check['what']}" in table
    assert table.startswith("control-node\n")
    assert "\x1b" not in table


def test_the_build_of_the_block_path_is_the_one_that_is_loaded(panloom, monkeypatch):
    _, checks = doctor(panloom, "--for", "control-node")
    assert checks["block path"]["found"].startswith(("pure Python build, ", "compiled build, "))
    monkeypatch.setattr(hot, "__file__", "/usr/lib/hot.abi3.so")
    assert hot.build() == "compiled"


def test_processes_that_answer_and_others(tmp_path):
    with served(tmp_path) as control:
        line = CommandLine(tmp_path, control)
        _, checks = doctor(line, "--for", "control-node")
        assert checks["control process"]["state"] == "ok"
        assert checks["control process"]["found"] == f"answers on {control}: not redundant"
        assert checks["storage process"]["state"] == "missing"
        assert checks["storage process"]["mend"] == "systemctl start panloom-storage"


def test_of_a_platform_with_another_socket_nothing_is_looked_for_in_the_system_s_places(tmp_path):
    with served(tmp_path) as control:
        asked = ("doctor", "--for", "control-node", "-o", "json")
        told = json.loads(CommandLine(tmp_path, control)(*asked).data)["checks"]
        rows = {check["what"] for check in told}
        assert "control process" in rows
        assert not rows & {"storage process", "disk directory", "file system", "holes", "reflink"}

        control.with_name("volumes").mkdir()
        link = tmp_path / "panloom.sock"
        link.symlink_to(f"/proc/{os.getpid()}/root{control}")  # as a lab's is
        with socket.socket(socket.AF_UNIX) as storage:
            storage.bind(str(control.with_name("storage.sock")))
            storage.listen()
            told = json.loads(CommandLine(tmp_path, link)(*asked).data)["checks"]
        found = {check["what"]: check for check in told}
        there = f"/proc/{os.getpid()}/root{control.parent}"
        assert (found["storage process"]["state"], found["storage process"]["found"]) == (
            "ok",
            f"listens on {there}/storage.sock",
        )
        assert found["disk directory"]["found"].startswith(f"{there}/volumes: ")


def test_where_nothing_was_set_up_nothing_is_missing(tmp_path):
    checks = service.checks(tmp_path / "c.sock", tmp_path / "s.sock", tmp_path / "deep" / "disks")
    states = {check.what: check.state for check in checks}
    assert (states["control process"], states["storage process"]) == (State.WITHOUT, State.WITHOUT)
    assert states["disk directory"] is State.OK
    assert states["holes"] in (State.OK, State.WITHOUT)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_without_room(tmp_path, monkeypatch):
    monkeypatch.setattr(service, "_LEAST_OCTETS", 1 << 62)
    _, _, space, *_ = service.checks(tmp_path / "c.sock", tmp_path / "s.sock", tmp_path)
    assert (space.state, space.mend) == (State.MISSING, "make room")


def test_doctor_and_setup_miss_the_same_device(panloom):
    hide = 'mount -t tmpfs none /dev/net && exec "$@"'
    hidden = ("unshare", "--mount", "bash", "-c", hide, "hidden")
    command = (*hidden, *PANLOOM, "doctor", "--for", "demo", "-o", "json")
    done = subprocess.run(
        command,
        env={**os.environ, "PANLOOM_ACCELERATOR": "tcg"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    checks = {check["what"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["/dev/net/tun"]["state"] == "missing"
    assert "modprobe tun" in checks["/dev/net/tun"]["mend"]


def test_every_line_of_the_packages_says_what_it_is_for():
    lines = packages.lines()
    assert {line.purpose for line in lines} == set(Purpose)
    for line in lines:
        assert line.packages
        assert line.what_for
        kind, _, name = line.proof.partition(":")
        assert (kind == "file") == line.is_file
        assert kind in ("program", "library", "file")
        assert name


def test_a_package_may_be_unpacked_only(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    program = tmp_path / "usr" / "sbin" / "in.tftpd"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    found = {check.what: check for check in packages.checks(tmp_path)}
    assert (found["tftpd-hpa"].state, found["tftpd-hpa"].found) == (State.OK, str(program))
    assert found["ipxe"].state is State.MISSING


def test_a_kernel_without_dummy_links_has_its_macvlan(monkeypatch):
    class WithoutDummy:
        def __enter__(self):
            self._route = IPRoute()
            return self

        def __exit__(self, *_error):
            self._route.close()

        def __getattr__(self, name):
            return getattr(self._route, name)

        def link(self, command, **what):
            if what["kind"] == "dummy":
                raise NetlinkError(errno.EOPNOTSUPP)
            return self._route.link(command, **what)

    monkeypatch.setattr(host, "IPRoute", WithoutDummy)
    (check,) = (check for check in host.checks() if check.what == "macvlan")
    assert check.state is State.OK


def test_only_what_is_needed_for_the_purpose_counts():
    missing = Check(Purpose.TESTS, "x", State.MISSING)
    without = Check(Purpose.DEMO, "y", State.WITHOUT)
    assert lacks((missing, without), Purpose)
    assert not lacks((missing, without), (Purpose.DEMO, Purpose.CONTROL_NODE))


def test_it_loads_nothing_of_the_host_before_it_is_asked():
    program = "import sys, panloom.command.doctor; print('pyroute2' in sys.modules)"
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
