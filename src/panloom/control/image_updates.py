"""Updates of images carried out: each step that ``decide.image_update`` names is one commit, and an event.

    panloom image update web@2 ──begin──▶ /record/image-update/web ──┐
                                                                     ▼
        World, volumes, health ──▶ Seen ──▶ next_steps ──▶ step: documents and record together
              ▲                                              │
              └── reconciler: makes disks, fences, boots ◀───┘

Nothing but the record and the documents says how far an update is: a control process that is killed anywhere goes on.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import msgspec

from panloom.control import failpoint
from panloom.control.documents import Documents, Edit
from panloom.control.events import EventLog
from panloom.control.health_checks import HealthChecks
from panloom.control.image_trust import why_distrusted
from panloom.control.observer import Observer
from panloom.control.personalities import personality_of
from panloom.control.world import DOOMED, SERVERS, UPDATES, World
from panloom.decide.image_update import (
    ENDED,
    UNDER_WAY,
    Begin,
    Discard,
    End,
    ImageUpdate,
    Prepare,
    Seen,
    Stage,
    Step,
    Stop,
    Swap,
    SwapBack,
    Turn,
    next_steps,
    story,
    with_stage,
)
from panloom.decide.plan import newest
from panloom.decide.records import Phase
from panloom.errors import ConfigError, ConfigErrors, ConflictError, PanloomError
from panloom.model.disks import disks, handed_over, next_name
from panloom.model.resources import WANT, Image, Resource, Server, Volume
from panloom.model.sources import did_you_mean
from panloom.state.contract import Store
from panloom.values import MacAddress, natural_key

MAX_WIDTH = 100
AWAKE_SECONDS = 2.0
"""What counts at most of the time between two looks: in a longer one this process did not run."""


class ImageUpdates:
    """Begins updates and carries them out; ``why`` says what holds a volume up, ``wake`` asks for a pass."""

    def __init__(
        self,
        store: Store,
        observer: Observer,
        events: EventLog,
        why: Callable[[str], str | None],
        wake: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._documents = Documents(store)
        self._observer = observer
        self._events = events
        self._why = why
        self._wake = wake
        self._clock = clock
        self._checks = HealthChecks(wake)
        self._looked_at = clock()
        self._awake_seconds = 0.0
        self._began: dict[tuple[object, ...], float] = {}
        """What is timed → ``_awake_seconds`` when it was seen first."""

    # ── asked for ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def begin(self, image: str, asked: str, servers: Sequence[str], width: int, who: str) -> ImageUpdate:
        """Begin an update; one that is under way to the same version is returned as it is.

        ConfigError: there is no such version or server.  ConflictError: the image is being updated to another.
        """
        world = await World.read(self._store)
        version = newest(f"{image}@{asked}" if asked else image, world.all(Image).values())
        if version is None or version not in world.all(Image):
            known = [label for label, one in world.all(Image).items() if one.name == image] or list(world.all(Image))
            raise ConfigError(
                f"image {image}", f"there is no {asked or 'version'}; {did_you_mean(version or '', known)}"
            )
        if not 1 <= width <= MAX_WIDTH:
            raise ConfigError("width", f"is {width}; write 1 to {MAX_WIDTH} servers at a time")
        stored = {facts.name: facts for facts in (await self._observer.volumes()).images}
        if version not in stored or version in world.doomed_images:
            why = self._why(version) or "it is not in the store yet"
            raise ConflictError(f"image {version} cannot be cloned: {why}")
        if distrusted := why_distrusted(world.all(Image)[version], stored[version], world):
            raise ConfigError(f"image {version}", distrusted)
        under_way = world.updates.get(image)
        if under_way is not None and under_way.ended_at is None:
            more = [name for name in _concerned(image, version, servers, world) if under_way.turn(name) is None]
            if under_way.version == version and not under_way.stopped and not more:
                return under_way
            raise ConflictError(
                f"image {image} is being updated to {under_way.version} ({story(under_way)}); "
                f"wait for its end, or: panloom image update {image} --stop"
            )
        turns = [Turn(name) for name in _concerned(image, version, servers, world)]
        asked = f"{image}@{asked}" if asked else version
        made = ImageUpdate(image, asked, version, width, who, time.time(), tuple(turns))
        if not turns:
            return msgspec.structs.replace(made, ended_at=made.at)
        await world.edit(updates={image: made}, rests_on=(world.all(Image)[version].key,))
        text = f"{image}: {len(turns)} servers to {version}, {width} at a time"
        self._events.report("image update", text, who=who)
        failpoint.reached("update begun")
        self._wake()
        return made

    async def stop(self, image: str, who: str) -> ImageUpdate:
        """Let no further server begin; those that have begun come to their end."""
        world = await World.read(self._store)
        update = world.updates.get(image)
        if update is None or update.ended_at is not None:
            raise ConflictError(f"image {image} is not being updated")
        if not update.stopped:
            update = msgspec.structs.replace(update, stopped=f"{who} asked for it")
            await world.edit(updates={image: update})
            self._events.report("image update", f"{image}: {update.stopped}: no further server begins", who=who)
        self._wake()
        return update

    # ── carried out ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def tend(self, world: World) -> None:
        """Do what is to be done now for every update that is under way."""
        now = self._clock()
        self._awake_seconds += min(now - self._looked_at, AWAKE_SECONDS)
        self._looked_at = now
        running = {image: update for image, update in world.updates.items() if update.ended_at is None}
        if not running:
            self._began.clear()
            self._checks.forget(frozenset())
            return
        made = {facts.name for facts in (await self._observer.volumes()).volumes}
        subjects: set[str] = set()
        timed = dict(self._began)
        self._began = {}
        failures: list[PanloomError] = []
        for update in running.values():
            seen = {}
            for turn in update.turns:
                seen[turn.server] = self._see(turn, update, world, made, timed, subjects)
            failures += [error async for error in self._do_all(update.image, next_steps(update, seen))]
        self._checks.forget(frozenset(subjects))
        if failures:
            raise failures[0]

    async def _do_all(self, image: str, steps: Sequence[Step]) -> AsyncIterator[PanloomError]:
        """Carry out steps, and yield what went wrong: one server holds no other up, but nobody goes before a stop."""
        for step in steps:
            try:
                await self._do(image, step)
                self._wake()
            except PanloomError as error:
                yield error
                if isinstance(step, Stop):
                    return

    def close(self) -> None:
        """End the checks that are under way."""
        self._checks.forget(frozenset())

    def _see(
        self,
        turn: Turn,
        update: ImageUpdate,
        world: World,
        made: set[str],
        timed: Mapping[tuple[object, ...], float],
        subjects: set[str],
    ) -> Seen:
        server, record = world.all(Server).get(turn.server), world.server_records.get(turn.server)
        disk, new = world.disk(turn.server), world.all(Volume).get(turn.new)
        if server is None or record is None or disk is None or turn.stage in ENDED:
            return Seen(wanted=False)
        up, trouble = record.phase is Phase.UP and turn.server not in self._observer.dead, ""
        well = up
        if turn.stage is Stage.ON_TRIAL and up:
            subject = f"{turn.server} {record.epoch}"
            settled = self._is_settled(server, self._lasted(("up", subject), timed))
            found = self._ask(server, subject, world, subjects)
            trouble = found or ("" if settled else "it has not been up for long enough")
            well = settled and found == ""
        elif turn.stage is Stage.ON_TRIAL:
            trouble = self._observer.dead.get(turn.server) or self._why(turn.server) or f"it is {record.phase.value}"
        elif turn.stage is Stage.MAKING:
            trouble = self._why(f"volume {turn.new}") or ""
        return Seen(
            image=disk.image,
            ready=new is not None and new.storage_name in made,
            fenced=record.node is None,
            up=up,
            well=well,
            trouble=trouble,
            hopeless=_hopeless(turn, disk, world),
            lasted_seconds=self._lasted((update.image, update.at, turn.server, turn.stage), timed),
            within_seconds=server.health.within_seconds,
        )

    def _lasted(self, what: tuple[object, ...], timed: Mapping[tuple[object, ...], float]) -> float:
        self._began[what] = timed.get(what, self._awake_seconds)
        return self._awake_seconds - self._began[what]

    def _is_settled(self, server: Server, up_seconds: float) -> bool:
        """Whether a server was heard of when it had been up for long enough: one that fell silent is no longer up."""
        unheard = self._observer.liveness.unheard(server.label, time.monotonic())
        return up_seconds - unheard >= server.health.settle_seconds

    def _ask(self, server: Server, subject: str, world: World, subjects: set[str]) -> str | None:
        """Return what a server's own checks met; nothing if it has none, None if that is not known yet."""
        health, record = server.health, world.server_records[server.label]
        if health.tcp is None and health.command is None:
            return ""
        subjects.add(subject)
        nic = next(iter(personality_of(server.label, record, world).nics), None)
        leased = world.leased.get(MacAddress.parse(nic.mac), ()) if nic else ()
        address = str(next(iter(leased), "")) if nic is None or not nic.address else nic.address
        return self._checks.trouble_of(subject, health, server.label, address, record.node or "")

    async def _do(self, image: str, step: Step) -> None:
        """Carry out one step.  Any PanloomError means: not done, asked again with the next pass."""
        world = await World.read(self._store)
        update = world.updates[image]
        match step:
            case Prepare(server):
                await self._prepare(update, server, world)
            case Begin(server, stage, why):
                await self._note(update, server, stage, why, world)
            case Discard(server, why):
                await self._discard(update, server, why, world)
            case Swap(server):
                await self._swap(update, server, world, back=False)
            case SwapBack(server):
                await self._swap(update, server, world, back=True)
            case Stop(why):
                await world.edit(updates={image: msgspec.structs.replace(update, stopped=why)})
                self._events.report("image update", f"{image}: no further server begins: {why}")
                failpoint.reached("update stopped")
            case End():
                ended = msgspec.structs.replace(update, ended_at=time.time())
                await world.edit(updates={image: ended})
                self._events.report("image updated", f"{image}: {story(ended)}", seconds=time.time() - update.at)

    async def _prepare(self, update: ImageUpdate, name: str, world: World) -> None:
        doomed = {label.partition("/")[2] for label in world.doomed}
        kept = {facts.name for facts in (await self._observer.volumes()).volumes}
        noted = update

        def change(stored: Mapping[str, Resource]) -> Edit:
            nonlocal noted
            server, old = _server_and_disk(name, stored)
            taken = {one.name for one in stored.values() if isinstance(one, Volume | Server) and one.pan == server.pan}
            taken |= {made.removeprefix(f"{server.pan}.") for made in kept}  # a disk that no document knows of, too
            new = old.model_copy(
                update={
                    "name": next_name(server.name, taken | doomed),
                    "image": update.version,
                    "snapshot": None,
                    "server": "",
                }
            )
            facts = {"old": old.label, "new": new.label, "written": server.image}
            noted = with_stage(update, name, Stage.MAKING, wall=time.time(), **facts)
            return Edit({new.key: new}, also=_record(noted))

        failpoint.reached("prepare disk")
        try:
            await self._documents.edit(change, what="image update", who=update.who, rests_on=_revision(update, world))
        except (ConfigError, ConfigErrors) as error:
            why = f"{name} keeps its disk: {error}"
            await world.edit(updates={update.image: msgspec.structs.replace(update, stopped=why)})
            return
        failpoint.reached("disk prepared")
        turn = noted.turn(name)
        self._events.report("image update", f"{turn.new if turn else ''} is to be its new disk", server=name)

    async def _note(self, update: ImageUpdate, name: str, stage: Stage, why: str, world: World) -> None:
        failpoint.reached(f"note {stage.value}")
        turn = update.turn(name) or Turn(name)
        await world.edit(updates={update.image: with_stage(update, name, stage, wall=time.time(), why=why)})
        told = {
            Stage.UPDATED: f"is well with {update.version}; its disk before stays: {turn.old}",
            Stage.WENT_BACK: f"is back on {turn.old}; what it wrote on {turn.new} stays",
        }
        self._events.report("image update", told.get(stage, stage.value) + (f": {why}" if why else ""), server=name)
        failpoint.reached(stage.value)

    async def _discard(self, update: ImageUpdate, name: str, why: str, world: World) -> None:
        """Destroy a new disk that no node was ever given."""
        turn = update.turn(name)
        label = turn.new if turn else ""
        key = f"{WANT}volume/{label}"

        def change(stored: Mapping[str, Resource]) -> Edit:
            volume = stored.get(key)
            noted = _record(with_stage(update, name, Stage.LEFT, wall=time.time(), why=why))
            if not isinstance(volume, Volume) or volume.server != "":
                return Edit({}, also=noted)
            return Edit({}, frozenset((key,)), {DOOMED + label: b"panloom", **noted})

        failpoint.reached("discard disk")
        await self._documents.edit(change, what="image update", who=update.who, rests_on=_revision(update, world))
        failpoint.reached("disk discarded")
        self._events.report("image update", f"{Stage.LEFT.value}: {why}", server=name)

    async def _swap(self, update: ImageUpdate, name: str, world: World, *, back: bool) -> None:
        """Put one disk in the place of the other, in the commit that says so; no node has either."""
        record, turn = world.server_records.get(name), update.turn(name)
        if record is None or turn is None or record.node is not None:
            raise ConflictError(f"{name} holds a node again")
        gone, come = (turn.new, turn.old) if back else (turn.old, turn.new)
        stage = Stage.COMING_BACK if back else Stage.ON_TRIAL

        def change(stored: Mapping[str, Resource]) -> Edit:
            server, disk = _server_and_disk(name, stored)
            other = stored.get(f"{WANT}volume/{come}")
            noted = _record(with_stage(update, name, stage, wall=time.time(), why=turn.why))
            if disk.label != gone or not isinstance(other, Volume) or other.serves is not None:
                raise ConflictError(f"the disks of {name} are no longer {gone} and {come}")
            before = turn.written if _means_one(turn.written, stored) else other.image
            image = before if back else _image_written(server.image, update, stored)
            changed = server.model_copy(update={"image": image})
            return Edit({**handed_over(server, disk, other), server.key: changed}, also=noted)

        failpoint.reached(f"swap to {'old' if back else 'new'}")
        rests_on = {**_revision(update, world), **world.revisions((SERVERS + name,))}
        await self._documents.edit(change, what="image update", who=update.who, rests_on=rests_on)
        failpoint.reached(f"swapped to {'old' if back else 'new'}")
        self._events.report("image update", f"its disk is {come} from now on; {gone} stays", server=name)


