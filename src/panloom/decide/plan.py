"""What an apply would do: stored resources on one side, documents on the other, the difference between.

    have (stored) ─┐                      + add      not stored yet
                   ├─ subtract ─▶ Plan    ~ change   stored, but another
    want (loaded) ─┘                      - remove   stored, named no longer: shown always, done only when pruning

Removal has a scope: a file speaks for what it brought last time, and a PAN document for everything that files brought
into its PAN; what other files brought, or a rule made of a new machine, is left alone.  A volume is never removed here:
a pruned server leaves its disk behind.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from enum import Enum

import msgspec

from panloom.model.disks import disks, is_server_disk
from panloom.model.resources import (
    WANT,
    Disk,
    Image,
    Member,
    Nic,
    Node,
    Platform,
    Resource,
    Rule,
    Server,
    VirtualLan,
    Volume,
    order,
)
from panloom.values import format_size

Preview = Callable[[Mapping[str, Resource], tuple[Server, ...]], Mapping[str, str]]
"""From all that will be wanted, and the servers that will boot, to a line per server: where it boots, and why."""


class Mark(Enum):
    """What happens to a resource."""

    ADD = "+"
    CHANGE = "~"
    REMOVE = "-"


class Effect(Enum):
    """What happens to a server's machine."""

    NONE = ""
    BOOTS = "boots"
    REBOOTS = "reboots"
    STOPS = "stops"


