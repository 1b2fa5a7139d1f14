"""``panloom demo``: the main job, told as it happens, and measured.

    image ─▶ chassis ─▶ apply web.yaml ─▶ two servers boot ─▶ kill one machine ─▶ its server answers from the spare
                                                            └─▶ power the dead machine on: no disk, no address, a spare

Everything runs in an enclosure (``lab.enclosure``), so that its end, however it comes, removes everything.  Each wait
has a deadline; one that passes says the last stage that was reached and shows the tail of the machine's console.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from panloom.errors import PanloomError, UnavailableError
from panloom.lab.enclosure import Enclosure, run_enclosed
from panloom.lab.image import build_image
from panloom.lab.running import RunningLab
from panloom.lab.story import Story, table

DIRECTORY = Path("/run/panloom")
BOOT_SECONDS = 60.0
MOVE_SECONDS = 60.0
SOON_SECONDS = 20.0
LAST_LINES = 12

Stages = Mapping[str, float]


class TimedOutError(UnavailableError):
    """A wait of the demonstration passed its deadline."""


def run(*, keep: bool = False) -> int:
    """Run the demonstration; return its exit status, 130 when it was interrupted."""
    packages, example = _find(".cache/debian", "PANLOOM_PACKAGES"), _find("examples/web.yaml", "PANLOOM_EXAMPLE")
    return run_enclosed(lambda enclosure: _inside(enclosure, packages, example, keep=keep))


def _find(relative: str, variable: str) -> Path:
    given = os.environ.get(variable)
    for base in (Path.cwd(), *Path(__file__).resolve().parents):
        if (base / relative).exists() and not given:
            return base / relative
    if given and Path(given).exists():
        return Path(given).absolute()
    raise UnavailableError(f"{relative} is missing; in a checkout: make setup-demo (or name it: {variable})")


def _inside(enclosure: Enclosure, packages: Path, example: Path, *, keep: bool) -> int:
    console = Console(highlight=False)
    try:
        return asyncio.run(_run(enclosure, console, packages, example, keep=keep))
    except PanloomError as error:
        Console(stderr=True, highlight=False).print(f"panloom demo: {error}", style="red", markup=False)
        return 1


async def _run(enclosure: Enclosure, console: Console, packages: Path, example: Path, *, keep: bool) -> int:
    lab = RunningLab(DIRECTORY)
    with Story(console) as story:
        demonstration = Demonstration(lab, story)
        try:
            await demonstration.play(packages, example)
        except TimedOutError as error:
            console.print(await demonstration.obituary(error), markup=False)
            return 1
        finally:
            if not (keep and demonstration.finished):
                await lab.stop()
    demonstration.summary(console)
    if keep:
        _say_how_to_go_on(console, lab)
        await lab.let_go(enclosure)
    return 0


def _say_how_to_go_on(console: Console, lab: RunningLab) -> None:
    pid = _outer_pid()
    program = Path(sys.argv[0]).name if sys.argv[0].endswith("panloom") else "panloom"
    console.print(
        f"\nThe lab goes on. In this terminal:\n"
        f"  export PANLOOM_SOCKET=/proc/{pid}/root{lab.control_socket}\n"
        f"  {program} get servers --watch          what runs where\n"
        f"  {program} show node n3                 the stages of its last boot\n"
        f"  {program} failover shop/web2           move a server by hand\n"
        f"  {program} events -f                    what happens, as it happens\n"
        f"  nsenter -t {pid} -n curl -s http://10.1.0.11/facts.txt\n"
        f"  tail -f /proc/{pid}/root{lab.directory}/console/n3.log\n"
        f"End it, and everything with it:\n"
        f"  kill {pid}\n",
        markup=False,
        soft_wrap=True,
    )


def _outer_pid() -> int:
    """Return this process's number as those outside its PID namespace see it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[1])
    return os.getpid()


