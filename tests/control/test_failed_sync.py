"""A disk that fails a sync: its server is shut out like any other, and back when the storage process starts anew."""

import os
from pathlib import Path

import pytest

from support.control_node import control_node, pan, run_panloom
from support.waiting import until

TESTS = Path(__file__).parents[1]


@pytest.fixture
def control(tmp_path, monkeypatch):
    with control_node(tmp_path, nodes=2) as made:
        monkeypatch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
        made.start_storage("support.failing_storage")
        made.start_control()
        made.declare()
        made.until_event("boot services")
        yield made


def test_a_fence_whose_volume_cannot_be_flushed_is_completed(control):
    failing = control.directory / "store" / "failing"
    control.apply(pan("shop", "web1", more="node: n1"))
    control.until_up("shop/web1")
    victim = control["n1"]
    victim.writes = victim.switch_is_broken = True
    until(lambda: any(session.writes > 3 for session in control.sessions_of("n1")), "it writes")
    failing.touch()
    run_panloom(control, "failover", "shop/web1")
    control.until_event("fence complete", server="shop/web1")
    (told,) = control.events("not flushed", server="shop/web1")
    assert told["text"].startswith("volume shop.web1 cannot be flushed")
    assert "restart" in control.until_event("held up", server="shop/web1")["text"]
    failing.unlink()
    # The disk being well again, it still serves nothing that a sync may have lost: only a new start does.
    assert "offline" in control.server("shop/web1")["why"]
    control.signal("storage", 15)
    control.processes["storage"].wait(20)
    control.start_storage()
    assert control.until_up("shop/web1", not_on={"n1"})["epoch"] == 2


def test_a_volume_that_is_lost_is_back_when_it_is_reopened(control):
    failing = control.directory / "store" / "failing"
    control.apply(pan("shop", "web1", more="node: n1"))
    control.until_up("shop/web1")
    control["n1"].writes = True
    until(lambda: any(session.writes > 3 for session in control.sessions_of("n1")), "it writes")
    failing.touch()
    run_panloom(control, "failover", "shop/web1")
    control.until_event("fence complete", server="shop/web1")
    code, _, said = run_panloom(control, "reopen", "shop/web1")
    assert (code, "Input/output error" in said) == (1, True)
    failing.unlink()
    assert run_panloom(control, "reopen", "shop/web1")[:2] == (0, "shop/web1: online\n")
    control.until_event("reopened")
    assert control.until_up("shop/web1", not_on={"n1"})["epoch"] == 2
