"""libiscsi's 230 tests of targets against ours: ``make conformance`` tells more, and why."""

import pytest

from conformance import peers
from conformance.held import hold
from conformance.suite import Result, Verdict, names, read, union

FEWEST = 225  # of 230, one of which no target can pass
OUTPUT = """\
    [SKIPPED] PERSISTENT RESERVE IN is not implemented.
found matching LU device identifier for all (2) paths

     CUnit - A unit testing framework for C - Version 2.1-3

Suite: Inquiry
  Test: Standard ...passed
  Test: AllocLength ...    [SKIPPED] This is left out.
passed
  Test: BlockLimits ...
    Test of something
    [SUCCESS] It is so.
passed
  Test: EVPD ...FAILED
    1. test_inquiry_evpd.c:69  - CU_ASSERT_NOT_EQUAL(num,0)    [SKIPPED] something after it.
    2. test_inquiry_evpd.c:70  - CU_ASSERT_NOT_EQUAL(num,0)
Suite: ModeSense6
  Test: Control-SWP ...passed
Suite: iSCSITMF
  Test: LUNResetSimpleAsync ...passed
Suite: Read6
  Test: Simple ...passed    [SKIPPED] PERSISTENT RESERVE IN is not implemented.

  Test: BeyondEol ..."""


def test_what_calls_itself_passed_may_have_been_skipped():
    assert read(OUTPUT) == {
        "Inquiry.Standard": Result(Verdict.PASS),
        "Inquiry.AllocLength": Result(Verdict.SKIP, "This is left out."),
        "Inquiry.BlockLimits": Result(Verdict.PASS),
        "Inquiry.EVPD": Result(Verdict.FAIL, "test_inquiry_evpd.c:69  - CU_ASSERT_NOT_EQUAL(num,0)"),
        "ModeSense6.Control-SWP": Result(Verdict.SKIP, "left out without a word"),
        "iSCSITMF.LUNResetSimpleAsync": Result(Verdict.SKIP, "the program asserts the answer before it asks"),
        "Read6.Simple": Result(Verdict.PASS),
    }
    assert read("") == {}


def test_one_bad_verdict_outweighs_a_pass_and_a_pass_a_skip():
    good, left_out, bad = Result(Verdict.PASS), Result(Verdict.SKIP, "why"), Result(Verdict.FAIL, "why")
    assert union([{"a": good, "b": left_out, "c": left_out}, {"a": bad, "b": good, "c": left_out}]) == {
        "a": bad,
        "b": good,
        "c": left_out,
    }


@pytest.mark.timeout(900)
def test_the_target_passes_the_tests_of_libiscsi(tmp_path):
    tests = names()
    assert len(tests) == 230
    with peers.ours(tmp_path) as target:
        held = hold(target, tests, whole=True, seed=1, rounds=0, tell=print, alone=False)
    assert held.bad == ()
    assert held.passed >= FEWEST