class Demonstration:
    """The six acts, in order; what they measured stays in ``events``."""

    def __init__(self, lab: RunningLab, story: Story) -> None:
        self._lab = lab
        self._story = story
        self._events: list[dict[str, Any]] = []
        self._killed_at = 0.0
        self._victim = ""
        self._spare = ""
        self._answered: dict[str, float] = {}
        self._pages: dict[str, Mapping[str, str]] = {}
        self._macs: dict[str, str] = {}
        self.finished = False

    async def play(self, packages: Path, example: Path) -> None:
        """Play all acts; TimedOutError when one does not come to its end."""
        story, lab = self._story, self._lab
        story.begin("build the image")
        image = await asyncio.to_thread(build_image, packages, DIRECTORY / "web.img")
        story.done(f"{image.octets >> 20} MiB, Linux {image.kernel}, busybox, iscsid")

        story.begin("start the chassis")
        await lab.start(DIRECTORY / "web.img", waiting=story.wait)
        following = asyncio.create_task(self._follow())
        try:
            story.done(f"a control node, {len(lab.chassis.machines)} diskless machines, all off")
            await self._boot(example)
            await self._kill()
            await self._come_back()
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
        self.finished = True

    # ── the acts ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _boot(self, example: Path) -> None:
        story = self._story
        story.begin(f"apply {example.name}")
        outcome = await self._lab.apply(example)
        story.done(f"{outcome['add']} added; servers boot: {', '.join(outcome['boots'])}")
        for server in outcome["boots"]:
            story.begin(f"{server} boots")
            await self._until(f"{server} answers", BOOT_SECONDS, partial(self._answers, server))
            page = self._pages[server]
            story.done(f"on {page['node']}: {page['address']} is {page['mac']}, boot {page['boots']} of its disk")

    async def _kill(self) -> None:
        story, lab = self._story, self._lab
        server = min(self._pages)
        before = self._pages[server]
        self._victim = before["node"]
        story.begin(f"kill {self._victim}, which is {server}")
        self._killed_at = time.monotonic()
        await lab.power(self._victim, "kill")
        fence = await self._until("fenced", SOON_SECONDS, lambda: self._event("fence complete", server=server))
        story.done(f"fenced {fence['monotonic'] - self._killed_at:.2f} s after it died")

        story.begin(f"{server} moves")
        moved = await self._until("a spare takes it", SOON_SECONDS, lambda: self._event("placed", after=fence))
        self._spare = moved["node"]
        await self._until(
            f"it answers from {self._spare}",
            MOVE_SECONDS,
            lambda: self._answers(server, epoch=int(before["epoch"]) + 1),
        )
        page = self._pages[server]
        same = page["mac"] == before["mac"] and page["address"] == before["address"]
        if not same or int(page["boots"]) != int(before["boots"]) + 1 or page["node"] != self._spare:
            raise UnavailableError(f"{server} came back as another: it was {before}, it is {page}")
        story.done(f"on {self._spare}: same MAC, same address, same disk, boot {page['boots']} of it")

    async def _come_back(self) -> None:
        story, lab, victim = self._story, self._lab, self._victim
        story.begin(f"power {victim} on again")
        since = self._events[-1]
        await lab.power(victim, "on")
        await self._until("it asks to boot", BOOT_SECONDS, lambda: self._event("waiting", node=victim, after=since))
        row = await lab.get("resources", "node", victim)
        sessions = await lab.sessions_of(victim)
        stolen = [e for e in self._events if e["kind"] == "boot" and e.get("node") == victim and e["text"] == "script"]
        late = [event for event in stolen if event["number"] > since["number"]]
        if row["server"] is not None or sessions or late:
            raise UnavailableError(f"{victim} got something of its old server: {row}, {sessions}, {late}")
        story.done(f"{victim} has no disk and no address of a server; it is a {row['state']}")

    # ── facts ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _answers(self, server: str, *, epoch: int = 1) -> bool:
        """Whether the server's page is there, under an epoch that is not over."""
        row = await self._lab.get("resources", "server", server)
        self._story.wait(f"{row['state']}; last stage of {row['node']}: {self._last_stage(row['node'])}")
        if not row["address"]:
            return False
        page = await self._lab.page(row["address"][0])
        if page is None or page.get("server") != server or int(page["epoch"]) < epoch:
            return False
        self._pages[server] = page
        self._answered.setdefault(f"{server} {page['epoch']}", time.monotonic())
        return True

    async def _follow(self) -> None:
        while True:
            after = self._events[-1]["number"] if self._events else 0
            try:
                self._events += (await self._lab.get("events", after=after, wait=5))["events"]
            except UnavailableError:
                await asyncio.sleep(0.2)

    def _event(self, kind: str, *, after: Mapping[str, Any] | None = None, **facts: str) -> dict[str, Any] | None:
        """Return the first event of a kind since the kill, or after another, with these facts."""
        for event in self._events:
            if event["kind"] != kind or event["monotonic"] < self._killed_at:
                continue
            if after is not None and event["number"] <= after["number"]:
                continue
            if all(event.get(name) == value for name, value in facts.items()):
                return event
        return None

    def _last_stage(self, node: str | None) -> str:
        stages = [event["text"] for event in self._events if event["kind"] == "boot" and event.get("node") == node]
        return stages[-1] if stages else "none"

    async def _until(self, what: str, seconds: float, fact: Callable[[], Any]) -> Any:  # noqa: ANN401
        deadline = time.monotonic() + seconds
        self._story.wait(what)
        while True:
            found = fact()
            value: Any = await found if isinstance(found, Awaitable) else found
            if value:
                return value
            if time.monotonic() > deadline:
                raise TimedOutError(f"not within {seconds:g} s: {what}")
            await asyncio.sleep(0.05)

    # ── what it comes to ─────────────────────────────────────────────────────────────────────────────────────────────

    async def obituary(self, error: TimedOutError) -> str:
        """Return what a person needs to know when a wait has passed its deadline."""
        lines = [f"panloom demo: {error}", f"step: {self._story.step}"]
        for machine in self._lab.chassis.machines:
            tail = self._lab.console_tail(machine.name, LAST_LINES)
            if tail:
                lines += [f"--- {machine.name}: last stage {self._last_stage(machine.name)}; its console ends:", *tail]
        lines += [f"--- {event['kind']}: {event['text']}" for event in self._events[-LAST_LINES:]]
        return "\n".join(lines)

    def _stages(self, server: str, epoch: int) -> Stages:
        """Return when a server's boot under an epoch reached its stages, in monotonic seconds."""
        found: dict[str, float] = {}
        for event in self._events:
            if event.get("server") == server and event.get("epoch") == epoch:
                if event["kind"] == "boot":
                    found.setdefault(event["text"], event["data"]["reached"])
                elif event["kind"] in ("powering", "fence", "fence complete"):
                    found.setdefault(event["kind"], event["monotonic"])
        return found

    def summary(self, console: Console) -> None:
        """Print the seconds of each step."""
        servers = sorted(self._pages)
        made = table("\n What it took", "what", *servers)
        first = {server: self._stages(server, 1) for server in servers}
        clones = {event["server"]: event["data"]["seconds"] for event in self._events if event["kind"] == "volume"}
        made.add_row("clone of the image", *(f"{clones[server] * 1000:.0f} ms" for server in servers))
        made.add_row(
            "power on → first login → userland",
            *(_seconds(first[server], "powering", "login", "userland") for server in servers),
        )
        made.add_row(
            "power on → answering",
            *(f"{self._answered[f'{server} 1'] - first[server]['powering']:.1f} s" for server in servers),
        )
        moved = servers[0]
        again = {**self._stages(moved, 2), "killed": self._killed_at}
        answered = self._answered[f"{moved} 2"] - self._killed_at
        made.add_row(
            f"{self._victim} killed → detected → fenced", _seconds(again, "killed", "fence", "fence complete"), ""
        )
        made.add_row(
            f"  → {self._spare}: first disk read → answering",
            f"{again['first read'] - self._killed_at:.1f} s → {answered:.1f} s",
            "",
        )
        page = self._pages[moved]
        made.add_row("  what moved", f"{page['mac']}, {page['address']}, its disk (boot {page['boots']})", "stayed")
        console.print(made)
        console.print(f" all of it: {time.monotonic() - self._story.began:.0f} s", markup=False)


def _seconds(at: Stages, start: str, *stages: str) -> str:
    """Return the seconds from one stage to each of the others, as ``2.5 s → 9.1 s``."""
    return " → ".join(f"{at[stage] - at[start]:.1f} s" if stage in at else "?" for stage in stages)
