"""Resources as they are shown: the document, its record, and what is observed, in one row of JSON types.

``command/columns.py`` says which keys of a row are columns; all the others show with ``panloom show`` and ``-o json``.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from panloom.control.blades import candidate, hardware_of
from panloom.control.boot_story import BootStory
from panloom.control.disk_statistics import statistics_row
from panloom.control.image_trust import verdict, why_distrusted
from panloom.control.image_updates import update_row
from panloom.control.observer import STORAGE_SECONDS, Observer
from panloom.control.volumes import can_be_made, distrusted, origin_of
from panloom.control.world import World
from panloom.decide.boot_signs import LATE
from panloom.decide.hardware import Hardware
from panloom.decide.image_update import stage_of
from panloom.decide.inventory import System
from panloom.decide.provisioning import is_held, rule_for
from panloom.decide.records import NodeRecord, Phase, ServerRecord
from panloom.errors import UnavailableError
from panloom.model import resources
from panloom.state.contract import Store
from panloom.storage import calls
from panloom.storage.client import StorageClient
from panloom.storage.statistics import Totals
from panloom.values import natural_key

RECENT_SECONDS = 60.0
MAX_NAMED = 8  # servers that one line names
LATE_FENCE_SECONDS = 10.0  # a fence takes less than a second where all answer
LOST = ("quarantined", "unreachable", "no port")  # nodes that somebody must see to
Row = dict[str, Any]
Told = TypeVar("Told")


class Rows:
    """Makes rows from a world and from what the observer sees."""

    def __init__(
        self, storage: StorageClient, observer: Observer, why: Callable[[str], str | None], story: BootStory
    ) -> None:
        self._storage = storage
        self._observer = observer
        self._story = story
        self._why = why

    async def of(self, kind: str, world: World) -> Sequence[Row]:
        """Return one row for each resource of a kind, by name; machines that no document knows come last."""
        rows = sorted(await self._of(kind, world), key=lambda row: natural_key(row["name"]))
        if kind != "node":
            return rows
        return rows + [self._discovered(mac, world) for mac in sorted(self._observer.discovered)]

    async def _of(self, kind: str, world: World) -> Sequence[Row]:
        volumes = await self._volumes() if kind in ("server", "image") else None
        match kind:
            case "server":
                return [self._server(server, world, volumes) for server in world.all(resources.Server).values()]
            case "node":
                return [self._node(node, world) for node in world.all(resources.Node).values()]
            case "image":
                images = world.all(resources.Image).values()
                rows = [_image(image, world, volumes) | {"why": self._why(image.label)} for image in images]
                return rows + [
                    _doomed(label, self._why(label))
                    for label in world.doomed_images - world.all(resources.Image).keys()
                ]
            case "volume":
                return await self._volume_rows(world)
            case "snapshot":
                return [_snapshot(facts) for facts in (await _in_time(self._storage.volumes)).snapshots]
            case "update":
                return [update_row(update) for update in world.updates.values()]
            case "pan":
                return [_pan(pan, world) for pan in world.all(resources.Pan).values()]
            case "rule":
                return [_rule(rule, world) for rule in world.all(resources.Rule).values()]
            case "lan":
                return [_lan(lan, world) for lan in world.all(resources.VirtualLan).values()]
            case _:
                return [_platform(world.platform)] if world.platform else []

    async def details(self, kind: str, row: Row, world: World) -> Row:
        """Return a row with what only ``panloom show`` tells."""
        if kind == "node":
            boot = self._story.tell(row["name"], world.node_records.get(row["name"], NodeRecord()))
            blade = world.blades.get(row["name"])
            told = {"rule": blade.rule or None, "provisioning": [list(step) for step in blade.since]} if blade else {}
            return row | ({"boot": boot} if boot else {}) | told
        if kind == "platform":
            status, _ = await _if_it_answers(self._storage.status)
            return row | {"targets": sorted(export.target for export in status.exports) if status else None}
        if kind == "server":
            server, record = world.all(resources.Server)[row["name"]], world.server_records.get(row["name"])
            nics = [msgspec.to_builtins(nic) for nic in record.nics] if record else []
            told = _system(self._observer.systems.get(row["name"]), record)
            return (
                row | {"nics": nics, "failover": server.failover.model_dump(mode="json"), "prefers": server.node} | told
            )
        return row

    async def status(self, world: World, store: Store) -> Row:
        """Return how the platform is, part by part; one control node and one fabric are "not redundant", no failure."""
        parts: list[Row] = []
        try:
            await store.get("/want/platform")
            parts.append({"part": "state", "state": "ok", "why": ""})
        except UnavailableError as error:
            parts.append({"part": "state", "state": "failed", "why": str(error)})
        try:
            sessions = len((await self._observer.status()).sessions)
            parts.append({"part": "storage", "state": "ok", "why": f"{sessions} sessions"})
        except UnavailableError as error:
            parts.append({"part": "storage", "state": "failed", "why": str(error)})
        volumes = await self._volumes()
        servers = [self._server(server, world, volumes) for server in world.all(resources.Server).values()]
        nodes = [self._node(node, world) for node in world.all(resources.Node).values()]
        lost = [row["node"] for row in nodes if row["state"] in LOST or (row["state"] == "in use" and row["why"])]
        free = sum(row["state"] == "spare" for row in nodes)
        why = f"{free} spare" + (f"; look at {', '.join(lost)}" if lost else "")
        parts.append({"part": "nodes", "state": "degraded" if lost else "ok", "why": why})
        troubled = [f"{row['name']} ({_in_words(row)})" for row in servers if _is_troubled(row)]
        more = [f"{len(troubled) - MAX_NAMED} more"] if len(troubled) > MAX_NAMED else []
        why = f"look at {', '.join(troubled[:MAX_NAMED] + more)}" if troubled else ""
        parts.append({"part": "servers", "state": "degraded" if troubled else "ok", "why": why})
        parts.append({"part": "control nodes", "state": "not redundant", "why": "there is one"})
        parts.append({"part": "fabrics", "state": "not redundant", "why": "there is one"})
        states = {str(part["state"]) for part in parts}
        state = "failed" if "failed" in states else "degraded" if "degraded" in states else "ok, not redundant"
        return {"state": state, "parts": parts}

    async def _volumes(self) -> calls.Volumes | None:
        return (await _if_it_answers(self._storage.volumes))[0]

    def _server(self, server: resources.Server, world: World, volumes: calls.Volumes | None) -> Row:
        record = world.server_records.get(server.label)
        volume = world.disk(server.label)
        facts = _volume_facts(volume.storage_name, volumes) if volume else None
        return {
            "name": server.label,
            "pan": server.pan,
            "server": server.name,
            "node": record.node if record else None,
            **state_of(record, self._observer.dead.get(server.label)),
            "update": stage_of(server.label, world.updates.values()),
            "address": [str(nic.address) for nic in server.nics if nic.address],
            "mac": [nic.mac for nic in record.nics] if record else [],
            "image": (volume.image if volume else "") or server.image,
            "volume": volume.label if volume else None,
            "disk_octets": facts.octets if facts else None,
            "allocated_octets": facts.allocated_octets if facts else None,
            "epoch": record.epoch if record else None,
            "since": record.since if record else None,
            "moves": record.moves if record else 0,
            "why": self._why(server.label) or (self._why_no_disk(volume, volumes, world) if facts is None else None),
        }

    def _why_no_disk(self, volume: resources.Volume | None, volumes: calls.Volumes | None, world: World) -> str | None:
        if volume is None or volumes is None or can_be_made(volume, volumes, world):
            return None
        return self._why(volume.image) or distrusted(volume, volumes, world) or f"waits for {origin_of(volume)}"

    def _node(self, node: resources.Node, world: World) -> Row:
        record = world.node_records.get(node.name, NodeRecord())
        power = self._observer.power.get(node.name)
        state, why = self._node_state(node, record, power)
        blade = world.blades.get(node.name)
        if blade is not None and is_held(blade) and record.quarantined is None:
            state, why = blade.state.value, why or f"becomes {blade.server}"
        return {
            **_known_hardware(node, hardware_of(node, world)),
            "name": node.name,
            "node": node.name,
            "state": state,
            "power": {True: "on", False: "off", None: None}[power],
            "server": record.server,
            "mac": str(node.mac),
            "address": str(node.address),
            "memory_octets": node.memory_octets or hardware_of(node, world).memory_octets or None,
            "port": node.port,
            "why": why,
        }

    def _node_state(self, node: resources.Node, record: NodeRecord, power: bool | None) -> tuple[str, str]:
        if record.quarantined is not None:
            return "quarantined", f"{record.quarantined}; mend it, then: panloom node release {node.name}"
        why = self._why(f"node {node.name}")
        if record.server is not None:
            return "in use", why or ""
        if record.power_unknown:
            return "fenced", "nobody has seen it go off; switch it off and on by hand"
        if why is not None:
            return "no port", why
        if node.power is not None and power is None:
            return "unreachable", "its power supervisor does not answer"
        asked = self._observer.waiting.get(node.name)
        waits = asked is not None and time.monotonic() - asked < RECENT_SECONDS
        return "spare", "asks to boot and waits" if waits else ""

    def _discovered(self, mac: str, world: World) -> Row:
        found = self._observer.discovered[mac]
        why = f"asks to boot; take it in: panloom node approve {mac}"
        row: Row = {"name": mac, "node": None, "state": "discovered", "power": "on", "server": None, "mac": mac}
        rule = rule_for(candidate(found), world.all(resources.Rule).values())
        if rule is not None and rule.approve == "prompt":
            why = f"its console asks what it becomes; or say so: panloom node install {mac} --image IMAGE"
        late = LATE["dhcp"]
        if not found.asked_at and time.monotonic() - found.known_at > late.seconds:  # it asks no more than an address
            why = f"{late.cause}; or see what it asked for: panloom events"
        why = self._why(mac) or why
        row |= {"address": found.address, "since": found.first_seen, "why": why, "rule": rule.name if rule else None}
        return row | _hardware(found.hardware) | {"memory_octets": found.hardware.memory_octets or None}

    async def _volume_rows(self, world: World) -> Sequence[Row]:
        (volumes, why), (statistics, why_none) = await asyncio.gather(
            _if_it_answers(self._storage.volumes), _if_it_answers(self._storage.statistics)
        )
        rows = []
        for volume in world.all(resources.Volume).values():
            row = self._volume(volume, world, volumes)
            row["statistics"] = _statistics(volume, statistics) if statistics else None
            row["why"] = row["why"] or why or why_none
            rows.append(row)
        return rows

    def _volume(self, volume: resources.Volume, world: World, volumes: calls.Volumes | None) -> Row:
        facts = _volume_facts(volume.storage_name, volumes)
        return {
            "name": volume.label,
            "volume": volume.label,
            "image": volume.image,
            "snapshot": f"{volume.pan}/{volume.snapshot}" if volume.snapshot else None,
            "origin": f"{volume.pan}/{volume.snapshot}" if volume.snapshot else volume.image,
            "provisioning": volume.provisioning,
            "limits": volume.limits.model_dump(),
            "disk_octets": facts.octets if facts else None,
            "allocated_octets": facts.allocated_octets if facts else None,
            "unique_octets": facts.unique_octets if facts else None,
            "shared_octets": facts.shared_octets if facts else None,
            "server": volume.serves if volume.serves in world.all(resources.Server) else None,
            "state": _volume_state(facts, volumes),
            "epoch": facts.epoch if facts else None,
            "why": self._why(f"volume {volume.label}"),
        }


async def _in_time(ask: Callable[[], Awaitable[Told]]) -> Told:
    try:
        async with asyncio.timeout(STORAGE_SECONDS):
            return await ask()
    except TimeoutError as error:
        raise UnavailableError(f"the storage process has not answered for {STORAGE_SECONDS:g} s") from error


async def _if_it_answers(ask: Callable[[], Awaitable[Told]]) -> tuple[Told | None, str | None]:
    """Return what the storage process tells, or why it tells nothing."""
    try:
        return await _in_time(ask), None
    except UnavailableError as error:
        return None, str(error)


def _is_troubled(row: Row) -> bool:
    """Whether a server is not as it should be, or somebody must see to it."""
    state, since = row["state"], row["since"] or 0.0
    late = state == Phase.FENCING.value and time.time() - since > LATE_FENCE_SECONDS
    return late or bool(row["why"]) or state in (Phase.WAITING.value, "dead")


def _in_words(row: Row) -> str:
    return f"{row['state']}: {row['detail']}" if row.get("detail") else str(row["state"])


def state_of(record: ServerRecord | None, dead: str | None) -> Row:
    """Return a server's state in one word, and what there is to say about it: its fence's last step, why it is dead."""
    if record is None:
        return {"state": "new"}
    if record.fence is not None:
        return {"state": Phase.FENCING.value, "detail": f"{record.fence.done.value} done"}
    if record.phase is not Phase.UP:
        return {"state": record.phase.value}
    return {"state": "dead", "detail": dead} if dead else {"state": Phase.UP.value}


def _system(told: System | None, record: ServerRecord | None) -> Row:
    """Return what a server's agent says of its system; nothing of a system that it had before."""
    if told is None or record is None or told.epoch != record.epoch:
        return {}
    heard = time.time() - (time.monotonic() - told.at)
    units = list(told.failed_units)
    return {"system": told.system, "kernel": told.kernel, "failed_units": units, "agent_heard": heard}


