"""Run one fuzz target in this process:  scripts/run python tests/fuzz/one.py TARGET [options]

    --seconds N      for so long, guided by coverage (3)
    --seed N         of the mutations (1)
    --corpus DIR     where inputs that reach something new are kept, and taken from (only the seeds)
    --input HEX      this one input and no other; - reads it from standard input

Where atheris has no build for this Python, hypothesis makes the inputs: it knows nothing of coverage.  An input that
breaks the invariant ends the run with status 1 and is printed in hexadecimal, with the command that runs it again.
"""

import argparse
import logging
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.target import Target, find

LONGEST_INPUT_OCTETS = 8192
LONGEST_INPUT_SECONDS = 10  # one input; more is a hang
MEMORY_MIB = 1024  # of the process with all that coverage needs


def main() -> int:
    """Run what the command line says; 0 if the invariant holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--input")
    chosen = parser.parse_args()
    logging.disable()  # what is logged is the business of other tests, and takes half the time
    if chosen.input is not None:
        octets = bytes.fromhex(sys.stdin.read() if chosen.input == "-" else chosen.input)
        return 0 if holds(find(chosen.target), octets) else 1
    try:
        import atheris
    except ImportError:
        return _with_hypothesis(find(chosen.target), chosen.seconds, chosen.seed)
    # Coverage of our own modules only: the others' would drown it.
    with atheris.instrument_imports(include=["panloom"]):
        target = find(chosen.target)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        _with_atheris(target, chosen.seconds, chosen.seed, chosen.corpus or Path(scratch) / "corpus", Path(scratch))
    return 0


def holds(target: Target, octets: bytes) -> bool:
    """Run one input; print what broke, and how to run it again."""
    try:
        target.run(octets)
    except BaseException:  # noqa: BLE001 - whatever leaves a target is a finding
        traceback.print_exc()
        print(f"broken: {target.invariant}\ninput: {octets.hex()}", file=sys.stderr)
        print(f"again: scripts/run python tests/fuzz/one.py {target.name} --input {octets.hex()}", file=sys.stderr)
        return False
    return True


def _with_atheris(target: Target, seconds: int, seed: int, corpus: Path, scratch: Path) -> None:
    """Run libFuzzer, which ends the process."""
    import atheris

    corpus.mkdir(parents=True, exist_ok=True)
    seeds = scratch / "seeds"
    seeds.mkdir()
    for number, octets in enumerate(target.seeds()):
        (seeds / f"{number:03}").write_bytes(octets)

    def run(octets: bytes) -> None:
        if not holds(target, octets):
            raise SystemExit(1)

    options = {
        "max_total_time": seconds,
        "seed": seed,
        "max_len": LONGEST_INPUT_OCTETS,
        "timeout": LONGEST_INPUT_SECONDS,
        "rss_limit_mb": MEMORY_MIB,
        "print_final_stats": 1,
        "artifact_prefix": f"{corpus}/broken-",
    }
    atheris.Setup([sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(corpus), str(seeds)], run)
    atheris.Fuzz()


def _with_hypothesis(target: Target, seconds: int, seed: int) -> int:
    """Mutate the seeds and make octets up, without a notion of what they reach."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st

    seeds = tuple(target.seeds())
    place = st.tuples(st.integers(0, LONGEST_INPUT_OCTETS), st.integers(0, 8), st.binary(max_size=8))
    inputs = st.binary(max_size=LONGEST_INPUT_OCTETS) | st.builds(
        _spoilt, st.sampled_from(seeds), st.lists(place, max_size=8)
    )
    end, runs = time.monotonic() + seconds, 0

    @settings(
        max_examples=1000,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,),
    )
    @given(inputs)
    def run(octets: bytes) -> None:
        nonlocal runs
        runs += 1
        if time.monotonic() < end and not holds(target, octets):
            raise SystemExit(1)

    while time.monotonic() < end:
        seeded(seed)(run)()
        seed += 1
    print(f"stat::number_of_executed_units: {runs}")
    return 0


def _spoilt(octets: bytes, places: list[tuple[int, int, bytes]]) -> bytes:
    for at, gone, put in places:
        start = at % (len(octets) + 1)
        octets = octets[:start] + put + octets[start + gone :]
    return octets


if __name__ == "__main__":
    sys.exit(main())
