"""The agent as a server runs it: a file of its own, its datagrams as the control node reads them, whatever is amiss."""

import itertools
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from importlib.resources import files

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.decide.inventory import MOST_UNITS, hardware_of_inventory, system_of_report
from panloom.decide.personality import settings_of
from panloom.node import agent
from panloom.wire.beacon import Beacon
from support.identities import KEY, WEB1
from support.waiting import until

PROGRAM = str(files("panloom.node").joinpath("agent.py"))
SETTINGS = settings_of(WEB1.to_octets())
DEADLINE = 30.0
A_DAY = 86400.0


def heard(datagram, key=WEB1.beacon_key):
    beacon = Beacon.decode(datagram)
    assert (beacon.server, beacon.epoch, beacon.is_under(key)) == ("shop/web1", 7, True)
    return beacon


@pytest.fixture
def root(tmp_path):
    """A system whose kernel tells of a small machine."""
    told = {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: Emulated 3000\n",
        "sys/devices/system/memory/block_size_bytes": "8000000\n",
        "sys/devices/system/memory/memory0/online": "1\n",
        "sys/devices/system/memory/memory1/online": "1\n",
        "sys/class/dmi/id/sys_vendor": "QEMU\n",
        "sys/class/net/eth0/address": "52:54:00:77:00:01\n",
        "sys/class/net/eth0/carrier": "1\n",
        "sys/class/net/eth0/device/uevent": "",
        "sys/class/net/lo/address": "00:00:00:00:00:00\n",
        "sys/block/sda/size": "2097152\n",
        "sys/block/sda/device/model": "PANLOOM\n",
        "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
        "run/panloom/failed-units": "nginx.service\nbackup.timer\n",
        "dev/console": "",
    }
    for path, text in told.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