def _concerned(image: str, version: str, servers: Sequence[str], world: World) -> list[str]:
    """Return the servers to update, in order; ConfigError for one that was named and is no server of the image."""
    of_image = {
        label: disk.image
        for label in world.all(Server)
        if (disk := world.disk(label)) is not None and disk.image.partition("@")[0] == image
    }
    for name in servers:
        if name not in world.all(Server):
            why = f"there is none of that name; {did_you_mean(name, world.all(Server))}"
            raise ConfigError(f"server {name}", why)
        if name not in of_image:
            raise ConfigError(f"server {name}", f"its disk is no clone of {image}; see: panloom get volumes")
    chosen = [name for name in of_image if not servers or name in servers]
    return sorted((name for name in chosen if of_image[name] != version), key=natural_key)


def _server_and_disk(name: str, stored: Mapping[str, Resource]) -> tuple[Server, Volume]:
    server, disk = stored.get(f"{WANT}server/{name}"), disks(stored.values()).get(name)
    if not isinstance(server, Server) or disk is None:
        raise ConflictError(f"{name} is deleted")
    return server, disk


def _image_written(written: str, update: ImageUpdate, stored: Mapping[str, Resource]) -> str:
    """Return what a server's document says once it has the version: as before where that means it."""
    _, _, which = written.partition("@")
    image = stored.get(f"{WANT}image/{update.version}")
    means_it = not which or (isinstance(image, Image) and which in image.tags)
    return (
        written
        if means_it
        else update.asked
        if newest(update.asked, stored.values()) == update.version
        else update.version
    )


