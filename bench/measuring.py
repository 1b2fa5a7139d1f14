"""What every benchmark needs: alternating rounds, enclosures, and a result that says on which machine it was had.

{"question": …, "goals": {…}, "machine": {…}, "commit": …, "parameters": {…},
 "median_seconds": {CONTENDER: {STAGE: …}}, "ratios": {STAGE: …}, "failed": [...], "rounds": [{CONTENDER: {STAGE: …}}]}
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from panloom.lab.enclosure import run_enclosed
from panloom.lab.qemu import kvm_is_usable

ROOT = Path(__file__).resolve().parents[1]
Seconds = dict[str, float]
Round = dict[str, dict[str, Any]]


def arguments(question: str, *, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with what all benchmarks understand."""
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"how often each contender runs (default {rounds})")
    parser.add_argument("--json", type=Path, help="where the result goes (default: standard output)")
    return parser


def enclosed(measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Measure in a process and namespaces of its own; ``{"error": why}`` when that failed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os._exit(run_enclosed(lambda _: _tell(measure, writing)))
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else {"error": f"ended with status {os.waitstatus_to_exitcode(status)}"}


def _tell(measure: Callable[[], Mapping[str, Any]], writing: int) -> int:
    try:
        result = dict(measure())
    except (Exception, SystemExit) as error:  # noqa: BLE001  a round that fails is a result too
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}"[:2000]}
    with os.fdopen(writing, "w") as answer:
        json.dump(result, answer)
    return 0


def alternate(contenders: Mapping[str, Callable[[], Mapping[str, Any]]], rounds: int) -> list[Round]:
    """Run every contender once a round, in the opposite order each other round, and say how it went."""
    done: list[Round] = []
    for number in range(rounds):
        names = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
        done.append({})
        for name in names:
            result = done[-1][name] = {"load_average": os.getloadavg()[0], **enclosed(contenders[name])}
            shown = ", ".join(f"{key} {value:.2f}" for key, value in seconds_of(result).items())
            print(
                f"round {number + 1} of {rounds}: {name}: {result.get('error') or shown}", file=sys.stderr, flush=True
            )
    return done


def seconds_of(result: Mapping[str, Any]) -> Seconds:
    """Return the seconds in a result of one contender, or what else it has measured: its rates."""
    return result.get("seconds") or result.get("rates", {})


def medians(rounds: Sequence[Round]) -> dict[str, Seconds]:
    """Return the median of each stage, for each contender, over the rounds in which it came to its end."""
    found: dict[str, Seconds] = {}
    for name in dict.fromkeys(name for each in rounds for name in each):
        results = [seconds_of(each[name]) for each in rounds if seconds_of(each.get(name, {}))]
        stages = dict.fromkeys(stage for result in results for stage in result)
        found[name] = {
            stage: round(statistics.median(result[stage] for result in results if stage in result), 6)
            for stage in stages
        }
    return found


def report(
    options: argparse.Namespace, question: str, rounds: Sequence[Round], result: Mapping[str, Any]
) -> dict[str, Any]:
    """Write what was measured and return it."""
    git = ("git", "-C", ROOT, "-c", f"safe.directory={ROOT}")
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", "src", "bench/*.py"], capture_output=True, text=True, check=False
    )
    whole = {
        "question": question,
        **result,
        "machine": machine(),
        "commit": commit.stdout.strip() + (" with changes" if changed.stdout else ""),
        "parameters": {name: value for name, value in vars(options).items() if name != "json"},
        "failed": [f"{name}: {each[name]['error']}" for each in rounds for name in each if "error" in each[name]],
        "rounds": list(rounds),
    }
    text = json.dumps(whole, indent=2, default=str) + "\n"
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text)
        print(f"written to {options.json}", file=sys.stderr)
    else:
        print(text, end="")
    return whole


def machine() -> dict[str, Any]:
    """Return what the numbers depend on."""
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=False)
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "congestion_control": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "python": platform.python_version(),
        "qemu": version.stdout.partition("\n")[0].removeprefix("QEMU emulator version "),
        "accelerator": "kvm" if kvm_is_usable() else "tcg",
        "load_average": os.getloadavg(),
    }


def _processor() -> str:
    facts = dict(
        (part.strip() for part in line.split(":", 1))
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if ":" in line
    )
    return f"{facts.get('model name', '')} family {facts.get('cpu family')} model {facts.get('model')}".strip()
