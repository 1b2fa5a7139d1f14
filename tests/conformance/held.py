"""One target held to the tests: alone, all in one process, shuffled; and what came of it."""

import random
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from conformance.peers import Target, belongs
from conformance.suite import ALL_SECONDS, ALONE_SECONDS, Result, Verdict, run, union

Verdicts = dict[str, dict[str, Result]]  # by profile and test


@dataclass
class Held:
    """What was said of a target, pass by pass."""

    passes: dict[str, Verdicts] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def united(self) -> dict[str, Result]:
        """Return each test's verdict over all passes and profiles."""
        return union([each for verdicts in self.passes.values() for each in verdicts.values()])

    @property
    def passed(self) -> int:
        """Return how many tests passed and never ended badly."""
        return sum(1 for result in self.united.values() if result.verdict is Verdict.PASS)

    @property
    def bad(self) -> tuple[str, ...]:
        """Return who failed, hung or crashed, where and why."""
        found: dict[tuple[str, Result], list[str]] = {}
        for name, verdicts in self.passes.items():
            for profile, results in verdicts.items():
                for test, result in results.items():
                    if result.verdict not in (Verdict.PASS, Verdict.SKIP):
                        found.setdefault((test, result), []).append(f"{profile} {name}")
        return tuple(
            f"{test}: {result.verdict}: {result.why} ({', '.join(where)})" for (test, result), where in found.items()
        )

    @property
    def unsteady(self) -> tuple[str, ...]:
        """Return the tests of a profile that have not the same verdict in every pass."""
        found: dict[tuple[str, str], dict[str, Verdict]] = {}
        for name, verdicts in self.passes.items():
            for profile, results in verdicts.items():
                for test, result in results.items():
                    found.setdefault((profile, test), {})[name] = result.verdict
        return tuple(
            f"{test} ({profile}): " + ", ".join(f"{verdict} {name}" for name, verdict in said.items())
            for (profile, test), said in found.items()
            if len(set(said.values())) > 1
        )


def hold(
    target: Target,
    tests: tuple[str, ...],
    *,
    whole: bool,
    seed: int,
    rounds: int,
    tell: Callable[[str], None],
    alone: bool = True,
) -> Held:
    """Run the tests with every profile: if ``alone``, if ``whole`` in one process, and in so many shuffled orders."""
    held = Held()

    def one_by_one(profile: str, order: Iterable[str]) -> dict[str, Result]:
        verdicts: dict[str, Result] = {}
        for test in order:
            if belongs(test, profile):
                verdicts |= run(test, target.urls[profile], ALONE_SECONDS)
        return verdicts

    def in_one_process(profile: str) -> dict[str, Result]:
        # Sanitize.Reservations leaves a reservation on the second path, if there is one, for Sanitize.Reset to meet.
        results = {**run("ALL", target.urls[profile][:1], ALL_SECONDS)}
        results |= run("MultipathIO", target.urls[profile], ALL_SECONDS)
        return {test: result for test, result in results.items() if belongs(test, profile)}

    passes: dict[str, Callable[[str], dict[str, Result]]] = {}
    if alone:
        passes["alone"] = lambda profile: one_by_one(profile, tests)
    if whole:
        passes["in one process"] = in_one_process
    for number in range(seed, seed + rounds):
        shuffled = random.Random(number).sample(tests, len(tests))
        passes[f"shuffled {number}"] = lambda profile, order=shuffled: one_by_one(profile, order)
    for name, perform in passes.items():
        begun, taken = time.monotonic(), target.cpu_seconds()
        with ThreadPoolExecutor(len(target.urls)) as side_by_side:
            verdicts = side_by_side.map(perform, target.urls)
            held.passes[name] = dict(zip(target.urls, verdicts, strict=True))
        held.seconds[name] = time.monotonic() - begun
        held.cpu_seconds[name] = target.cpu_seconds() - taken
        tell(f"{name}: {_counts(union(list(held.passes[name].values())))} in {held.seconds[name]:.1f} s")
    return held


def _counts(results: Mapping[str, Result]) -> str:
    said = [result.verdict for result in results.values()]
    return ", ".join(f"{said.count(verdict)} {verdict}" for verdict in Verdict if verdict in said)