def _means_one(written: str, stored: Mapping[str, Resource]) -> bool:
    """Whether a version is meant by what was written; a tag may be on none by now."""
    return f"{WANT}image/{newest(written, stored.values())}" in stored


def _hopeless(turn: Turn, disk: Volume, world: World) -> str:
    """Return why a server can never have the disk that it is to have next, nothing while it can."""
    match turn.stage:
        case Stage.MAKING | Stage.FENCING:
            gone, come = turn.old, turn.new
        case Stage.FENCING_BACK:
            gone, come = turn.new, turn.old
        case _:
            return ""
    other = world.all(Volume).get(come)
    if other is None:
        return f"volume {come} is gone"
    if other.serves is not None:
        return f"volume {come} is the disk of server {other.serves}"
    return "" if disk.label == gone else f"its disk is {disk.label} by now"


def _record(update: ImageUpdate) -> dict[str, bytes]:
    return {UPDATES + update.image: msgspec.json.encode(update)}


def _revision(update: ImageUpdate, world: World) -> Mapping[str, int]:
    return world.revisions((UPDATES + update.image,))


def update_row(update: ImageUpdate) -> dict[str, object]:
    """Return an update as it is shown."""
    state = "under way" if update.ended_at is None else "stopped" if update.stopped else "done"
    return {
        "name": update.image,
        "image": update.image,
        "version": update.version,
        "asked": update.asked,
        "state": state if update.ended_at or not update.stopped else "stopping",
        "updated": sum(turn.stage is Stage.UPDATED for turn in update.turns),
        "servers": len(update.turns),
        "width": update.width,
        "who": update.who,
        "since": update.at,
        "under_way": [turn.server for turn in update.turns if turn.stage in UNDER_WAY],
        "story": story(update),
        "turns": [_turn_row(turn) for turn in update.turns],
    }


def _turn_row(turn: Turn) -> dict[str, object]:
    return {
        "server": turn.server,
        "stage": turn.stage.value,
        "old": turn.old,
        "new": turn.new,
        "since": turn.since,
        "why": turn.why,
    }