def _volume_facts(name: str, volumes: calls.Volumes | None) -> calls.VolumeFacts | None:
    return next((volume for volume in volumes.volumes if volume.name == name), None) if volumes else None


def _statistics(volume: resources.Volume, told: calls.Statistics) -> Row:
    name = f"volume:{volume.storage_name}"
    totals = next((device.totals for device in told.devices if device.name == name), Totals())
    return statistics_row(totals, told.since)


def _volume_state(facts: calls.VolumeFacts | None, volumes: calls.Volumes | None) -> str:
    if facts is None:
        return "unknown" if volumes is None else "to be made"
    return "being flattened" if facts.flattening else "ready"


def _snapshot(facts: calls.SnapshotFacts) -> Row:
    label, volume = facts.name.replace(".", "/", 1), facts.name.partition("@")[0].replace(".", "/", 1)
    return {
        "name": label,
        "snapshot": label,
        "volume": volume,
        "disk_octets": facts.octets,
        "allocated_octets": facts.allocated_octets,
        "since": facts.taken_at,
        "clones": [clone.replace(".", "/", 1) for clone in facts.clones],
    }


def _image(image: resources.Image, world: World, volumes: calls.Volumes | None) -> Row:
    facts = next((known for known in volumes.images if known.name == image.label), None) if volumes else None
    record = world.image_records.get(image.label)
    cloned = [volume for volume in volumes.volumes if volume.image == image.label] if volumes else []
    return {
        "name": image.label,
        "image": image.label,
        "octets": facts.octets if facts else None,
        "sha256": facts.sha256 if facts else None,
        "state": "ready" if facts else "to be imported",
        "source": image.origin,
        "format": record.format if record else image.format,
        "source_sha256": (record.source_sha256 or (facts.sha256 if facts else None)) if record else None,
        "since": record.at if record and facts else None,
        "clones": [volume.name.replace(".", "/", 1) for volume in cloned],
        "tags": list(image.tags),
        "signed": _signed(image, facts, world),
        "distrusted": why_distrusted(image, facts, world) if facts else None,
        "provenance": image.provenance,
    }


