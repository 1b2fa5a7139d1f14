"""The demonstration: it runs, it can be cut off anywhere, and nothing of it is left."""

import json
import os
import re
import signal
import subprocess

import pytest

from support.traces import COMMAND, assert_nothing_is_left, start, traces

pytestmark = [pytest.mark.machine, pytest.mark.timeout(240)]


def test_the_demo_runs_and_leaves_nothing():
    before = traces()
    demo = start("demo", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = demo.communicate(timeout=180)
    text = output.decode()
    assert demo.returncode == 0, text
    for fact in (
        "shop/web1 boots",
        "shop/web2 boots",
        "same MAC, address and disk; boot 2",
        "What it took",
    ):
        assert fact in text, text
    assert_nothing_is_left(before)


def test_kept_it_goes_on_as_it_says_until_it_is_ended_as_it_says():
    before = traces()
    demo = start("demo", "--keep", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = demo.communicate(timeout=180)[0].decode()
    assert demo.returncode == 0, text
    (socket,) = re.findall(r"export PANLOOM_SOCKET=(\S+)", text)
    (page,) = re.findall(r"^  (nsenter .* curl .*)$", text, re.MULTILINE)
    (end,) = re.findall(r"^  kill (\d+)$", text, re.MULTILINE)
    try:
        get = (*COMMAND, "get", "servers", "-o", "json")
        shown = subprocess.run(get, env={**os.environ, "PANLOOM_SOCKET": socket}, check=True, capture_output=True)
        states = {row["name"]: (row["state"], row["moves"]) for row in json.loads(shown.stdout)}
        assert states == {"shop/web1": ("up", 1), "shop/web2": ("up", 0)}
        facts = subprocess.run(page.split(), check=True, capture_output=True).stdout.decode()
        assert "server=shop/web1\n" in facts
        assert "boots=2\n" in facts
    finally:
        os.kill(int(end), signal.SIGTERM)
    assert_nothing_is_left(before)


def test_a_wait_that_takes_too_long_says_how_far_it_came_and_what_the_machine_said_last():
    before = traces()
    demo = start("demo", "--patience", "3", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = demo.communicate(timeout=60)[0].decode()
    assert demo.returncode == 1, text
    assert "panloom demo: not within 3 s: its page" in text
    assert "step: shop/web1 boots" in text
    assert re.search(r"^--- n1: last stage \w+.*; its console ends:$", text, re.MULTILINE), text
    assert re.search(r"^\d{4}-\d\d-\d\d .*(iPXE|net0)", text.partition("its console ends:")[2], re.MULTILINE), text
    assert_nothing_is_left(before)


@pytest.mark.parametrize(
    ("step", "how"),
    [
        ("", signal.SIGINT),
        ("", signal.SIGKILL),
        ("build the image", signal.SIGINT),
        ("start the chassis", signal.SIGKILL),
        ("apply web.yaml", signal.SIGINT),
        ("shop/web2 boots", signal.SIGKILL),
        ("kill n", signal.SIGINT),
    ],
)
def test_cut_off_at_any_step_it_leaves_nothing(step, how):
    """``step`` is the last one seen done when the signal comes; an empty one means at once."""
    before = traces()
    demo = start("demo", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        for line in demo.stdout if step else ():
            if step in line.decode():
                break
        os.kill(demo.pid, how)
        demo.wait(timeout=30)
    finally:
        demo.stdout.close()
        if demo.poll() is None:
            demo.kill()
            demo.wait()
    # At once means that Python itself may not have begun yet, or just has: it ends as any program of its does then.
    at_once = () if step else (1,)
    assert demo.returncode in ((130, -2, *at_once) if how is signal.SIGINT else (-9,))
    assert_nothing_is_left(before)
