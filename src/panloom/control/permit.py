"""May documents change like this?  What no edit may take from under what is running.

    plan of an edit ──permit──▶ ConflictError, with what to do first
                          └───▶ the records it was judged by: the edit's commit holds only while they are as they were

A node that carries a server keeps its MAC, address, iSCSI name and port, by which the server is fenced, and its
document; a wrong port may be put right.
A volume is not destroyed while its server is still being taken down.  While an update of its image needs it, it is not
destroyed either, and does not become another server's disk.
"""

from collections.abc import Mapping

from panloom.control.world import NODES, SERVERS, UPDATES, World
from panloom.decide.image_update import UNDER_WAY
from panloom.decide.plan import Change, Plan
from panloom.decide.records import NodeRecord, Phase
from panloom.errors import ConflictError
from panloom.model.resources import Image, Node, Resource, Volume
from panloom.state.contract import Store


async def permit(store: Store, plan: Plan) -> Mapping[str, int]:
    """Return the revisions of the records that an edit rests on; ``ConflictError`` when it must not be made now."""
    nodes = {change.resource.name: change for change in plan.changes if _unfixes(change)}
    images = {change.resource.label for change in plan.changes if _is_gone(change, Image)}
    volumes = {change.resource.label for change in plan.changes if _is_destroyed(change) or _is_handed_over(change)}
    if not nodes and not images and not volumes:
        return {}
    world = await World.read(store)
    for update in world.updates.values():
        if update.ended_at is None and update.version in images:
            raise ConflictError(f"image {update.version}: its servers are being updated to it; try again then")
        for turn in update.turns:
            if turn.stage in UNDER_WAY and volumes & {turn.old, turn.new}:
                why = f"image {update.image} is being updated, and {turn.server} may need it"
                raise ConflictError(f"volume {', '.join(volumes & {turn.old, turn.new})}: {why}; try again then")
    for name, change in nodes.items():
        known = world.node_records.get(name, NodeRecord())
        if known.server is not None and not _puts_right(change, known):
            raise ConflictError(f"node {name} carries {known.server}; first: panloom failover {known.server}")
    servers = {change.resource.label: _served(change) for change in plan.changes if _is_destroyed(change)}
    for label, server in servers.items():
        record = world.server_records.get(server)
        if record is not None and record.phase is not Phase.GONE:
            raise ConflictError(f"volume {label}: its server is still being taken down; try again soon")
    updated = {*world.updates, *(label.partition("@")[0] for label in images)} if volumes or images else ()
    updates = (UPDATES + name for name in updated)
    return world.revisions((*(NODES + name for name in nodes), *(SERVERS + s for s in servers.values() if s), *updates))


def _is_destroyed(change: Change) -> bool:
    return _is_gone(change, Volume)


def _is_handed_over(change: Change) -> bool:
    """Whether a volume becomes another server's disk."""
    before, after = change.before, change.after
    return isinstance(before, Volume) and isinstance(after, Volume) and before.serves != after.serves


def _is_gone(change: Change, kind: type[Resource]) -> bool:
    return isinstance(change.before, kind) and change.after is None


def _served(change: Change) -> str:
    """Return the server whose disk a volume was, nothing if it was nobody's."""
    return change.before.serves or "" if isinstance(change.before, Volume) else ""


def _unfixes(change: Change) -> bool:
    """Whether a change takes from a node what a fence of it, or its disk, rests on."""
    before, after = change.before, change.after
    if not isinstance(before, Node):
        return False
    if not isinstance(after, Node):
        return True
    return _fixed(before) != _fixed(after) or before.port != after.port


def _puts_right(change: Change, known: NodeRecord) -> bool:
    """Whether a change of a node only names the port where its frames come in: else nothing could fence it."""
    before, after = change.before, change.after
    if not isinstance(before, Node) or not isinstance(after, Node):
        return False
    return _fixed(before) == _fixed(after) and after.port == known.seen_at


def _fixed(node: Node) -> tuple[object, ...]:
    return node.mac, node.address, node.initiator
