"""Revisions of the documents: what each edit replaced, and the way back.

    revision     1            2               3                     what it replaced; – where nothing stood
                 a: –         b: –, a: a1     b: b2
    now          a2                                                 b was removed by 3
    after 1      a1           3 undone gives b2, 2 undone takes b away and gives a1

Going back is an edit like any other, with a number of its own, and of documents only: what a node carries, epochs, MACs
and secrets are records that no document holds.  Disks stay as they are whatever the documents said of them then, and so
does an image that one of them is a clone of.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from panloom.decide import plan as planning
from panloom.decide.plan import Plan, Preview, nothing_to_preview
from panloom.model.disks import disks
from panloom.model.resources import WANT, Disk, Resource, Server, Volume


class Revision(msgspec.Struct, frozen=True):
    """One edit of the documents."""

    number: int
    who: str  # the user's name, as the kernel told us who was connected
    at: float  # wall clock, seconds since 1970 UTC
    what: str  # apply, delete, rollback or approve
    files: tuple[str, ...] = ()  # as their reader called them
    changes: tuple[str, ...] = ()  # mark and resource, as in ``+ server shop/web1``
    add: int = 0
    change: int = 0
    remove: int = 0
    to: int | None = None  # of a rollback: the revision whose documents it brought back
    undoable: bool = False  # what it replaced was kept


class Replaced(msgspec.Struct, frozen=True):
    """What stood in the place of a resource before a revision: its JSON, null for nothing, and the file it was from."""

    resource: msgspec.Raw = msgspec.Raw(b"null")
    origin: str = ""


class WayBack(NamedTuple):
    """What is to be wanted, what no longer, and what happens to disks on the way."""

    want: dict[str, Resource]
    absent: frozenset[str]
    kept: tuple[Resource, ...]
    """What was not there then and stays: disks, and the images they are clones of."""
    cloned_anew: tuple[Volume, ...]
    """What was there then and has been destroyed since: the name comes back, the data do not."""


def undone(now: Mapping[str, Resource], replaced: Iterable[Mapping[str, Resource | None]]) -> dict[str, Resource]:
    """Return the resources as they were; ``replaced`` is what each later revision replaced, the last one first."""
    then = dict(now)
    for revision in replaced:
        for key, before in revision.items():
            if before is None:
                then.pop(key, None)
            else:
                then[key] = before
    return then


def way_back(now: Mapping[str, Resource], then: Mapping[str, Resource]) -> WayBack:
    """Return how to get from ``now`` to ``then`` with every disk left as it is."""
    volumes = {key: resource for key, resource in now.items() if isinstance(resource, Volume)}
    needed = {f"{WANT}image/{volume.image}" for volume in volumes.values()}
    kept = {key: resource for key, resource in now.items() if key not in then and (key in volumes or key in needed)}
    had = disks(volumes.values())
    lost = tuple(
        resource.model_copy(update={"server": ""}) if resource.serves in had else resource  # it has another by now
        for key, resource in then.items()
        if isinstance(resource, Volume) and key not in volumes
    )
    want = {**then, **{volume.key: volume for volume in lost}, **volumes, **kept}
    clones = disks(want.values())
    want = {key: _beside_its_disk(resource, now, clones) for key, resource in want.items()}
    return WayBack(want, frozenset(now) - frozenset(want), tuple(kept.values()), lost)


def between(
    before: Mapping[str, Resource], after: Mapping[str, Resource], *, preview: Preview = nothing_to_preview
) -> Plan:
    """Return what takes all of one to all of the other."""
    return planning.changes(before, after, absent=frozenset(before) - frozenset(after), preview=preview)


def _beside_its_disk(resource: Resource, now: Mapping[str, Resource], clones: Mapping[str, Volume]) -> Resource:
    """Return a server that asks for the disk it has: as it is written now, else as the disk is."""
    disk = clones.get(resource.label)
    if not isinstance(resource, Server) or disk is None:
        return resource
    if not planning.volumes({disk.key: disk}, {resource.key: resource})[1]:
        return resource
    server = now.get(resource.key)
    image, spec = (
        resource.image if disk.snapshot else disk.image,
        Disk(
            size_octets=disk.size_octets,
            snapshot=disk.snapshot,
            provisioning=disk.provisioning,
            limits=disk.limits,
        ),
    )
    if isinstance(server, Server):
        image, spec = server.image, server.disk
    return resource.model_copy(update={"image": image, "disk": spec})
