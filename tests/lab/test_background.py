"""`panloom lab`: a chassis that outlives its command, can be pointed at, killed in any part, and leaves nothing."""

import json
import os
import select
import signal
import subprocess
from pathlib import Path

import pytest

from panloom.errors import ConfigError, ConflictError, UnavailableError
from panloom.lab.chassis import Chassis
from panloom.lab.whereabouts import LOCK, RECORD, Whereabouts
from support.lab import ONE, pan
from support.lab_commands import LabCommands
from support.traces import kill_marked, marked, start
from support.waiting import until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def lab(tmp_path):
    made = LabCommands(tmp_path / "lab")
    yield made
    kill_marked()


def test_up_look_act_and_down(lab):
    assert lab.run("lab", "status", code=1)[1].startswith(f"no lab is up in {lab.directory}; start one: panloom lab up")
    said, told = lab.run("lab", "up", "--nodes", "4")
    assert "4 nodes, off: 4 emulated" in said
    assert f"export PANLOOM_SOCKET={lab.directory}/panloom.sock" in told
    off = {"kind": "emulated", "power": "off", "state": "spare", "server": None, "stage": None}
    assert lab.nodes() == {name: {"node": name, **off} for name in ("n1", "n2", "n3", "n4")}

    lab.apply(pan())
    victim = lab.until_up("shop/web1")["node"]
    lab.until_up("shop/web2")
    until(lambda: lab.nodes()[victim]["stage"] == "userland", "its beacon has come")
    in_use = {"node": victim, "kind": "emulated", "power": "on", "state": "in use", "server": "shop/web1"}
    assert lab.nodes()[victim] == {**in_use, "stage": "userland"}
    table = lab.run("lab", "status")[0].splitlines()
    assert table[0].split() == ["NODE", "KIND", "POWER", "STATE", "SERVER", "STAGE"]
    assert [victim, "emulated", "on", "in", "use", "shop/web1", "userland"] in [line.split() for line in table]
    (look,) = (line.partition(": ")[2] for line in told.splitlines() if line.startswith("Look at a page: "))
    page = subprocess.run(look.split(), capture_output=True, text=True, check=True)
    assert "server=shop/web1\n" in page.stdout

    assert lab.run("node", "power", "kill", victim)[0] == f"{victim}: power off\n"
    moved = lab.until_up("shop/web1", not_on=victim)["node"]
    free = sorted(name for name, row in lab.nodes().items() if row["state"] == "spare")
    assert victim in free
    assert moved not in free
    said, _ = lab.run("node", "power", "on", f"n[{','.join(name[1:] for name in free)}]")
    assert said == "".join(f"{name}: power on\n" for name in free)
    until(lambda: {lab.nodes()[name]["stage"] for name in free} == {"dhcp"}, "the spares ask to boot")
    assert lab.run("node", "power", "reset", victim)[0] == f"{victim}: power on\n"
    assert lab.run("node", "power", "off", victim)[0] == f"{victim}: power off\n"

    assert "a lab is up already (process " in lab.run("lab", "up", code=1)[1]
    assert lab.until_up("shop/web2"), "the lab that was there is not disturbed"
    said, _ = lab.run("lab", "down")
    assert said == "the lab is gone: 4 nodes, their disks, its processes\n"
    lab.assert_gone()
    assert lab.run("lab", "down")[0] == "no lab is up; nothing of one is left\n"


def test_whatever_process_is_killed_comes_back_and_down_removes_all(lab):
    lab.run("lab", "up", "--nodes", "2")
    lab.apply(ONE)
    lab.until_up("shop/web1")
    for name in ("control", "storage", "supervisor"):
        old = until(lambda name=name: lab.processes().get(name), f"the {name} process is there")
        os.kill(old, signal.SIGKILL)
        until(lambda name=name, old=old: lab.processes().get(name, old) != old, f"the {name} process is there again")
        until(lab.answers, "it answers")
        lab.until_up("shop/web1")
    old = lab.processes()["control"]
    os.kill(old, signal.SIGKILL)
    lab.run("lab", "down")
    lab.assert_gone()


