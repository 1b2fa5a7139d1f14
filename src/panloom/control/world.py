"""What should exist, read whole from the store: documents and the records beside them.

The reconciler reads a new ``World`` at each pass; with a few hundred entries that costs less than keeping one up to
date by watching, and cannot drift.  ``World.edit`` is the only way a record changes: compare-and-set on the revisions
that were read.
"""

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from panloom.boot.lease_book import leases
from panloom.decide.image_update import ImageUpdate
from panloom.decide.provisioning import BladeRecord
from panloom.decide.records import (
    STEPS,
    ImageRecord,
    LanRecord,
    NodeRecord,
    Phase,
    ServerRecord,
    Step,
    initiator_of,
    volume_of,
)
from panloom.model import resources
from panloom.model.disks import disks
from panloom.state.contract import ABSENT, Store
from panloom.values import IpAddress, Iqn, MacAddress, beside

SERVERS = "/record/server/"
NODES = "/record/node/"
IMAGES = "/record/image/"
BLADES = "/record/blade/"
UPDATES = "/record/image-update/"
LANS = "/record/lan/"
DOOMED_IMAGES = "/record/doomed-image/"
"""Images whose documents are gone and that are to be destroyed; until they are, none of that name is copied in."""
DOOMED = "/record/doomed-volume/"
"""Volumes whose documents are gone and whose data are to be destroyed; until they are, none of that name is made."""

_BESIDE = (resources.WANT, NODES, IMAGES, BLADES, UPDATES, LANS, DOOMED, DOOMED_IMAGES)
_decode = lru_cache(maxsize=10_000)(resources.decode)  # documents stay the same for many passes
Resource = TypeVar("Resource", bound=resources.Resource)


