"""``panloom target`` as a process: what it prints, whom it serves, and how it ends."""

import os
import re
import signal
import socket
import subprocess

import pytest

from support.command_line import PANLOOM
from support.initiator import Initiator, connect
from support.target_process import IQN, TargetProcess
from support.waiting import until

BLOCKS = 2048


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(BLOCKS * 512)
    return path


def refused(*arguments) -> str:
    """Return what is said by a target that does not start."""
    command = [*PANLOOM, "target", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "Traceback" not in ended.stderr
    return ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_ends_cleanly(disk, number):
    with TargetProcess(disk.parent, "--lun", f"1={disk}", portals=2) as target:
        assert len(set(target.ports)) == 2
        for port in target.ports:
            socket.create_connection(("127.0.0.1", port)).close()
        assert target.end(number) == 0
    assert target.told == ""
    with TargetProcess(disk.parent, "--lun", f"1={disk}") as again:
        assert again.end(number) == 0


def test_what_is_wrong_with_a_file_is_told(tmp_path, disk):
    odd, empty, mine = tmp_path / "odd", tmp_path / "empty", tmp_path / "mine"
    odd.write_bytes(bytes(700))
    empty.touch()
    mine.write_bytes(bytes(512))
    portal = ("--portal", "127.0.0.1:0")
    absent = tmp_path / "absent"
    assert refused(*portal, "--lun", f"1={absent}") == (
        f"{absent}: there is no such file; make one: truncate -s 1G {absent}\n"
    )
    assert "has 700 octets, not a whole number of blocks of 512" in refused(*portal, "--lun", f"1={odd}")
    assert f"truncate -s 1024 {odd}" in refused(*portal, "--lun", f"1={odd}")
    assert "is empty; give it a size" in refused(*portal, "--lun", f"1={empty}")
    assert "cannot be opened: Is a directory; name a file" in refused(*portal, "--lun", f"1={tmp_path}")
    assert "is neither a file nor a block device; name one" in refused(*portal, "--lun", "1=/dev/null")
    assert "there are no volumes; name the directory of a storage process" in refused(
        *portal, "--lun", "1=volume:web1", "--store", absent
    )


def test_what_each_disk_has_done_is_told_at_sigusr1(disk):
    with TargetProcess(disk.parent, "--lun", f"0={disk}", "--lun", "2=mem:1M") as target:
        names = {"InitiatorName": f"{IQN}.initiator", "TargetName": target.iqn, "SessionType": "Normal"}
        with Initiator(connect(f"127.0.0.1:{target.ports[0]}"), names) as session:
            session.log_in()
            for number in range(3):
                session.write(number, bytes(1024))
            session.read(0, 1)
        target.process.send_signal(signal.SIGUSR1)
        said = until(lambda: "LUN 2" in (text := target.said) and text.endswith(" ago)\n") and text, "it tells")
        assert target.end() == 0
    first, second = said.split("LUN ")[1:]
    assert first.startswith(f"0 {disk}\n")
    assert re.search(r"^  operations +4, 3\.5 KiB$", first, re.MULTILINE)
    assert re.search(r"^  reads +1, 512 B; half took .*s at most, 99 of 100 .*s$", first, re.MULTILINE)
    assert re.search(r"^  writes +3, 3 KiB; half took", first, re.MULTILINE)
    assert second.startswith("2 mem:1M\n")
    assert re.search(r"^  operations +0, 0 B$", second, re.MULTILINE)


def test_a_port_in_use_is_told(disk):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = refused("--portal", f"127.0.0.1:{port}", "--lun", f"1={disk}")
    assert told.startswith(f"--portal: cannot listen at 127.0.0.1:{port}: Address already in use; choose another port")
    told = refused("--portal", "192.0.2.1:3260", "--lun", f"1={disk}")
    assert "Cannot assign requested address; name an address of this machine" in told


def test_without_a_lun_it_says_what_is_missing():
    assert refused().startswith("--lun: there is none; say what to serve, like --lun 1=disk.img\n")


def test_all_that_is_wrong_is_told_at_once(disk):
    told = refused("--lun", f"1={disk}", "--lun", f"1={disk}", "--iqn", "disk", "--portal", "nowhere")
    assert [line.split(":")[0] for line in told.splitlines()[:-1]] == ["--iqn disk", "--portal nowhere", "--lun"]
    assert told.endswith("3 errors, nothing was changed.\n")


def test_a_listening_target_can_be_killed_and_comes_back_with_the_same_disk(disk):
    told = set()
    for _ in range(2):
        with TargetProcess(disk.parent, "--lun", f"7={disk}") as target:
            ended = subprocess.run(
                ["iscsi-inq", "-e", "1", "-c", "131", target.url(7)],
                capture_output=True, timeout=60, check=True,
            )  # fmt: skip
            told.add(ended.stdout)
            os.kill(target.process.pid, signal.SIGKILL)
            target.process.wait()
    assert len(told) == 1
    assert IQN in target.url(7)


def test_both_sides_prove_themselves(tmp_path, disk):
    secret = tmp_path / "secret"
    secret.write_text("initiators-secret\nus targets-own-secret\n")
    secret.chmod(0o600)
    with TargetProcess(tmp_path, "--lun", f"1={disk}", "--chap", f"web1:{secret}") as target:
        url = target.url(1, user="web1%initiators-secret")

        def inquiry(url):
            return subprocess.run(["iscsi-inq", url], capture_output=True, timeout=60, check=False)

        assert b"PANLOOM" in inquiry(url).stdout
        assert b"PANLOOM" in inquiry(f"{url}?target_user=us&target_password=targets-own-secret").stdout
        for wrong in (
            target.url(1),
            target.url(1, user="web1%another-secret"),
            f"{url}?target_user=us&target_password=another-secret",
        ):
            answered = inquiry(wrong)
            assert answered.returncode != 0
            assert b"PANLOOM" not in answered.stdout