class Field(msgspec.Struct, frozen=True):
    """One field that differs, as people read it."""

    path: str
    old: str
    new: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One resource that will not stay as it is. ``implied``: it comes with a server and is not counted by itself."""

    mark: Mark
    key: str
    before: Resource | None = None
    after: Resource | None = None
    detail: str = ""
    fields: tuple[Field, ...] = ()
    effect: Effect = Effect.NONE
    note: str = ""
    implied: bool = False

    @property
    def resource(self) -> Resource:
        """The resource as it will be, or was."""
        found = self.after or self.before
        if found is None:
            raise ValueError(f"a change of {self.key} from nothing to nothing")
        return found


class Plan(msgspec.Struct, frozen=True):
    """The changes in the order in which they are made."""

    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()
    """What will go wrong later if nothing else changes."""

    def count(self, mark: Mark) -> int:
        """Return how many a person would count."""
        return sum(change.mark is mark and not change.implied for change in self.changes)

    def without(self, mark: Mark) -> "Plan":
        """Return the plan that leaves that kind of change undone."""
        return msgspec.structs.replace(
            self, changes=tuple(change for change in self.changes if change.mark is not mark)
        )

    def servers(self, effect: Effect) -> tuple[str, ...]:
        """Return the servers whose machines that happens to."""
        return tuple(change.resource.label for change in self.changes if change.effect is effect)


class Refusal(msgspec.Struct, frozen=True):
    """A wish that would destroy data: which resource, which field, and how to mend it."""

    key: str
    steps: tuple[str, ...]
    why: str


def nothing_to_preview(_wanted: Mapping[str, Resource], _servers: tuple[Server, ...]) -> Mapping[str, str]:
    """Preview for callers that place nothing."""
    return {}


def newest(name: str, resources: Iterable[Resource]) -> str | None:
    """Return ``name`` with the version to clone: as written, else the highest, of its tag; None if there is none."""
    wanted, _, which = name.partition("@")
    if which.isdigit():
        return name
    images = (image for image in resources if isinstance(image, Image) and image.name == wanted)
    versions = [image.version for image in images if not which or which in image.tags]
    return f"{wanted}@{max(versions)}" if versions else None


def volumes(have: Mapping[str, Resource], want: Mapping[str, Resource]) -> tuple[dict[str, Volume], list[Refusal]]:
    """Return the volumes that the servers and volume documents of ``want`` ask for, by key.

    A disk that exists keeps what it is a clone of, and never becomes smaller: a server that says only ``web`` keeps the
    version it was cloned from, and one that asks for another image or less than the disk has is refused.
    """
    found: dict[str, Volume] = {}
    refusals: list[Refusal] = []
    spec: Disk | Volume
    steps: tuple[str, ...]
    known = disks(have.values())
    for resource in sorted(want.values(), key=lambda resource: isinstance(resource, Volume)):
        if isinstance(resource, Server):
            spec, steps = resource.disk, ("disk",)
        elif isinstance(resource, Volume) and resource.key not in found and not is_server_disk(resource, want):
            spec, steps = resource, ()
        else:
            continue
        disk = Volume(
            pan=resource.pan,
            name=resource.name,
            image="" if spec.snapshot else resource.image,
            size_octets=spec.size_octets,
            snapshot=spec.snapshot,
            provisioning=spec.provisioning,
            limits=spec.limits,
        )
        stored = (known.get(resource.label) if isinstance(resource, Server) else None) or have.get(disk.key)
        if isinstance(stored, Volume):
            refusals += [Refusal(resource.key, *why) for why in _differences(stored, disk, steps)]
            kept = {"size_octets": max(stored.size_octets, disk.size_octets), "limits": disk.limits}
            if isinstance(resource, Server) and stored.serves != resource.label:
                if stored.serves is not None:
                    why = f"the volume of that name is the disk of server {stored.serves}; call the server otherwise"
                    refusals.append(Refusal(resource.key, (), why))
                    continue
                kept["server"] = None  # a disk that it had before an update: nobody's since, and its own again
            found[stored.key] = stored.model_copy(update=kept)
        elif disk.snapshot:
            found[disk.key] = disk
        elif image := newest(resource.image, want.values()):
            found[disk.key] = disk.model_copy(update={"image": image})
    return found, refusals


def other_sources(have: Mapping[str, Resource], want: Mapping[str, Resource]) -> dict[str, Refusal]:
    """Return, by label, why an image version that was copied in already cannot be another disk from now on."""
    found = {}
    for key, image in want.items():
        stored = have.get(key)
        if isinstance(image, Image) and isinstance(stored, Image) and _content(stored) != _content(image):
            versions = [
                other.version for other in want.values() if isinstance(other, Image) and other.name == image.name
            ]
            mend = f"write that again, or the other as a new version: {max(versions) + 1}"
            why = f"{image.label} was copied in from {stored.origin} and stays what it is; {mend}"
            found[image.label] = Refusal(key, ("source" if image.source else "capture",), why)
    return found


def _is_any_version(asked: str, name: str) -> bool:
    """Whether that asks for an image by name or tag, whatever version it has become."""
    wanted, _, which = asked.partition("@")
    return wanted == name and not which.isdigit()


def _content(image: Image) -> tuple[str | None, ...]:
    return (image.origin, image.format, image.sha256)


def _differences(stored: Volume, asked: Volume, steps: tuple[str, ...]) -> Iterable[tuple[tuple[str, ...], str]]:
    mend = f"write that again, or destroy the disk with all its data: panloom delete volume {stored.label} --yes"
    origin = f"snapshot {stored.snapshot}" if stored.snapshot else stored.image
    if asked.snapshot != stored.snapshot:
        yield (*steps, "snapshot"), f"the disk {stored.label} is a clone of {origin}; {mend}"
    elif asked.image != stored.image and not _is_any_version(asked.image, stored.image.partition("@")[0]):
        if stored.serves and asked.image.partition("@")[0] == stored.image.partition("@")[0]:
            mend = (
                f"write that again, or give the server a new disk: panloom image update {asked.image} {stored.serves}"
            )
        yield ("image",), f"the disk {stored.label} is a clone of {origin}; {mend}"
    if asked.provisioning != stored.provisioning:
        yield (*steps, "provisioning"), f"the disk {stored.label} is {stored.provisioning} and stays so; {mend}"
    if asked.size_octets < stored.size_octets:
        size = format_size(stored.size_octets)
        yield (*steps, "size"), f"the disk {stored.label} has {size} and cannot become smaller; {mend}"


def absent(
    have: Mapping[str, Resource],
    want: Iterable[str],
    *,
    origins: Mapping[str, str],
    files: frozenset[str],
    pans: frozenset[str],
) -> frozenset[str]:
    """Return the keys that the files no longer name.

    ``origins`` says from which file each stored key came, ``files`` are those read now, ``pans`` what they describe.
    What came from none, as a rule's server, no file can fail to name.
    """
    named = frozenset(want)
    return frozenset(
        key
        for key, resource in have.items()
        if key not in named
        and not isinstance(resource, Volume)
        and key in origins
        and (origins[key] in files or (isinstance(resource, Member) and resource.pan in pans))
    )


def changes(
    have: Mapping[str, Resource],
    want: Mapping[str, Resource],
    *,
    absent: frozenset[str] = frozenset(),
    preview: Preview = nothing_to_preview,
) -> Plan:
    """Return what takes ``have`` to ``want`` and away with ``absent``; resources in neither stay as they are."""
    clones, had = disks(want.values()), disks(have.values())
    live = {
        (lan.pan, lan.name)
        for lan in {**have, **want}.values()
        if isinstance(lan, VirtualLan) and lan.network == "fabrics"
    }
    upsert = [
        _upsert(have.get(key), resource, want, clones, live)
        for key, resource in want.items()
        if have.get(key) != resource
    ]
    found = sorted(upsert, key=_order)
    removed = sorted((_remove(have[key], had) for key in absent if key in have), key=_order, reverse=True)
    after = {**{key: resource for key, resource in have.items() if key not in absent}, **want}
    found = list(_with_reboots(found, have, after))
    booting = tuple(
        change.after for change in found if change.effect is Effect.BOOTS and isinstance(change.after, Server)
    )
    lines = preview(after, booting) if booting else {}
    placed = [
        msgspec.structs.replace(change, note=lines.get(change.resource.label, ""))
        if change.effect is Effect.BOOTS
        else change
        for change in found
    ]
    return Plan((*placed, *removed))


def result(have: Mapping[str, Resource], plan: Plan, *, prune: bool) -> dict[str, Resource]:
    """Return what is stored once the plan is carried out."""
    after = dict(have)
    for change in plan.changes:
        if change.after is not None:
            after[change.key] = change.after
        elif prune:
            after.pop(change.key, None)
    return after


def describe(resource: Resource, image: str = "") -> str:
    """Return one line on what it is, without its name; ``image`` is the version that a server's disk is a clone of."""
    match resource:
        case Platform():
            return f"{resource.storage.interface} {resource.storage.address}, auth {resource.auth}"
        case Node():
            return f"{resource.mac}, {resource.address}, {format_size(resource.memory_octets)}"
        case Image():
            return resource.source or f"copy of {resource.capture}"
        case VirtualLan():
            return str(resource.subnet)
        case Rule():
            made = f"a server of {resource.server.pan}, image {resource.server.image}" if resource.server else "a spare"
            when = {"manual": ", once approved", "prompt": ", or what is chosen at its console"}
            return f"{made}{when.get(resource.approve, '')}"
        case Server():
            addresses = [str(nic.address or f"one of lan {nic.lan}") for nic in resource.nics]
            return ", ".join([f"image {image or resource.image}", *addresses])
        case Volume():
            size = format_size(resource.size_octets) if resource.size_octets else "as large as it"
            origin = f"snapshot {resource.snapshot}" if resource.snapshot else resource.image
            return f"clone of {origin}, {size}{', thick' if resource.provisioning == 'thick' else ''}"
    return ""


