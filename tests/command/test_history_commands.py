"""``panloom history``, ``rollback``, ``diff --from``, ``export``: what they print, and how they exit."""

import json
import os
import pty
import pwd
import sys
import time
from contextlib import contextmanager

import pytest
import yaml

from support.command_line import CommandLine
from support.served import served
from support.waiting import until


@contextmanager
def edited(directory):
    """Yield a command line after three revisions: the chassis, two servers, an edit of both."""
    with served(directory) as socket:
        line = CommandLine(directory, socket)
        assert line("apply", "lab.yaml").code == 0
        assert line("apply", "web.yaml").code == 0
        edit(line)
        assert line("apply", "web.yaml").code == 0
        yield line


@pytest.fixture
def panloom(tmp_path):
    with edited(tmp_path) as line:
        yield line


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Yield one for tests that change nothing."""
    with edited(tmp_path_factory.mktemp("told")) as line:
        yield line


def edit(line):
    path = line.directory / "web.yaml"
    path.write_text(path.read_text().replace("within: 10s", "within: 20s"))


def test_history_says_who_when_what_and_from_where(told):
    said = told("history", TZ="UTC")
    header, first, second, third = said.data.splitlines()
    assert header.split() == ["REVISION", "AT", "WHO", "WHAT", "CHANGES", "FROM"]
    me = pwd.getpwuid(os.geteuid()).pw_name
    assert first.split()[3:] == [me, "apply", "+5", "lab.yaml"]
    assert second.split()[3:] == [me, "apply", "+4", "web.yaml"]
    assert third.split()[3:] == [me, "apply", "~2", "web.yaml"]
    assert said.talk == "See one: panloom history 3\n"
    assert max(map(len, said.data.splitlines())) <= 80
    rows = json.loads(told("history", "-o", "json").data)
    assert yaml.safe_load(told("history", "-o", "yaml").data) == rows
    assert abs(rows[-1]["at"] - time.time()) < 600
    assert (rows[-1]["number"], rows[-1]["changes"]) == (3, ["~ server shop/web1", "~ server shop/web2"])
    assert "~ server shop/web1, ~ server shop/web2" in told("history", "-o", "wide").data


def test_one_revision_field_by_field(told):
    said = told("history", "3")
    assert said.data.splitlines()[1:4] == ["from web.yaml", "~ server shop/web1", "    failover.within  10 s  →  20 s"]
    assert said.talk == "Go back to before it: panloom rollback 2\n"
    assert told("history", "9").talk.startswith("revision 9: is not remembered; see those that are: panloom history")


def test_diff_between_revisions(told):
    for arguments in (("--from", "2"), ("--from", "2", "--to", "3")):
        said = told("diff", *arguments)
        assert (said.code, said.data.splitlines()[1]) == (2, "    failover.within  10 s  →  20 s")
    assert told("diff", "--from", "3") == (0, "No changes.\n", "")
    assert json.loads(told("diff", "--from", "1", "--to", "2", "-o", "json").data)["add"] == 4
    for wrong in ((), ("--to", "3"), ("--from", "2", "web.yaml")):
        assert "name files, or a revision" in told("diff", *wrong).talk


def test_rollback_shows_first_and_does_it_when_told(panloom):
    shown = panloom("rollback")
    assert shown.code == 2
    assert shown.data.splitlines() == [
        "  ~ server shop/web1   failover.within 20 s → 10 s",
        "  ~ server shop/web2   failover.within 20 s → 10 s",
        "Back to revision 2: 0 to add, 2 to change, 0 to remove.",
    ]
    assert shown.talk == "Do it: panloom rollback 2 --yes --expect 3\n"
    assert len(json.loads(panloom("history", "-o", "json").data)) == 3
    done = panloom("rollback", "2", "--yes", "--expect", "3")
    assert done.code == 0
    assert done.data.splitlines()[-1] == "Back to revision 2 as revision 4: 0 added, 2 changed, 0 removed."
    assert "rollback to 2" in panloom("history").data
    assert panloom("rollback", "2")[:2] == (0, "No changes.\n")
    late = panloom("rollback", "1", "--yes", "--expect", "3")
    assert (late.code, late.data) == (1, "")
    assert "revision 4 came meanwhile; look at it: panloom history 4" in late.talk
    assert panloom("rollback", "9").talk.startswith("revision 9: there is none; the last is 4\n")


def test_rollback_says_what_becomes_of_disks(panloom):
    gone = panloom("rollback", "1")
    assert "Kept, as no rollback takes a disk away: volume shop/web1, volume shop/web2.\n" in gone.talk
    panloom("delete", "server", "shop/web2")
    panloom("delete", "volume", "shop/web2", "--yes")
    back = panloom("rollback", "3", "-o", "json")
    assert (back.code, json.loads(back.data)["cloned_anew"]) == (2, ["shop/web2"])
    back = panloom("rollback", "3")
    assert "Destroyed since, and cloned anew from their image: the disks shop/web2.\n" in back.talk


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2)])
def test_rollback_asks_at_a_terminal(panloom, answer, code):
    process, terminal = pty.fork()
    if process == 0:
        environment = {"PANLOOM_SOCKET": str(panloom.socket), "TERM": "dumb", "PATH": os.environ["PATH"]}
        program = "from panloom.command import main; main(['rollback', '2'])"
        os.execve(sys.executable, (sys.executable, "-c", program), environment)
    said = b""

    def asked():
        nonlocal said
        said += os.read(terminal, 4096)
        return b"Do it? [y/N]" in said

    try:
        until(asked, "the question")
        os.write(terminal, answer.encode())
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == code
    finally:
        os.close(terminal)
    assert ("rollback to 2" in panloom("history").data) == (code == 0)


def test_what_is_exported_applies_to_no_changes(told):
    everything = told("export")
    assert everything.talk == ""
    assert told("plan", "-", stdin=everything.data)[:2] == (0, "No changes.\n")
    assert json.loads(told("export", "-o", "json").data) == list(yaml.safe_load_all(everything.data))
    for arguments in (("server", "shop/web1"), ("server/shop/web1",), ("servers",), ("pan/shop",), ("node", "n1")):
        said = told("export", *arguments)
        assert said.code == 0
        assert told("plan", "-", stdin=said.data)[:2] == (0, "No changes.\n")
    assert "within: 20s" in told("export", "server", "shop/web1").data
    assert "within" not in told("export", "server", "shop/web1", "--revision", "2").data
    assert "which its `disk:` describes" in told("export", "volumes").talk
    assert "did you mean `shop/web2`?" in told("export", "server", "shop/web3").talk
    assert "did you mean `servers`?" in told("export", "servrs").talk


def test_nothing_has_been_applied(tmp_path):
    with served(tmp_path) as socket:
        line = CommandLine(tmp_path, socket)
        assert line("history").talk.startswith("Nothing was applied yet.\n")
        assert line("rollback").talk.startswith("rollback: nothing was applied yet, so there is nothing to go back to")
        assert line("export") == (0, "", "")