@pytest.mark.parametrize("then", ["down", "up"])
def test_a_lab_whose_first_process_was_killed_is_gone_and_stands_in_nobody_s_way(lab, then):
    lab.run("lab", "up", "--nodes", "2")
    os.kill(lab.first(), signal.SIGKILL)
    until(lambda: not marked(), "all its processes are gone")
    lab.run("lab", "status", code=1)
    if then == "up":
        lab.run("lab", "up", "--nodes", "1")
        assert list(lab.nodes()) == ["n1"]
    lab.run("lab", "down")
    lab.assert_gone()


def test_a_lab_that_is_told_to_end_by_a_signal_leaves_nothing(lab):
    lab.run("lab", "up", "--nodes", "2")
    os.kill(lab.first(), signal.SIGTERM)
    lab.assert_gone()


@pytest.mark.parametrize(
    ("sign", "how"),
    [
        ("", signal.SIGINT),
        ("lab", signal.SIGKILL),
        ("lab", signal.SIGINT),
        ("supervisor", signal.SIGINT),
        ("supervisor", signal.SIGKILL),
        ("control", signal.SIGTERM),
    ],
)
def test_cut_off_while_it_starts_it_leaves_nothing(lab, sign, how):
    """``sign``: what is there when the signal comes: nothing yet, the lab's record, one of its processes."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = start("lab", "up", "--nodes", "26", "--directory", lab.directory, **quiet)
    try:
        if sign == "lab":
            until(lambda: (lab.directory / RECORD).exists(), "its record is there")
        elif sign:
            until(lambda: sign in lab.processes(), f"the {sign} process is there")
        process.send_signal(how)
        status = process.wait(30)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    # At once means that Python itself may not have begun yet, or just has: it ends as any program of its does then.
    at_once = set() if sign else {1}
    assert status in ({-how} if how is signal.SIGKILL else {130, -how} | at_once)
    until(lambda: not marked(), "all its processes are gone")
    if how is signal.SIGKILL:
        lab.run("lab", "down")  # nobody was left to remove the files
    lab.assert_gone()


def test_down_ends_a_lab_that_is_starting(lab):
    process = start("lab", "up", "--nodes", "26", "--directory", lab.directory, stdout=subprocess.DEVNULL)
    until(lambda: (lab.directory / RECORD).exists(), "its record is there")
    lab.run("lab", "down")
    assert process.wait(10) == 130
    lab.assert_gone()


def test_it_keeps_no_file_of_its_caller_open(lab):
    reading, writing = os.pipe()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = start("lab", "up", "--nodes", "1", "--directory", lab.directory, pass_fds=[writing], **quiet)
    os.close(writing)
    try:
        assert process.wait(30) == 0
        assert select.select([reading], [], [], 0)[0], "nobody has the other end any more"
    finally:
        os.close(reading)
    assert list(lab.nodes()) == ["n1"]
    lab.run("lab", "down")
    lab.assert_gone()


def test_what_it_tells_to_run_finds_the_lab_it_speaks_of(lab):
    there = f" --directory {lab.directory}"
    _, told = lab.run("lab", "status", "--directory", lab.directory, code=1, PANLOOM_LAB="")
    assert told == f"no lab is up in {lab.directory}; start one: panloom lab up{there}\n"
    _, told = lab.run("lab", "up", "--nodes", "1", "--directory", lab.directory, PANLOOM_LAB="")
    assert told.splitlines()[-2:] == [
        f"See its machines: panloom lab status{there}",
        f"And end it: panloom lab down{there}",
    ]
    _, told = lab.run("lab", "up", "--directory", lab.directory, code=1, PANLOOM_LAB="")
    assert f"see: panloom lab status{there}, end it: panloom lab down{there}" in told
    _, told = lab.run("lab", "up", "--directory", lab.directory, code=1)
    assert "see: panloom lab status, end it: panloom lab down" in told, "the environment names it for them"
    lab.run("lab", "down")
    lab.assert_gone()


def test_of_two_at_once_one_is_up(lab):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    both = [start("lab", "up", "--nodes", "1", "--directory", lab.directory, **quiet) for _ in range(2)]
    assert sorted(process.wait(30) for process in both) == [0, 1]
    assert list(lab.nodes()) == ["n1"]
    lab.run("lab", "down")
    lab.assert_gone()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("up --nodes 0", "nodes: 0 do not fit into a chassis; it takes 1 to 180"),
        ("up --nodes 181", "nodes: 181 do not fit into a chassis; it takes 1 to 180"),
        ("up --nodes -1", "nodes: -1 do not fit into a chassis"),
        ("up --nodes many", "'many' is not a valid integer"),
        ("up --qemu 4", "qemu: 4 of 3 nodes cannot be QEMU's"),
        ("up --qemu -1", "qemu: -1 of 3 nodes cannot be QEMU's"),
        ("up 26", "unexpected extra argument"),
        ("up --directory /dev/null", "no lab can be kept in /dev/null: File exists"),
        ("up --directory /proc/nowhere", "no lab can be kept in /proc/nowhere: No such file or directory"),
        ("up --directory /sys/panloom", "no lab can be kept in /sys/panloom: Operation not permitted; run as root"),
        (f"up --directory /tmp/{'x' * 100}", "is too long for a socket in it; name a shorter one: --directory"),
        ("status --output xml", "'xml' is not one of"),
        ("dwon", "No such command 'dwon'"),
    ],
)
def test_awkward_input_gets_one_error_and_nothing_is_started(lab, words, why):
    _, told = lab.run("lab", *words.split(), code=1)
    assert why in told
    assert "Traceback" not in told
    lab.assert_gone()


def test_without_the_programs_that_qemu_needs_it_says_what_brings_them(lab):
    _, told = lab.run("lab", "up", "--qemu", "1", code=1, PANLOOM_PACKAGES="/nowhere")
    assert told.startswith(".cache/debian is missing; in a checkout: make setup-demo")
    lab.assert_gone()


def test_files_of_other_people_stay(lab):
    lab.directory.mkdir()
    other = lab.directory / "notes.txt"
    other.write_text("mine")
    lab.run("lab", "up", "--nodes", "1")
    lab.run("lab", "down")
    assert [path.name for path in lab.directory.iterdir()] == ["notes.txt"]


# ── whereabouts ──────────────────────────────────────────────────────────────────────────────────────────────────────


CHASSIS = Chassis.of(nodes=1, qemu=0)


def test_a_claim_is_one_process_s_until_it_forgets(tmp_path):
    place = Whereabouts(tmp_path / "lab")
    claim = place.claim()
    with pytest.raises(ConflictError, match="it is just starting"):
        place.claim()
    claim.note(os.getpid(), CHASSIS, Path("/run/panloom.sock"))
    assert place.record().chassis == CHASSIS
    assert place.socket.readlink() == Path(f"/proc/{os.getpid()}/root/run/panloom.sock")
    with pytest.raises(ConflictError, match=f"process {os.getpid()}, 1 nodes"):
        place.claim()
    claim.forget()
    assert list(tmp_path.iterdir()) == []
    place.claim().forget()


def test_who_has_forgotten_takes_nothing_from_the_next(tmp_path):
    place = Whereabouts(tmp_path / "lab")
    first = place.claim()
    (place.directory / LOCK).unlink()  # what another process of the same lab has done already
    second = place.claim()
    second.note(os.getpid(), CHASSIS, Path("/run/panloom.sock"))
    first.forget()
    assert place.record() is not None
    second.forget()


def test_a_process_that_has_the_number_of_a_dead_lab_is_not_taken_for_it(tmp_path):
    place = Whereabouts(tmp_path / "lab")
    claim = place.claim()
    claim.note(os.getpid(), CHASSIS, Path("/run/panloom.sock"))
    path = place.directory / RECORD
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"started": record["started"] - 1}))
    assert place.record() is None
    claim.let_go()
    assert place.end() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"pid": "1"}', "\0"])
def test_a_record_that_is_none_is_said_and_ends_nobody(tmp_path, text):
    place = Whereabouts(tmp_path / "lab")
    place.directory.mkdir()
    (place.directory / RECORD).write_text(text)
    with pytest.raises(UnavailableError, match=r"is no record of a lab .*; remove it"):
        place.record()


def test_a_place_that_cannot_be_one_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match=r"no lab can be kept in .*/file"):
        Whereabouts(tmp_path / "file").claim()
    with pytest.raises(ConfigError, match="is too long for a socket"):
        Whereabouts(tmp_path / ("x" * 120)).claim()