def _upsert(
    before: Resource | None,
    after: Resource,
    want: Mapping[str, Resource],
    clones: Mapping[str, Volume],
    live: Container[tuple[str, str]],
) -> Change:
    """Return the change; ``live``: LANs of which a machine learns while it runs."""
    implied = is_server_disk(after, want)
    if before is None:
        effect = Effect.BOOTS if isinstance(after, Server) else Effect.NONE
        disk = clones.get(after.label) if isinstance(after, Server) else None
        detail = describe(after, disk.image if disk else "")
        return Change(mark=Mark.ADD, key=after.key, after=after, detail=detail, effect=effect, implied=implied)
    fields = tuple(_fields("", before.model_dump(mode="json"), after.model_dump(mode="json")))
    reboots = (
        isinstance(before, Server) and isinstance(after, Server) and _at_boot(before, live) != _at_boot(after, live)
    )
    return Change(
        mark=Mark.CHANGE,
        key=after.key,
        before=before,
        after=after,
        detail=", ".join(f"{field.path} {field.old} → {field.new}" for field in fields),
        fields=fields,
        effect=Effect.REBOOTS if reboots else Effect.NONE,
        implied=implied,
    )


def _at_boot(server: Server, live: Container[tuple[str, str]]) -> list[Nic]:
    return [nic for nic in server.nics if (server.pan, nic.lan) not in live]


