"""Emulated machines under a real control node: they boot as QEMU's do, keep their disks, and die as machines die."""

import os
import signal
import socket
from pathlib import Path

import msgspec
import pytest

from panloom.lab.chassis import Chassis
from panloom.lab.disk_marks import faults
from panloom.lab.emulated import main
from support.lab import PATIENT, pan, running_lab
from support.waiting import until

pytestmark = pytest.mark.timeout(120)
SHARED, LONE = "n1", "n2"
WEB1, WEB2 = "10.1.0.11", "10.1.0.12"


def chassis():
    """Two machines, one of each kind, that write on their disks; web1 boots on the first, web2 on the second."""
    both = Chassis.of(nodes=2, qemu=0, load_seconds=0.02)
    shared, lone = both.machines
    return msgspec.structs.replace(both, machines=(shared, msgspec.structs.replace(lone, kind="lone")))


@pytest.fixture(scope="module")
def idle(tmp_path_factory):
    """A lab whose machines nobody uses yet."""
    with running_lab(tmp_path_factory.mktemp("emulated"), chassis=chassis()) as running:
        running.declare(liveness=PATIENT)
        yield running


@pytest.fixture(scope="module")
def lab(idle):
    idle.apply(pan())
    for server in ("shop/web1", "shop/web2"):
        idle.until_answers(server)
    return idle


def back(lab, server, epoch):
    """Wait until a server answers under a later epoch than ``epoch``; return its page."""
    return lab.until_answers(server, epoch=epoch + 1)


def epoch_of(lab, server):
    return lab.until_up(server)["epoch"]


def pid_of(lab, node):
    """Return the process of a lone machine that is on."""
    lines = (lab.lab.directory / "supervisor.log").read_text().splitlines()
    words = next(line for line in reversed(lines) if f"node={node} power=on" in line).split()
    pid = int(words[-1].removeprefix("pid="))
    assert node.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return pid


def boots_told(lab):
    """Return how often an operating system has started by now, on either machine."""
    said = [line for node in (SHARED, LONE) for line in lab.console(node)]
    return sum(line.startswith("PANLOOM stage=userland") for line in said)


def newest(lab, server):
    return max(lab.marks(server), default=-1)


@pytest.mark.parametrize("node", [SHARED, LONE])
def test_a_machine_that_nobody_uses_waits_and_gets_no_disk(idle, node):
    assert idle.power(node, "on") is True
    idle.until_event("waiting", node=node)
    assert idle.node(node)["state"] == "spare"
    assert idle.call(idle.lab.sessions_of(node)) == []
    assert idle.power(node, "off") is False
    path = idle.lab.directory / "console" / f"{node}.log"
    assert "stage=" not in path.read_text()
    path.unlink()


def test_its_agent_tells_what_system_runs_there(lab):
    row = until(lambda: (found := lab.server("shop/web1")).get("system") and found, "its agent has told of the system")
    assert (row["system"], row["kernel"], row["failed_units"]) == ("emulated", "emulated", [])


def test_it_boots_as_a_machine_of_qemu_does(lab):
    stages = ["power", "dhcp", "script", "login", "first read", "kernel", "userland"]
    for server, node, address in (("shop/web1", SHARED, WEB1), ("shop/web2", LONE, WEB2)):
        told = lab.events("boot", node=node, server=server, epoch=1)  # by network, storage and console: in no order
        assert sorted(event["text"] for event in told) == sorted(stages[1:])
        assert [stage for stage, _ in lab.node(node)["boot"]["stages"]] == stages
        page = lab.page(address)
        facts = {"server": server, "epoch": "1", "node": node, "boots": "1", "address": address, "kernel": "emulated"}
        assert page == {**facts, "mac": lab.server(server)["mac"][0]}


def test_its_serial_line_tells_every_stage_and_every_write(lab):
    for node, server in ((SHARED, "shop/web1"), (LONE, "shop/web2")):
        said = lab.console(node)
        assert said[:2] == [
            f"iPXE: {lab.node(node)['address']}/24 http://10.77.0.1:8080/boot",
            f"Panloom: {node} boots {server}, epoch 1",
        ]
        assert [line.partition(" t=")[0] for line in said[2:5]] == [
            f"PANLOOM stage={stage}" for stage in ("kernel", "login", "userland")
        ]
        assert said[5:7] == ["PANLOOM found=nothing", "PANLOOM wrote=1:0"]