def _doomed(label: str, why: str | None) -> Row:
    """Return the row of an image that is being destroyed, and what that waits for."""
    nobodys: Row = {"clones": [], "tags": [], "source": None, "octets": None, "signed": None, "since": None}
    return {"name": label, "image": label, "state": "to be destroyed", **nobodys, "why": why}


def _signed(image: resources.Image, facts: calls.ImageFacts | None, world: World) -> str | None:
    """Return by which trusted keys an image is signed, or ``bad`` or ``no``; None while it is not there."""
    if facts is None:
        return None
    found = verdict(image, facts, world)
    return "bad" if found.bad else ", ".join(found.by) or "no"


def _pan(pan: resources.Pan, world: World) -> Row:
    servers = [server.name for server in world.all(resources.Server).values() if server.pan == pan.name]
    lans = [lan.name for lan in world.all(resources.VirtualLan).values() if lan.pan == pan.name]
    return {"name": pan.name, "pan": pan.name, "servers": servers, "lans": lans}


def _hardware(hardware: Hardware) -> Row:
    return {name: value for name, value in msgspec.structs.asdict(hardware).items() if name != "memory_octets"}


def _known_hardware(node: resources.Node, told: Hardware) -> Row:
    """Return what a node's document says of it, and what it says itself beside that."""
    known = _hardware(told) if told != Hardware() else {}
    written = {"cores": node.cores, "architecture": node.architecture}
    return known | {name: value for name, value in written.items() if value}