def _remove(before: Resource, had: Mapping[str, Volume]) -> Change:
    note, image = "", ""
    disk = had.get(before.label) if isinstance(before, Server) else None
    if disk is not None:
        image = disk.image
        note = f"its disk stays; destroy it: panloom delete volume {disk.label} --yes"
    effect = Effect.STOPS if isinstance(before, Server) else Effect.NONE
    detail = describe(before, image)
    return Change(mark=Mark.REMOVE, key=before.key, before=before, detail=detail, effect=effect, note=note)


def _with_reboots(
    found: Iterable[Change], have: Mapping[str, Resource], after: Mapping[str, Resource]
) -> Iterable[Change]:
    """Yield the changes, and one for each server that must boot again though its document stays as it is."""
    changes = tuple(found)
    lans = {
        (lan.pan, lan.name)
        for before, lan in ((change.before, change.after) for change in changes)
        if isinstance(before, VirtualLan) and isinstance(lan, VirtualLan) and _personal(before) != _personal(lan)
    }
    for change in changes:
        server = change.after
        if isinstance(server, Server) and change.mark is Mark.CHANGE and _why_again(server, lans, have, after):
            yield msgspec.structs.replace(change, effect=Effect.REBOOTS)
        else:
            yield change
    seen = {change.key for change in changes}
    for server in sorted((r for r in after.values() if isinstance(r, Server)), key=order):
        if server.key not in seen and (why := _why_again(server, lans, have, after)):
            yield Change(
                mark=Mark.CHANGE,
                key=server.key,
                before=server,
                after=server,
                detail=why,
                effect=Effect.REBOOTS,
                implied=True,
            )


def _why_again(
    server: Server, lans: Container[tuple[str, str]], have: Mapping[str, Resource], after: Mapping[str, Resource]
) -> str | None:
    """Return what a machine learns only at its boot and what now changes, its NICs aside; None if nothing does."""
    lan = next((nic.lan for nic in server.nics if (server.pan, nic.lan) in lans), None)
    if lan is not None:
        return f"lan {lan} changes"
    before = have.get(server.key)
    if isinstance(before, Server) and (old := _auth(before, have)) != (new := _auth(server, after)):
        return f"auth {old} → {new}"
    return None


def _auth(server: Server, resources: Mapping[str, Resource]) -> str | None:
    platform = resources.get(f"{WANT}platform")
    return server.auth or (platform.auth if isinstance(platform, Platform) else None)


def _personal(lan: VirtualLan) -> tuple[object, ...]:
    return ("fabrics",) if lan.network == "fabrics" else (lan.subnet.prefixlen, lan.router, lan.dns, lan.domain)


def _fields(path: str, old: object, new: object) -> Iterable[Field]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from _fields(f"{path}.{key}" if path else key, old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (first, second) in enumerate(zip(old, new, strict=True)):
            yield from _fields(f"{path}[{index}]", first, second)
    elif old != new:
        yield _field(path, old, new)


def _field(path: str, old: object, new: object) -> Field:
    name, _, unit = path.rpartition("_")
    if unit not in ("octets", "seconds"):
        return Field(path, _shown(old), _shown(new))
    return Field(name, _shown(old, unit), _shown(new, unit))


def _shown(value: object, unit: str = "") -> str:
    match value:
        case None:
            return "-"
        case int() if unit == "octets":
            return format_size(value)
        case int() | float() if unit == "seconds":
            return f"{value:g} s"
        case dict():
            return " ".join(_shown(inner) for inner in value.values() if inner is not None)
        case list():
            return "[" + ", ".join(_shown(inner) for inner in value) + "]"
        case str() if "\n" in value:
            return f"{value.count(chr(10))} lines"
    return str(value)


def _order(change: Change) -> tuple[object, ...]:
    return order(change.resource)