def test_what_it_wrote_is_on_its_disk(lab):
    for node, server in ((SHARED, "shop/web1"), (LONE, "shop/web2")):
        until(lambda server=server: newest(lab, server) > 5, "it has written")
        numbers = [int(line.rpartition(":")[2]) for line in lab.console(node) if line.startswith("PANLOOM wrote=")]
        assert numbers == list(range(len(numbers)))
        assert faults(lab.marks(server), server, acknowledged=numbers[-1]) == ()


def test_its_page_is_for_people_too_and_there_is_no_other(lab):
    def ask(line):
        async def work():
            return await lab.lab._http_get(WEB1, line)

        return lab.call(work())

    assert "Boot <b>1</b> of this disk" in ask("/").decode()
    assert ask("/secrets") is None
    with socket_to(lab, WEB1) as visitor:
        visitor.sendall(b"\r\n\r\n")
        assert visitor.recv(100).startswith(b"HTTP/1.0 404")


def socket_to(lab, address):
    made = lab.inside.socket(lambda: socket.create_connection((address, 80), 5))
    made.settimeout(5)
    return made


def test_off_is_a_death_and_on_again_it_is_a_spare_that_may_be_used(lab):
    epoch, node = epoch_of(lab, "shop/web1"), lab.server("shop/web1")["node"]
    since = lab.last_event()
    assert lab.power(node, "off") is False
    assert lab.until_event("fence", after=since, server="shop/web1")["text"] == f"{node} is fenced: {node} is off"
    page = back(lab, "shop/web1", epoch)
    assert (page["node"], page["boots"]) == (node, "2")  # the only machine there is; the disk remembers


@pytest.mark.parametrize("server", ["shop/web1", "shop/web2"])
def test_a_reset_is_a_boot_like_any_other(lab, server):
    row = lab.until_up(server)
    boots, booted = int(lab.page(row["address"][0])["boots"]), boots_told(lab)
    assert lab.power(row["node"], "reset") is True
    page = back(lab, server, row["epoch"])  # quick machines boot once more before they are fenced
    assert int(page["boots"]) - boots == boots_told(lab) - booted > 0


def test_a_lone_machine_is_a_process_that_can_be_killed(lab):
    row = lab.until_up("shop/web2")
    before = pid_of(lab, LONE)
    since = lab.last_event()
    os.kill(before, signal.SIGKILL)
    assert lab.until_event("fence", after=since, server="shop/web2")["data"]["cause"] == f"{LONE} is off"
    back(lab, "shop/web2", row["epoch"])
    assert pid_of(lab, LONE) != before
    assert not Path(f"/proc/{before}").exists()


@pytest.mark.parametrize(("server", "node"), [("shop/web1", SHARED), ("shop/web2", LONE)])
def test_a_broken_machine_boots_only_once_it_is_mended(lab, server, node):
    row = lab.until_up(server)
    assert lab.power(node, "break") is False
    lab.until_event("powering", node=node, server=server, epoch=row["epoch"] + 1)
    until(lambda: lab.node(node)["power"] == "on", "it has power")
    said = lab.console(node)
    assert lab.power(node, "reset") is True
    assert lab.console(node) == said
    assert lab.power(node, "mend") is True
    assert lab.power(node, "reset") is True
    back(lab, server, row["epoch"])


@pytest.mark.parametrize(("server", "node"), [("shop/web1", SHARED), ("shop/web2", LONE)])
def test_a_machine_that_hangs_for_a_moment_goes_on_where_it_was(lab, server, node):
    row = lab.until_up(server)
    at = newest(lab, server)
    until(lambda: newest(lab, server) > at, "it writes")
    assert lab.power(node, "stop") is True
    still = until(lambda: (lambda seen: newest(lab, server) == seen and seen)(newest(lab, server)), "it hangs")
    assert lab.power(node, "continue") is True
    until(lambda: newest(lab, server) > still, "it writes again")
    assert lab.until_up(server)["epoch"] == row["epoch"]


def test_a_lone_machine_that_is_stopped_behind_everybody_s_back_is_found_silent(lab):
    row = lab.until_up("shop/web2")
    since = lab.last_event()
    os.kill(pid_of(lab, LONE), signal.SIGSTOP)
    cause = lab.until_event("fence", after=since, server="shop/web2")["data"]["cause"]
    assert cause.startswith("nothing heard for")
    back(lab, "shop/web2", row["epoch"])


@pytest.mark.parametrize("words", ["", "--name n1", "--name n1 --mac nonsense --namespaces 7,8"])
def test_the_program_of_a_lone_machine_refuses_nonsense(words, capsys):
    with pytest.raises(SystemExit) as left:
        main(words.split())
    assert left.value.code == 2
    assert "panloom.lab.emulated: error" in capsys.readouterr().err