@pytest.fixture
def ears(root, tmp_path):
    """The control node's ear and systemd's; the personality that leads to the one."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
    ):
        control.bind(("127.0.0.1", 0))
        systemd.bind(str(tmp_path / "notify"))
        control.settimeout(DEADLINE)
        systemd.settimeout(DEADLINE)
        give_personality(root, control.getsockname()[1])
        yield control, systemd


def give_personality(root, port, address="127.0.0.1"):
    text = WEB1.to_octets().decode()
    text = text.replace("BEACON_ADDRESS='10.77.0.1'", f"BEACON_ADDRESS='{address}'")
    text = text.replace("BEACON_PORT='7077'", f"BEACON_PORT='{port}'").replace("SECONDS='1'", "SECONDS='0.05'")
    (root / "run/panloom/personality").write_text(text)


@contextmanager
def running(root, *before):
    """The program, alone: Python finds nothing of Panloom, nor of what is installed beside it."""
    environment = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(root / "notify")}
    command = (*before, sys.executable, "-IS", PROGRAM, str(root))
    with subprocess.Popen(command, env=environment, cwd="/", stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def test_it_says_what_it_is_and_then_that_it_lives(root, ears):
    control, systemd = ears
    with running(root):
        first, *more = [heard(control.recv(4096)) for _ in range(4)]
        words = [systemd.recv(100) for _ in range(3)]
    assert [beacon.report for beacon in more] == [None] * 3
    assert all(one.counter < other.counter for one, other in itertools.pairwise((first, *more)))
    assert words == [b"READY=1\nWATCHDOG=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    report = first.report.decode()
    hardware, system = hardware_of_inventory(report), system_of_report(report, epoch=7, at=0.0)
    assert (hardware.processor, hardware.memory_octets, hardware.vendor) == ("Emulated 3000", 1 << 28, "QEMU")
    assert (hardware.nics, hardware.links) == (("52:54:00:77:00:01",),) * 2
    assert hardware.disks == ("sda 1 GiB PANLOOM",)
    assert (hardware.cores, hardware.architecture) == (os.cpu_count(), "x86-64")
    assert (system.system, system.kernel) == ("Debian GNU/Linux 12 (bookworm)", os.uname().release)
    assert system.failed_units == ("nginx.service", "backup.timer")


def test_units_that_failed_come_last_and_are_no_more_than_are_read(root):
    (root / "run/panloom/failed-units").write_text("".join(f"u{number}.service\n" for number in range(100)))
    lines = list(agent.report_of(root))
    failed = [line for line in lines if line.startswith("failed=")]
    assert len(failed) == MOST_UNITS
    assert lines[-MOST_UNITS:] == failed


def test_the_console_is_told_who_this_is_and_what_failed(root, ears):
    control, _ = ears
    with running(root):
        heard(control.recv(4096))
        console = (root / "dev/console").read_text()
    assert console == "\nPANLOOM units failed: nginx.service backup.timer\n"
    assert (root / "run/issue.d/panloom.issue").read_text() == "shop/web1 at 10.1.0.11, on node n1 (epoch 7)\n\n"


def test_a_unit_that_fails_later_is_told_at_once(root, ears):
    control, _ = ears
    with running(root):
        heard(control.recv(4096))
        (root / "run/panloom/failed-units.new").write_text("ssh.service\n")
        (root / "run/panloom/failed-units.new").replace(root / "run/panloom/failed-units")
        report = next(filter(None, (heard(control.recv(4096)).report for _ in itertools.count())))
    assert system_of_report(report.decode(), epoch=7, at=0.0).failed_units == ("ssh.service",)


def test_one_that_is_killed_or_paused_goes_on_where_it_was(root, ears):
    control, _ = ears
    with running(root):
        killed = max(heard(control.recv(4096)).counter for _ in range(3))
    control.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            killed = max(killed, heard(control.recv(4096)).counter)
    control.settimeout(DEADLINE)
    (root / "run/panloom/agent-counter").write_text(str(killed + 10**9))  # the clock was ahead then
    with running(root) as process:
        before = heard(control.recv(4096)).counter
        assert before == killed + 10**9 + 1
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
        assert heard(control.recv(4096)).counter > before


def test_garbage_in_its_notebook_is_no_reason_to_end(root, ears):
    (root / "run/panloom/agent-counter").write_text("\0\xff-1")
    with running(root):
        heard(ears[0].recv(4096))


@pytest.mark.parametrize("address", ["127.0.0.1", "240.0.0.1"], ids=["nobody listens", "no way there"])
def test_without_a_control_node_it_goes_on(root, ears, address):
    control, systemd = ears
    give_personality(root, control.getsockname()[1], address)
    control.close()
    with running(root) as process:
        assert [systemd.recv(100) for _ in range(5)][1:] == [b"WATCHDOG=1"] * 4
        assert process.poll() is None


def test_where_nothing_can_be_written_it_lives_and_leaves_nothing(root, ears):
    control, systemd = ears
    with running(root, "prlimit", "--fsize=0"):
        assert [heard(control.recv(4096)).counter for _ in range(3)]
        assert systemd.recv(100) == b"READY=1\nWATCHDOG=1"
        here = root / "run/panloom"
        until(lambda: {path.name for path in here.iterdir()} == {"failed-units", "personality"}, "nothing is left")


def test_without_a_personality_it_says_so(root):
    for text in (None, "PAN='shop'\n"):
        if text is not None:
            (root / "run/panloom/personality").write_text(text)
        done = subprocess.run((sys.executable, "-IS", PROGRAM, root), capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(f"panloom agent: {root}/run/panloom/personality: ")
        assert "the initramfs of the image writes it" in done.stderr


@given(st.lists(st.tuples(st.floats(-A_DAY, 1e18), st.booleans()), min_size=1, max_size=20), st.integers(0, 10**14))
def test_whatever_a_clock_shows_the_counter_grows_and_can_be_read(rounds, last):
    voice = agent.Voice(SETTINGS, last)
    for wall, reports in rounds:
        beacon = heard(voice.report(("arch=x86_64",), wall) if reports else voice.beacon(wall))
        assert last < beacon.counter == voice.counter
        last = beacon.counter


@given(st.lists(st.text(max_size=200), max_size=60))
def test_a_report_fits_into_a_frame_whatever_it_tells(lines):
    datagram = agent.Voice(SETTINGS).report(lines, 1.0)
    assert len(datagram) <= 1472  # Ethernet's 1500 without the heads of IPv4 and UDP
    assert len(heard(datagram).report) <= agent.LONGEST_REPORT


def test_a_report_is_of_its_server_epoch_and_words_alone():
    datagram = agent.Voice(SETTINGS).report(("system=Debian",), 1.0)
    for forged in (
        datagram.replace(b"Debian", b"Dobian"),
        datagram + b"failed=ssh.service\n",
        datagram.replace(b"web1 7", b"web1 8"),
        datagram.partition(b"\n")[0],
    ):
        assert not Beacon.decode(forged).is_under(WEB1.beacon_key)
    plain = heard(agent.Voice(SETTINGS).beacon(1.0))
    assert not msgspec.structs.replace(plain, report=b"system=Debian\n").is_under(WEB1.beacon_key)


def test_the_keys_of_the_document_are_none_of_its_business(root):
    assert KEY not in agent.banner(SETTINGS) + "".join(agent.report_of(root))
