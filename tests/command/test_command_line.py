"""``panloom`` as a process, against a real API on a real socket: what it prints where, and how it exits."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from panloom.command.get import seen
from support.command_line import CommandLine
from support.served import served
from support.waiting import until

ROOT = Path(__file__).parents[2]
SHOWN_BOOT = """\
boot of shop/web1, epoch 3, 2026-11-21 10:31:07: stopped after kernel
       0.0 s  power on
       2.4 s  DHCP
       2.4 s  script
       2.5 s  login
       2.6 s  first read
       5.9 s  kernel
  seen     9.1 s, console: Kernel panic - not syncing: VFS: Unable to mount root
           fs
  likely   the kernel finds no root file system: it lacks the disk's driver, or
           root= is wrong
  mend     give the image an initramfs that logs in to the disk, and the right
           root=
"""


@pytest.fixture(scope="module")
def applied() -> Iterator[CommandLine]:
    """Yield a command line whose control process has both files applied; tests with it change nothing."""
    with tempfile.TemporaryDirectory() as directory, served(Path(directory)) as socket:
        panloom = CommandLine(Path(directory), socket)
        assert panloom("apply", "lab.yaml", "web.yaml").code == 0
        yield panloom


@pytest.fixture
def panloom(tmp_path: Path) -> Iterator[CommandLine]:
    with served(tmp_path) as socket:
        yield CommandLine(tmp_path, socket)


def test_from_nothing_to_no_changes_and_back(panloom):
    assert panloom("apply", "lab.yaml").code == 0
    plan = panloom("plan", "web.yaml")
    assert plan.code == 2
    assert plan.data.splitlines() == [
        "  + pan shop",
        "  + lan shop/front     10.1.0.0/24",
        "  + server shop/web1   image web@1, 10.1.0.11   boots",
        "  + server shop/web2   image web@1, 10.1.0.12   boots",
        "Plan: 4 to add, 0 to change, 0 to remove; 2 servers boot.",
    ]
    assert plan.talk == "Apply it: panloom apply web.yaml\n"
    assert "clone of web@1, 512 MiB" in panloom("plan", "-o", "wide", "web.yaml").data
    done = panloom("apply", "web.yaml")
    assert (done.code, done.data.splitlines()[-1]) == (0, "Applied: 4 added, 0 changed, 0 removed; 2 servers boot.")
    assert done.talk == "Watch it: panloom get servers --watch\n"
    for command in ("plan", "diff", "apply"):
        assert panloom(command, "web.yaml")[:2] == (0, "No changes.\n")

    text = (panloom.directory / "web.yaml").read_text().replace("web[1-2]:", "web1:").replace("1[1-2]", "11")
    (panloom.directory / "web.yaml").write_text(text.replace("within: 10s", "within: 20s"))
    plan = panloom("plan", "web.yaml")
    assert plan.code == 2
    assert plan.data.splitlines()[0] == "  ~ server shop/web1   failover.within 10 s → 20 s"
    assert plan.data.splitlines()[1].startswith("  - server shop/web2   image web@1, 10.1.0.12")
    assert plan.data.splitlines()[1].endswith("its disk stays; destroy it: panloom delete volume shop/web2 --yes")
    assert plan.talk.endswith("Apply it: panloom apply --prune web.yaml\n")
    assert panloom("diff", "web.yaml").data.startswith("~ server shop/web1\n    failover.within  10 s  →  20 s\n")
    (panloom.directory / "web.yaml").write_text(text)
    kept = panloom("apply", "web.yaml")
    assert kept.data == "No changes.\n"
    assert kept.talk.startswith(
        "No longer named, but kept: server shop/web2. Remove it: panloom apply --prune web.yaml\n"
    )
    (panloom.directory / "web.yaml").write_text(text.replace("within: 10s", "within: 20s"))
    assert panloom("apply", "--prune", "web.yaml").data.endswith("0 added, 1 changed, 1 removed; 1 server stops.\n")
    assert "shop/web2" in panloom("get", "volumes").data


def test_a_volume_is_destroyed_only_by_its_own_command(panloom):
    panloom("apply", "lab.yaml", "web.yaml")
    used = panloom("delete", "volume", "shop/web1", "--yes")
    assert (used.code, used.data) == (1, "")
    assert "panloom delete server shop/web1" in used.talk
    assert panloom("delete", "server", "shop/web1").code == 0
    unsure = panloom("delete", "volume", "shop/web1")
    assert (unsure.code, unsure.data) == (1, "")
    assert "say so with --yes" in unsure.talk
    gone = panloom("delete", "volume", "shop.web1", "--yes")
    assert (gone.code, gone.data) == (
        0,
        "  - volume shop/web1   clone of web@1, 512 MiB\nDeleted: 0 added, 0 changed, 1 removed.\n",
    )


def test_every_mistake_is_said_with_its_place_and_the_count_last(applied):
    text = (ROOT / "examples" / "web.yaml").read_text()
    (applied.directory / "broken.yaml").write_text(text.replace("10.1.0.1[", "10.2.0.1[").replace("needs:", "needz:"))
    for command in ("plan", "diff", "apply"):
        said = applied(command, "broken.yaml")
        assert (said.code, said.data) == (1, "")
        lines = said.talk.splitlines()
        assert lines[0].startswith("broken.yaml:17:31: servers.web[1-2].nics[0].address: 10.2.0.11 is outside lan ")
        assert lines[2].startswith("broken.yaml:18:5: servers.web[1-2].needz: no such key; did you mean `needs`?")
        assert lines[3] == "3 errors, nothing was changed."


def test_tables(applied):
    servers = applied("get", "servers")
    header, first, _ = servers.data.splitlines()
    assert header.split() == ["PAN", "SERVER", "NODE", "STATE", "ADDRESS", "IMAGE", "DISK", "SINCE"]
    assert first.startswith("shop  web1    n1    up     10.1.0.11  web    512 MiB  3%")
    assert servers.talk == "See one: panloom show server shop/web1\n"
    assert applied("get", "nodes").data.splitlines()[1].split()[:1] == ["n1"]
    assert "EPOCH" in applied("get", "server", "-o", "wide").data
    for kind in ("images", "volumes", "pans", "lans", "platform", "events"):
        said = applied("get", kind)
        assert said.code == 0
        assert len(said.data.splitlines()) >= 2
        assert said.talk.count("panloom ") == 1


def test_forms_for_programs(applied):
    rows = json.loads(applied("get", "servers", "-o", "json").data)
    assert [row["name"] for row in rows] == ["shop/web1", "shop/web2"]
    assert yaml.safe_load(applied("get", "servers", "-o", "yaml").data) == rows
    assert json.loads(applied("show", "image", "web@1", "-o", "json").data)["source"] == "/srv/web.img"
    plan = applied("plan", "web.yaml", "-o", "json")
    assert (plan.code, json.loads(plan.data)["changes"], plan.talk) == (0, [], "")
    assert json.loads(applied("personality", "export", "shop/web1").data)["server"] == "shop/web1"


def test_show_a_node_with_the_stages_of_its_boot(applied):
    said = applied("show", "node", "n1", TZ="UTC", COLUMNS="80")
    assert "  memory   512 MiB\n" in said.data
    boot = said.data[said.data.index("boot ") :]
    assert boot == SHOWN_BOOT
    assert json.loads(applied("show", "node", "n1", "-o", "json").data)["boot"]["seen"]["source"] == "console"


def test_acts(applied):
    moved = applied("failover", "shop/web1")
    assert (moved.code, moved.data) == (0, "shop/web1 moves from n1: fence first, then a spare boots.\n")
    assert applied("node", "power", "off", "n1").data == "n1: power off\n"
    assert applied("node", "power", "on", "n2") == (1, "", "the power driver of n2 does not answer\n")
    assert applied("node", "approve", "52:54:00:00:00:09").data == "52:54:00:00:00:09: a spare\n"
    said = applied("node", "approve", "52:54:00:00:00:09", "--rule", "web")
    assert said.data == "52:54:00:00:00:09: becomes shop/web-9\n"
    assert applied("node", "approve", "52:54:00:00:00:09", "--rule", "web", "--spare").code == 1
    said = applied("node", "install", "52:54:00:00:00:09", "--image", "db", "--rule", "web")
    assert (said.data, said.talk) == (
        "52:54:00:00:00:09: becomes shop/web-db-9\n",
        "Follow it: panloom show node 52:54:00:00:00:09\n",
    )
    assert "--image" in applied("node", "install", "52:54:00:00:00:09").talk
    assert applied("node", "release", "n1").data == "n1: released\n"
    assert applied("status").data.startswith("not redundant\nPART")


def test_power_of_many_nodes_is_switched_and_each_failure_told(applied):
    said = applied("node", "power", "reset", "n[3-12]", "n1")
    assert (said.code, said.data.splitlines()) == (0, [f"n{number}: power on" for number in (*range(3, 13), 1)])
    assert said.talk == "See how it boots: panloom show node n3\n"
    said = applied("node", "power", "kill", "n[1-3]")
    assert (said.code, said.data) == (1, "n1: power on\nn3: power on\n")
    assert said.talk == "n2: the power driver of n2 does not answer\n"
    assert applied("node", "power", "off", "n[1,3]").data == "n1: power off\nn3: power off\n"
    said = applied("node", "power", "on", "n[4-1]")
    assert (said.code, said.data) == (1, "")
    assert "[4-1]: 4-1 runs backwards; write 1-4" in said.talk
    assert "'explode' is not one of 'on', 'off', 'reset', 'kill'" in applied("node", "power", "explode", "n1").talk


def test_one_reason_for_many_nodes_is_told_once(applied, tmp_path):
    said = applied("node", "power", "on", "n[1-3]", PANLOOM_SOCKET=str(tmp_path / "none"))
    assert (said.code, said.data) == (1, "")
    assert said.talk.startswith(f"n1, n2, n3: no control process listens on {tmp_path}/none")
    assert said.talk.count("\n") == 1


def test_stdin_and_directories_are_files_too(applied):
    said = applied("plan", "-", stdin="apiVersion: panloom/v1\nkind: PAN\nname: Upper\n")
    assert said.talk.startswith("stdin:3:7: name: 'Upper' is no name;")
    inside = applied.directory / "documents"
    inside.mkdir()
    assert "no file in it ends in .yaml or .yml" in applied("plan", "documents").talk
    (inside / "b.yaml").write_text("kind: PAM\n")
    (inside / "a.yml").write_text("kind: PAM\n")
    (inside / "notes.txt").write_text("not read")
    said = applied("plan", "documents")
    assert [line.split(":")[0] for line in said.talk.splitlines()[:2]] == ["documents/a.yml", "documents/b.yaml"]


def test_files_that_cannot_be_read(applied):
    assert applied("plan", "absent.yaml") == (1, "", "absent.yaml: no such file or directory\n")
    (applied.directory / "latin.yaml").write_bytes(b"kind: PAN\nname: \xe9\n")
    assert applied("plan", "latin.yaml").talk == "latin.yaml:2:7: octet 0xe9 is no UTF-8; save the file as UTF-8\n"


def test_what_is_mistyped_is_guessed(applied):
    assert "did you mean `servers`?" in applied("get", "server_").talk
    assert "did you mean `apply`?" in applied("applyy", "web.yaml").talk
    assert "did you mean `shop/web2`?" in applied("delete", "server", "shop/web").talk
    none = "there is none of that name"
    assert applied("show", "server", "web1") == (1, "", f"server web1: {none}; did you mean `shop/web1`?\n")
    assert applied("show", "node", "zz") == (1, "", f"node zz: {none}; there are n1, n2, n3\n")
    assert "write PAN/SERVER" in applied("failover", "web1").talk
    assert applied("plan").code == 1


def test_nobody_answers(tmp_path):
    panloom = CommandLine(tmp_path, tmp_path / "no.sock")
    said = panloom("get", "servers")
    assert (said.code, said.data) == (1, "")
    assert said.talk.count("\n") == 1
    assert str(panloom.socket) in said.talk
    assert "panloom control" in said.talk
    (tmp_path / "notes").write_text("")
    assert panloom("--socket", str(tmp_path / "notes"), "status").code == 1


def test_no_colours_but_on_a_terminal(applied):
    for command in (("plan", "broken.yaml"), ("get", "servers"), ("show", "node", "n1")):
        said = applied(*command)
        assert "\x1b" not in said.data + said.talk
    script = f"stty cols 110; {sys.executable} -c 'from panloom.command import main; main()' get servers"
    for colours, environment in ((True, {}), (False, {"NO_COLOR": "1"})):
        done = subprocess.run(
            ("script", "-qec", script, "/dev/null"),
            env={"PANLOOM_SOCKET": str(applied.socket), "PATH": "/usr/bin:/bin", "TERM": "xterm", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert ("\x1b[1mPAN" in done.stdout) is colours
        assert "web1" in done.stdout


def test_watch_and_follow_show_what_comes(panloom):
    watching, following = panloom.start("get", "pans", "--watch"), panloom.start("events", "-f", "-o", "json")
    try:
        assert "There are no pans yet" in (watching.stderr.readline() if watching.stderr else "")
        assert panloom("apply", "lab.yaml", "web.yaml").code == 0
        assert watching.stdout
        assert following.stdout
        assert watching.stdout.readline().split() == ["PAN", "SERVERS", "LANS"]
        assert watching.stdout.readline().split()[0] == "shop"
        assert json.loads(following.stdout.readline())["kind"] == "apply"
    finally:
        for process in (watching, following):
            process.kill()
            process.communicate()


def test_a_watched_table_is_shown_again_for_what_it_shows_alone():
    before, after = ([{"name": "shop/web1", "state": "ready", "statistics": {"reads": reads}}] for reads in (1, 2))
    assert seen(before, "table") == seen(after, "table")
    assert seen(before, "table") != seen([{**after[0], "state": "unknown"}], "table")
    for form in ("wide", "json"):
        assert seen(before, form) != seen(after, form)


def test_an_interrupt_ends_a_watch_in_one_word(applied):
    import signal

    watching = applied.start("get", "servers", "--watch")
    assert watching.stdout
    assert watching.stdout.readline().startswith("PAN")
    watching.send_signal(signal.SIGINT)
    _, talk = watching.communicate(timeout=20)
    assert watching.returncode == 130
    assert "\ninterrupted\n" in talk
    assert "KeyboardInterrupt" not in talk


def test_a_reader_that_goes_away_ends_it_quietly(applied):
    following = applied.start("events", "-f")
    assert following.stdout
    following.stdout.readline()
    following.stdout.close()
    applied("failover", "shop/web1")
    until(lambda: following.poll() is not None, "the end of it")
    assert following.stderr
    assert following.stderr.read() == ""
    following.stderr.close()


@pytest.mark.parametrize("name", ["plan", "apply", "diff", "get", "show", "delete", "failover", "node", "events"])
def test_help_of_each_command(name, tmp_path):
    said = CommandLine(tmp_path, tmp_path / "no.sock")(name, "--help")
    assert said.code == 0
    assert said.data.startswith(f"Usage: panloom {name} ")


def test_help_names_every_command_and_loads_none(tmp_path):
    said = CommandLine(tmp_path, tmp_path / "no.sock")("--help")
    assert said.code == 0
    for name in ("plan", "apply", "status", "demo", "control", "storage", "version"):
        assert f"\n  {name} " in said.data
    loaded = subprocess.run(
        (sys.executable, "-c", "import sys, panloom.command; print(*sys.modules, sep='\\n')"),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"pydantic", "fastapi", "yaml", "rich", "asyncio", "http.client", "panloom.command.plan"} & set(loaded)


def test_version_is_the_packages(tmp_path):
    from importlib.metadata import version

    assert CommandLine(tmp_path, tmp_path / "no.sock")("version").data == f"panloom {version('panloom')}\n"
