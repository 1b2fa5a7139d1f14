"""A slice of fuzzing of every target, its seeds, and all that was ever found.

A finding is printed in hexadecimal with the command that runs it again; mended, it goes to ``findings.py``.
"""

import time

import pytest

from campaign import tally
from fuzz.findings import FINDINGS
from fuzz.live import LiveFuzz
from fuzz.slices import run_slice
from fuzz.target import every_target, find

TARGETS = every_target()
LIVE_PDUS = 40_000
SLICE_SECONDS = 3  # of every target: a minute in all


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_invariant_holds_for_the_seeds(target):
    for octets in target.seeds():
        target.run(octets)


@pytest.mark.parametrize(("name", "octets"), [finding[:2] for finding in FINDINGS], ids=[f[2] for f in FINDINGS])
def test_what_was_found_stays_mended(name, octets):
    find(name).run(octets)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_invariant_holds_for_a_slice_of_fuzzing(target, tmp_path, record_property):
    run = run_slice(target.name, seconds=SLICE_SECONDS, seed=1, corpus=tmp_path)
    record_property("executions", run.executions)
    print(f"{target.name}: {run.executions} executions")
    assert run.holds, run.report
    assert run.executions > len(list(target.seeds()))


def test_a_live_target_serves_on_whatever_others_say(tmp_path, monkeypatch):
    monkeypatch.setattr(tally, "PROGRESS", tmp_path)
    live = LiveFuzz(LIVE_PDUS)
    assert live.run(time.monotonic() + 240)
    assert live.findings == []
    assert live.answers > LIVE_PDUS // 3
