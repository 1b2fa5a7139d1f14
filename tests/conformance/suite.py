"""iscsi-test-cu of libiscsi 1.19: which tests there are, and what it says of a target.

     CUnit - A unit testing framework for C - Version 2.1-3          only what follows this banner is a verdict
    Suite: CompareAndWrite
      Test: Simple ...    [SKIPPED] COMPAREANDWRITE is not implemented.
    passed                                                           and so this one is none: it was skipped
      Test: DpoFua ...passed
      Test: Miscompare ...FAILED
        1. test_compareandwrite_miscompare.c:69  - CU_ASSERT_NOT_EQUAL(num_uas,0)

A test that was skipped in one half is skipped: it calls itself passed whatever it left out, and tells what only if it
is asked to tell everything.  ``UNTESTABLE`` is what no target can pass.
"""

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

ALONE_SECONDS = 100.0
ALL_SECONDS = 300.0
PROGRAM = "iscsi-test-cu"
UNTESTABLE = {
    # test_async_lu_reset_simple.c:157 asserts, before anything is sent, what only the answer brings; libiscsi mended it
    # after 1.19.  In one process with its neighbour it has no connection, and returns at once.
    "iSCSITMF.LUNResetSimpleAsync": "the program asserts the answer before it asks"
}
PROOFS = {  # of tests that are left out without a word, unless this is said
    "ModeSense6.Control-SWP": "SWP was set successfully",
    "MultipathIO.CompareAndWrite": "Test multipath COMPARE_AND_WRITE",
}

_BANNER = "CUnit - A unit testing framework"
_SUITE = re.compile(r"^Suite: (\S+)$", re.MULTILINE)
_TEST = re.compile(r"^  Test: (\S+) \.\.\.", re.MULTILINE)
_VERDICT = re.compile(r"(?:^|\A)(passed|FAILED)", re.MULTILINE)
_SKIPPED = re.compile(r"\[SKIPPED\] *(.*)")
_REASON = re.compile(r"^ +1\. (.*?)(?: {3,}.*)?$", re.MULTILINE)


class Verdict(StrEnum):
    """How a test ended; only PASS is good."""

    PASS = "pass"
    SKIP = "skip"
    FAIL = "fail"
    HANG = "hang"
    CRASH = "crash"


@dataclass(frozen=True)
class Result:
    """A verdict, and why it is no pass."""

    verdict: Verdict
    why: str = ""


def names() -> tuple[str, ...]:
    """Return all tests, as ``Family.Test``, in their own order."""
    listed = subprocess.run([PROGRAM, "--list"], capture_output=True, text=True, timeout=30, check=False).stdout
    return tuple(re.findall(r"^ALL\.(\S+\.\S+)$", listed, re.MULTILINE))


def run(test: str, urls: Sequence[str], seconds: float) -> Mapping[str, Result]:
    """Run one test, a family or ``ALL`` in one process, and return what was said of each; a hang ends in time."""
    command = [
        PROGRAM,
        "--verbose",
        "--Verbose-scsi",
        "--dataloss",
        "--allow-sanitize",
        "--test",
        "ALL" if test == "ALL" else f"ALL.{test}",
    ]
    try:
        ended = subprocess.run(
            [*command, *urls], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False
        )
        output, missing = ended.stdout, Result(Verdict.CRASH, f"ended with {ended.returncode}")
    except subprocess.TimeoutExpired as error:
        output, missing = error.stdout or b"", Result(Verdict.HANG, f"no end within {seconds:g} s")
    said = read(output.decode(errors="replace"))
    wanted = (test,) if "." in test else [name for name in names() if test in ("ALL", name.partition(".")[0])]
    absent = {name: Result(Verdict.SKIP, UNTESTABLE[name]) if name in UNTESTABLE else missing for name in wanted}
    return {name: said.get(name, absent[name]) for name in wanted}


def read(output: str) -> Mapping[str, Result]:
    """Return the verdicts of an output, by ``Family.Test``; a test that was cut off is not among them."""
    _, _, told = output.partition(_BANNER)
    results: dict[str, Result] = {}
    for suite in _pieces(_SUITE, told):
        for test in _pieces(_TEST, suite[1]):
            verdict = _VERDICT.search(test[1])
            if verdict is None:
                continue
            skipped = _SKIPPED.search(test[1][: verdict.start()])
            name = f"{suite[0]}.{test[0]}"
            if name in UNTESTABLE:
                result = Result(Verdict.SKIP, UNTESTABLE[name])
            elif verdict[1] == "FAILED":
                reason = _REASON.search(test[1])
                result = Result(Verdict.FAIL, reason[1] if reason else "")
            elif skipped or PROOFS.get(name, "") not in test[1]:
                result = Result(Verdict.SKIP, skipped[1] if skipped else "left out without a word")
            else:
                result = Result(Verdict.PASS)
            results[name] = result
    return results


def _pieces(head: re.Pattern[str], text: str) -> list[tuple[str, str]]:
    """Return each name with what follows it, up to the next."""
    found = list(head.finditer(text))
    ends = [match.start() for match in found][1:] + [len(text)] * bool(found)
    return [(match[1], text[match.end() : end]) for match, end in zip(found, ends, strict=True)]


def union(results: Sequence[Mapping[str, Result]]) -> dict[str, Result]:
    """Return each test's worst verdict where one is bad, else a pass where there is one, else the skip."""
    order = (Verdict.HANG, Verdict.CRASH, Verdict.FAIL, Verdict.PASS, Verdict.SKIP)
    tests = dict.fromkeys(test for each in results for test in each)
    found = {test: [each[test] for each in results if test in each] for test in tests}
    return {test: min(said, key=lambda result: order.index(result.verdict)) for test, said in found.items()}
