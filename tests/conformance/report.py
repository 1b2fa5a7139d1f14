"""The table that people read, and the JSON that is kept."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

from conformance.held import Held
from conformance.known import TGTD
from conformance.suite import Result, Verdict

ROOT = Path(__file__).resolve().parents[2]
_COLUMNS = (Verdict.PASS, Verdict.FAIL, Verdict.SKIP, Verdict.HANG)


def table(ours: Held, peer: Held | None) -> str:
    """Return the families line by line, then what is missing and why."""
    mine = families(ours.united)
    theirs = families(peer.united) if peer else {family: TGTD[family] for family in mine}
    head = "family                    tests   pass  fail  skip  hang    tgtd  pass  fail  skip  hang"
    lines = [head, *(_line(family, mine[family], theirs[family]) for family in mine)]
    lines.append(_line("all", _sum(mine), _sum(theirs)))
    missing = {test: result for test, result in ours.united.items() if result.verdict is Verdict.SKIP}
    for title, told in (
        ("Not passed", [f"{test}: {result.verdict}: {result.why}" for test, result in missing.items()]),
        ("Failed", ours.bad),
        ("Not the same each time", ours.unsteady),
    ):
        lines += [f"\n{title}:", *(f"  {each}" for each in told)] if told else []
    spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in ours.cpu_seconds.items())
    lines.append(f"\nProcessor time of the target: {spent}")
    lines.append(f"{ours.passed} of {len(ours.united)} pass")
    return "\n".join(lines)


def families(results: Mapping[str, Result]) -> dict[str, tuple[int, int, int, int]]:
    """Return for each family how many passed, failed, were skipped, and hung or crashed."""
    counts: dict[str, list[int]] = {}
    for test, result in results.items():
        verdict = Verdict.HANG if result.verdict is Verdict.CRASH else result.verdict
        counts.setdefault(test.partition(".")[0], [0, 0, 0, 0])[_COLUMNS.index(verdict)] += 1
    return {family: (said[0], said[1], said[2], said[3]) for family, said in counts.items()}


def whole_report(ours: Held, peer: Held | None, parameters: Mapping[str, object]) -> str:
    """Return everything as JSON."""
    said = {"ours": ours} | ({"tgtd": peer} if peer else {})
    whole = {
        "question": "Which of the tests of iscsi-test-cu 1.19 does the target pass?",
        "goals": {"passed": 225, "of": 230, "failed": 0, "hung": 0, "cpu_seconds_in_one_process": 60},
        "machine": {
            "processors": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "load_average": os.getloadavg(),
        },
        "commit": _git("rev-parse", "HEAD") + (" with changes" if _git("status", "--porcelain", "--", "src") else ""),
        "parameters": {name: value for name, value in parameters.items() if name != "json"},
        "tgtd_known": None if peer else TGTD,
        **{name: _told(held) for name, held in said.items()},
    }
    return json.dumps(whole, indent=2, default=str) + "\n"


def _told(held: Held) -> dict[str, object]:
    united = held.united
    return {
        "passed": held.passed,
        "of": len(united),
        "bad": held.bad,
        "unsteady": held.unsteady,
        "skipped": {test: result.why for test, result in united.items() if result.verdict is Verdict.SKIP},
        "families": families(united),
        "cpu_seconds": {name: round(seconds, 2) for name, seconds in held.cpu_seconds.items()},
        "seconds": {name: round(seconds, 2) for name, seconds in held.seconds.items()},
    }


def _line(name: str, mine: tuple[int, int, int, int], theirs: tuple[int, int, int, int]) -> str:
    numbers = "".join(f"{number or '-':>6}" for number in mine)
    others = "".join(f"{number or '-':>6}" for number in theirs)
    return f"{name:24}{sum(mine):7} {numbers}        {others}"


def _sum(counts: Mapping[str, tuple[int, int, int, int]]) -> tuple[int, int, int, int]:
    passed, failed, skipped, hung = (sum(column) for column in zip(*counts.values(), strict=True))
    return passed, failed, skipped, hung


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), "-c", f"safe.directory={ROOT}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