def _rule(rule: resources.Rule, world: World) -> Row:
    match = {word: value for word, value in rule.match.model_dump().items() if value}
    becoming = rule.server
    return {
        "name": rule.name,
        "rule": rule.name,
        "match": match,
        "pan": becoming.pan if becoming else None,
        "image": becoming.image if becoming else None,
        "approve": rule.approve,
        "nodes": [name for name, record in world.blades.items() if record.rule == rule.name],
    }


def _lan(lan: resources.VirtualLan, world: World) -> Row:
    record = world.lan_records.get(lan.label)
    members = [
        {"server": name, "mac": nic.mac, "vni": nic.vni, "node": world.server_records[name].node}
        for name, server in sorted(world.all(resources.Server).items())
        if server.pan == lan.pan and name in world.server_records
        for nic in world.server_records[name].nics
        if nic.lan == lan.name and any(wanted.lan == lan.name for wanted in server.nics)
    ]
    return {
        "name": lan.label,
        "pan": lan.pan,
        "lan": lan.name,
        "subnet": str(lan.subnet),
        "range": "-".join(str(address) for address in lan.range) if lan.range else None,
        "router": str(lan.router) if lan.router else None,
        "dns": [str(address) for address in lan.dns],
        "domain": lan.domain,
        "vni": record.vni if record else None,
        "members": members,
    }


def _platform(platform: resources.Platform) -> Row:
    storage = platform.storage
    settings: Mapping[str, Any] = platform.model_dump(mode="json")
    return {
        "name": platform.name,
        "platform": platform.name,
        "interface": storage.interface,
        "address": str(storage.address),
        "subnet": str(storage.subnet),
        "discovery": "-".join(str(address) for address in storage.discovery) if storage.discovery else None,
        "auth": platform.auth,
        "approve": platform.approve,
        "liveness": settings["liveness"],
        "boot_timeout_seconds": platform.boot_timeout_seconds,
        "max_boot_attempts": platform.max_boot_attempts,
        "consoles": settings["consoles"],
        "images": settings["images"],
    }
