"""Which volume is a server's disk: the one of its own name, until an update of its image puts another in that place.

    server shop/web1 ──▶ volume shop/web1                            as it was made
                     ──▶ volume shop/web1-disk-2   server: web1      after an update
                         volume shop/web1          server: ""        stays as it was, with its data, and is nobody's

No volume ever changes its name or what it is a clone of, so that a snapshot, a backup or a person who names one means
the same data for ever.  Only the update changes ``Volume.server``, and documents cannot.
"""

from collections.abc import Collection, Iterable, Mapping

from panloom.model.resources import WANT, Resource, Server, Volume

MAX_NAME_CHARACTERS = 63  # RFC 1123 section 2.1


def disks(resources: Iterable[Resource]) -> dict[str, Volume]:
    """Return the volume that is the disk of each server, by the server's label, whether or not there is that server.

    One that was given to the server comes before the one of its name.
    """
    found: dict[str, Volume] = {}
    for volume in resources:
        if isinstance(volume, Volume) and (owner := volume.serves) and (volume.server or owner not in found):
            found[owner] = volume
    return found


def owner_key(volume: Volume) -> str:
    """Return the key of the server whose disk a volume is, if there is one; empty where it is nobody's."""
    return f"{WANT}server/{volume.serves}" if volume.serves else ""


def is_server_disk(volume: Resource, resources: Mapping[str, Resource]) -> bool:
    """Whether a volume is the disk of a server that there is."""
    return isinstance(volume, Volume) and owner_key(volume) in resources


def with_owners(written: Mapping[str, Resource], stored: Mapping[str, Resource]) -> dict[str, Resource]:
    """Return what documents say, each volume being whose disk it is: no document says that of one that is there."""
    found = dict(written)
    for key, volume in written.items():
        known = stored.get(key)
        if isinstance(volume, Volume) and isinstance(known, Volume) and known.server != volume.server:
            found[key] = volume.model_copy(update={"server": known.server})
    return found


def next_name(server: str, taken: Collection[str]) -> str:
    """Return the name of a further disk for the server of a name; ``taken`` are names that it must not have."""
    number = 2
    while True:
        end = f"-disk-{number}"
        name = server[: MAX_NAME_CHARACTERS - len(end)].rstrip("-") + end
        if name not in taken:
            return name
        number += 1


def handed_over(server: Server, old: Volume, new: Volume) -> dict[str, Resource]:
    """Return two volumes, by key, once the second is the server's disk and the first nobody's."""
    return {
        old.key: old.model_copy(update={"server": ""}),
        new.key: new.model_copy(update={"server": None if new.name == server.name else server.name}),
    }
