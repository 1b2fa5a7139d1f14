"""``panloom demo``: the main job, told as it happens, and measured.

    image ─▶ chassis ─▶ apply web.yaml ─▶ two servers boot ─▶ kill one machine ─▶ its server answers from the spare
                                                            └─▶ power the dead machine on: no disk, no address, a spare

Everything runs in an enclosure (``lab.enclosure``), so that its end, however it comes, removes everything.  Each wait
has a deadline; one that passes says the last stage that was reached and shows the tail of the machine's console.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from panloom.errors import PanloomError, UnavailableError
from panloom.lab.checkout import find
from panloom.lab.enclosure import Enclosure, run_enclosed
from panloom.lab.image import build_image
from panloom.lab.qemu import kvm_is_usable
from panloom.lab.running import RunningLab
from panloom.lab.story import Story, table

DIRECTORY = Path("/run/panloom")
SOON_SECONDS = 20.0
LAST_LINES = 12

Stages = Mapping[str, float]


class TimedOutError(UnavailableError):
    """A wait of the demonstration passed its deadline."""


class Wanted(msgspec.Struct, frozen=True):
    """What is shown: from which files, how long a machine may take to boot, and whether the lab stays."""

    packages: Path
    example: Path
    patience_seconds: float
    keep: bool


def run(*, keep: bool, patience_seconds: float) -> int:
    """Run the demonstration; return its exit status, 130 when it was interrupted."""
    wanted = Wanted(
        packages=find(".cache/debian", "PANLOOM_PACKAGES"),
        example=find("examples/web.yaml", "PANLOOM_EXAMPLE"),
        patience_seconds=patience_seconds,
        keep=keep,
    )
    return run_enclosed(lambda enclosure: _inside(enclosure, wanted))


def _inside(enclosure: Enclosure, wanted: Wanted) -> int:
    try:
        return asyncio.run(_run(enclosure, wanted))
    except PanloomError as error:
        Console(stderr=True, highlight=False).print(f"panloom demo: {error}", style="red", markup=False, soft_wrap=True)
        return 1


async def _run(enclosure: Enclosure, wanted: Wanted) -> int:
    console, lab = Console(highlight=False), RunningLab(DIRECTORY)
    with Story(console) as story:
        demonstration = Demonstration(lab, story, wanted)
        try:
            await demonstration.play()
        except TimedOutError as error:
            console.print(await demonstration.obituary(error), markup=False)
            return 1
        finally:
            if not (wanted.keep and demonstration.finished):
                await lab.stop()
    demonstration.summary(console)
    if wanted.keep:
        _say_how_to_go_on(console, lab, enclosure.pid)
        await lab.let_go(enclosure)
    else:
        _say_what_next(console, wanted.example)
    return 0


def _say_how_to_go_on(console: Console, lab: RunningLab, pid: int) -> None:
    console.print(
        f"\nThe lab goes on. In this terminal:\n"
        f"  export PANLOOM_SOCKET=/proc/{pid}/root{lab.control_socket}\n"
        f"  {_program()} get servers --watch      what runs where\n"
        f"  {_program()} show node n3             the stages of its last boot\n"
        f"  {_program()} failover shop/web2       move a server by hand\n"
        f"  {_program()} events -f                what happens, as it happens\n"
        f"  nsenter -t {pid} -n curl -s http://10.1.0.11/facts.txt\n"
        f"  tail -f /proc/{pid}/root{lab.directory}/console/n3.log\n"
        f"End it, and everything with it:\n"
        f"  kill {pid}",
        markup=False,
        soft_wrap=True,
    )


def _say_what_next(console: Console, example: Path) -> None:
    again = f"{_program()} demo --keep"
    console.print(
        f"\nAll of it is gone again. Next:\n"
        f"  {again:<30}  the same, and it stays: look around\n"
        f"  {'less ' + os.path.relpath(example):<30}  the file that declared the servers",
        markup=False,
        soft_wrap=True,
    )


def _program() -> str:
    """Return how this program is called from here."""
    return "scripts/run panloom" if Path("scripts/run").exists() else "panloom"


class Demonstration:
    """The six acts, in order; what they measured stays in ``events``."""

    def __init__(self, lab: RunningLab, story: Story, wanted: Wanted) -> None:
        self._lab = lab
        self._story = story
        self._wanted = wanted
        self._events: list[dict[str, Any]] = []
        self._killed_at = 0.0
        self._victim = ""
        self._spare = ""
        self._answered: dict[tuple[str, int], float] = {}  # (server, epoch): when its page was first there
        self._pages: dict[str, Mapping[str, str]] = {}
        self._macs: dict[str, str] = {}
        self._detail = ""
        self.finished = False

    async def play(self) -> None:
        """Play all acts; TimedOutError when one does not come to its end."""
        story, lab = self._story, self._lab
        story.begin("build the image")
        image = await asyncio.to_thread(build_image, self._wanted.packages, DIRECTORY / "web.img")
        story.done(f"{image.octets >> 20} MiB, Linux {image.kernel}, busybox")

        story.begin("start the chassis")
        await lab.start(DIRECTORY / "web.img", waiting=story.wait)
        following = asyncio.create_task(self._follow())
        try:
            how = "under KVM" if kvm_is_usable() else "no KVM: emulated"
            story.done(f"{len(lab.chassis.machines)} diskless machines, off ({how})")
            await self._boot(self._wanted.example)
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
        applied = time.monotonic()
        story.done(f"{outcome['add']} added; {' and '.join(outcome['boots'])} boot")
        for server in outcome["boots"]:
            story.begin(f"{server} boots", since=applied)
            await self._until("its page", self._wanted.patience_seconds, partial(self._answers, server))
            page = self._pages[server]
            detour = "" if page["epoch"] == "1" else f"; {self._why_it_moved(server)}"
            story.done(f"on {page['node']}, {page['address']}, {page['mac']}, boot {page['boots']}{detour}")

    async def _kill(self) -> None:
        story, lab = self._story, self._lab
        server = min(self._pages)
        before = self._pages[server]
        self._victim = before["node"]
        story.begin(f"kill {self._victim} ({server})")
        self._killed_at = time.monotonic()
        await lab.power(self._victim, "kill")
        fence = await self._until("fenced", SOON_SECONDS, lambda: self._event("fence complete", server=server))
        story.done(f"fenced {fence['monotonic'] - self._killed_at:.2f} s after it died")

        story.begin(f"{server} moves", since=self._killed_at)
        moved = await self._until("a spare takes it", SOON_SECONDS, lambda: self._event("placed", after=fence))
        self._spare = moved["node"]
        await self._until(
            f"its page, from {self._spare}",
            self._wanted.patience_seconds,
            lambda: self._answers(server, epoch=int(before["epoch"]) + 1),
        )
        page = self._pages[server]
        same = page["mac"] == before["mac"] and page["address"] == before["address"]
        if not same or int(page["boots"]) != int(before["boots"]) + 1 or page["node"] != self._spare:
            raise UnavailableError(f"{server} came back as another: it was {before}, it is {page}")
        story.done(f"on {self._spare}, same MAC, address and disk; boot {page['boots']}")

    async def _come_back(self) -> None:
        story, lab, victim = self._story, self._lab, self._victim
        story.begin(f"power {victim} on again")
        since = self._events[-1]
        await lab.power(victim, "on")
        await self._until(
            "it asks to boot", self._wanted.patience_seconds, lambda: self._event("waiting", node=victim, after=since)
        )
        row = await lab.get("resources", "node", victim)
        sessions = await lab.sessions_of(victim)
        stolen = [e for e in self._events if e["kind"] == "boot" and e.get("node") == victim and e["text"] == "script"]
        late = [event for event in stolen if event["number"] > since["number"]]
        if row["server"] is not None or sessions or late:
            raise UnavailableError(f"{victim} got something of its old server: {row}, {sessions}, {late}")
        story.done(f"it gets no disk and no address: {victim} is a {row['state']}")

    # ── facts ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _answers(self, server: str, *, epoch: int = 1) -> bool:
        """Whether the server's page is there, under an epoch that is not over."""
        row = await self._lab.get("resources", "server", server)
        self._detail = f"; {row['node']}: {self._last_stage(row['node'])}" if row["node"] else f"; {row['state']}"
        if not row["address"]:
            return False
        page = await self._lab.page(row["address"][0])
        if page is None or page.get("server") != server or int(page["epoch"]) < epoch:
            return False
        self._pages[server] = page
        self._answered.setdefault((server, int(page["epoch"])), time.monotonic())
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
        return stages[-1] if stages else "no sign yet"

    def _why_it_moved(self, server: str) -> str:
        """Return why a server that nobody touched did not stay where it was."""
        fences = [event for event in self._events if event["kind"] == "fence" and event.get("server") == server]
        return fences[-1]["text"] if fences else "it moved"

    async def _until(self, what: str, seconds: float, fact: Callable[[], Any]) -> Any:  # noqa: ANN401
        deadline = time.monotonic() + seconds
        self._detail = ""
        while True:
            self._story.wait(f"{what} within {seconds:g} s{self._detail}")
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
        lines.append("--- the last events:")
        for event in self._events[-LAST_LINES:]:
            lines.append(f"{event.get('server') or '-'} {event.get('node') or '-'} {event['kind']}: {event['text']}")
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
        moved, page = servers[0], self._pages[servers[0]]
        first = {server: min(epoch for name, epoch in self._answered if name == server) for server in servers}
        stages = {server: self._stages(server, first[server]) for server in servers}
        clones = {event["server"]: event["data"]["seconds"] for event in self._events if event["kind"] == "volume"}

        made = table("What it took", *servers)
        made.add_row("clone of the image", *(f"{clones[server] * 1000:.1f} ms" for server in servers))
        for label, stage in (("power on → first login", "login"), ("         → userland", "userland")):
            made.add_row(label, *(_seconds(stages[server], "powering", stage) for server in servers))
        answered = {server: self._answered[server, first[server]] - stages[server]["powering"] for server in servers}
        made.add_row("         → answering", *(f"{answered[server]:.2f} s" for server in servers))

        again = {**self._stages(moved, int(page["epoch"])), "killed": self._killed_at}
        again["answering"] = self._answered[moved, int(page["epoch"])]
        before = " " * len(f"{self._victim} killed")
        made.add_row(f"{self._victim} killed → detected", _seconds(again, "killed", "fence"))
        made.add_row(f"{before} → fenced", _seconds(again, "killed", "fence complete"))
        made.add_row(f"{before} → {self._spare} reads the disk", _seconds(again, "killed", "first read"))
        made.add_row(f"{before} → {self._spare} answers", _seconds(again, "killed", "answering"))
        console.print()
        console.print(made)
        console.print(
            f" moved to {self._spare}: {page['mac']}, {page['address']}, the disk (boot {page['boots']})", markup=False
        )
        console.print(f" all of it: {time.monotonic() - self._story.began:.0f} s", markup=False)


def _seconds(at: Stages, start: str, stage: str) -> str:
    return f"{at[stage] - at[start]:.2f} s" if stage in at else "?"