class World:
    """One picture of the store, immutable but for ``edit``."""

    def __init__(self, store: Store, revision: int, entries: Mapping[str, tuple[int, bytes]]) -> None:
        self._store = store
        self.leased: dict[MacAddress, tuple[IpAddress, ...]] = {}
        """Addresses that DHCP lent to virtual MACs; read only where a NIC has no address of its own."""
        self.revision = revision
        """The store's revision when the records of servers were read; of two worlds the higher one knows more."""
        self._revisions = {key: entry[0] for key, entry in entries.items()}
        self._wanted: dict[type[resources.Resource], dict[str, resources.Resource]] = {}
        self._at_ports: dict[str, tuple[str, ...]] | None = None  # until somebody asks
        self._disks: dict[str, resources.Volume] | None = None  # until somebody asks
        self.server_records: dict[str, ServerRecord] = {}
        self.node_records: dict[str, NodeRecord] = {}
        self.image_records: dict[str, ImageRecord] = {}
        self.blades: dict[str, BladeRecord] = {}
        self.updates: dict[str, ImageUpdate] = {}
        """The last update of each image, by the image's name."""
        self.lan_records: dict[str, LanRecord] = {}
        self.doomed = frozenset(key.removeprefix(DOOMED) for key in entries if key.startswith(DOOMED))
        """Labels of volumes that are being destroyed."""
        self.doomed_images = frozenset(
            key.removeprefix(DOOMED_IMAGES) for key in entries if key.startswith(DOOMED_IMAGES)
        )
        """Labels of images that are being destroyed."""
        for key, (_, value) in entries.items():
            if key.startswith(resources.WANT):
                resource = _decode(key, value)
                self._wanted.setdefault(type(resource), {})[resource.label] = resource
            elif key.startswith(SERVERS):
                self.server_records[key.removeprefix(SERVERS)] = msgspec.json.decode(value, type=ServerRecord)
            elif key.startswith(NODES):
                self.node_records[key.removeprefix(NODES)] = msgspec.json.decode(value, type=NodeRecord)
            elif key.startswith(IMAGES):
                self.image_records[key.removeprefix(IMAGES)] = msgspec.json.decode(value, type=ImageRecord)
            elif key.startswith(BLADES):
                self.blades[key.removeprefix(BLADES)] = msgspec.json.decode(value, type=BladeRecord)
            elif key.startswith(UPDATES):
                self.updates[key.removeprefix(UPDATES)] = msgspec.json.decode(value, type=ImageUpdate)
            elif key.startswith(LANS):
                self.lan_records[key.removeprefix(LANS)] = msgspec.json.decode(value, type=LanRecord)

    @classmethod
    async def read(cls, store: Store) -> "World":
        """Read documents and records as they are now."""
        entries: dict[str, tuple[int, bytes]] = {}
        servers = await store.range(SERVERS)
        # What is doomed is read after what is wanted: a volume wanted anew is then never taken for the one before.
        others = [await store.range(prefix) for prefix in _BESIDE]
        for snapshot in (servers, *others):
            entries.update({entry.key: (entry.revision, entry.value) for entry in snapshot.entries})
        world = cls(store, servers.revision, entries)
        if any(nic.address is None for server in world.all(resources.Server).values() for nic in server.nics):
            world.leased = await leases(store)
        return world

    def all(self, kind: type[Resource]) -> Mapping[str, Resource]:
        """Return the resources of a kind by their label."""
        found: dict[str, Any] = self._wanted.get(kind, {})
        return MappingProxyType(found)

    @property
    def platform(self) -> resources.Platform | None:
        """The platform document, None before one is applied."""
        return next(iter(self.all(resources.Platform).values()), None)

    def initiator(self, node: str) -> Iqn:
        """Return the iSCSI name that a node logs in with: its firmware's own, or one made of its name."""
        found = self.all(resources.Node).get(node)
        return Iqn(found.initiator) if found is not None and found.initiator else initiator_of(node)

    @property
    def doomed_volumes(self) -> frozenset[str]:
        """What the storage process calls the volumes that are being destroyed."""
        return frozenset(volume_of(label) for label in self.doomed)

    def disk(self, server: str) -> resources.Volume | None:
        """Return the volume that is a server's disk, None if there is none."""
        if self._disks is None:
            self._disks = disks(self.all(resources.Volume).values())
        return self._disks.get(server)

    def ipv6_address(self, node: resources.Node) -> IPv6Address | None:
        """Return the address that a node has beside that of IPv4, None where its network has no prefix."""
        if self.platform is None:
            return None
        storage = self.platform.storage
        prefix = next((relay.prefix for relay in storage.relays if node.address in relay.subnet), None)
        if node.address in storage.subnet:
            prefix = storage.prefix
        return beside(prefix, node.address) if prefix is not None else None

    def prefix(self, server: resources.Server, nic: resources.Nic) -> IPv6Network | None:
        """Return the IPv6 prefix of the LAN that a NIC is in, None for none."""
        lan = self.all(resources.VirtualLan).get(f"{server.pan}/{nic.lan}")
        return lan.prefix if lan is not None else None

    def is_over_fabrics(self, server: resources.Server, nic: resources.Nic) -> bool:
        """Whether the LAN that a NIC is in is carried by the fabrics, not by the storage network."""
        lan = self.all(resources.VirtualLan).get(f"{server.pan}/{nic.lan}")
        return lan is not None and lan.network == "fabrics"

    def nodes_at(self, port: str) -> tuple[str, ...]:
        """Return the names of the nodes whose cable ends at a port, by their documents."""
        if self._at_ports is None:
            self._at_ports = {}
            for node in self.all(resources.Node).values():
                self._at_ports[node.port] = (*self._at_ports.get(node.port, ()), node.name)
        return self._at_ports.get(port, ())

    def admits(self, server: str) -> bool:
        """Whether the server's addresses may pass at its node's port."""
        record = self.server_records.get(server)
        if record is None or record.node is None:
            return False
        if record.fence is not None:
            # A fence closes the port after the writes are drained, and not before.
            return STEPS.index(record.fence.done) < STEPS.index(Step.DRAIN_WRITES)
        return record.phase in (Phase.BOOTING, Phase.UP)

    def revisions(self, keys: Iterable[str]) -> Mapping[str, int]:
        """Return the revision at which each key was read, ``ABSENT`` for one that was not there."""
        return {key: self._revisions.get(key, ABSENT) for key in keys}

    async def forget_image(self, label: str) -> None:
        """Forget an image that was doomed, and where it came from; ConflictError if it is not as it was read."""
        keys = (DOOMED_IMAGES + label, IMAGES + label)
        await self._store.commit(expect=self.revisions(keys), delete=[key for key in keys if key in self._revisions])

    async def edit(
        self,
        *,
        servers: Mapping[str, ServerRecord | None] = MappingProxyType({}),
        nodes: Mapping[str, NodeRecord | None] = MappingProxyType({}),
        images: Mapping[str, ImageRecord] = MappingProxyType({}),
        blades: Mapping[str, BladeRecord | None] = MappingProxyType({}),
        updates: Mapping[str, ImageUpdate] = MappingProxyType({}),
        lans: Mapping[str, LanRecord] = MappingProxyType({}),
        rests_on: Collection[str] = (),
    ) -> None:
        """Change records in one commit, None deletes.

        ``ConflictError`` if any of them, or of the keys of documents in ``rests_on``, is not as it was read.
        """
        changes: dict[str, ServerRecord | NodeRecord | ImageRecord | BladeRecord | ImageUpdate | LanRecord | None] = {}
        changes.update({SERVERS + name: server for name, server in servers.items()})
        changes.update({NODES + name: node for name, node in nodes.items()})
        changes.update({IMAGES + name: image for name, image in images.items()})
        changes.update({BLADES + name: blade for name, blade in blades.items()})
        changes.update({UPDATES + name: update for name, update in updates.items()})
        changes.update({LANS + name: lan for name, lan in lans.items()})
        revision = await self._store.commit(
            expect=self.revisions((*changes, *rests_on)),
            put={key: msgspec.json.encode(value) for key, value in changes.items() if value is not None},
            delete=[key for key, value in changes.items() if value is None],
        )
        for key, value in changes.items():
            if value is None:
                self._revisions.pop(key, None)
            else:
                self._revisions[key] = revision
        for name, server in servers.items():
            _set(self.server_records, name, server)
        for name, node in nodes.items():
            _set(self.node_records, name, node)
        self.image_records.update(images)
        self.updates.update(updates)
        self.lan_records.update(lans)
        for name, blade in blades.items():
            _set(self.blades, name, blade)


Record = TypeVar("Record")


def _set(records: dict[str, Record], name: str, value: Record | None) -> None:
    if value is None:
        records.pop(name, None)
    else:
        records[name] = value
