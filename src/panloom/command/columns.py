"""Which columns each kind has, and how a value becomes a cell.

The rows come from the API; a key that is missing in one shows as ``-``.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import click

from panloom.command.output import nearest
from panloom.values import format_size

Row = Mapping[str, Any]


class Column(NamedTuple):
    """A column; ``cell`` takes the whole row. ``wide`` ones show with ``-o wide`` only."""

    header: str
    cell: Callable[[Row], str]
    wide: bool = False


class Kind(NamedTuple):
    """A noun: as the API calls it, as people write it, and its columns."""

    name: str
    words: tuple[str, ...]
    columns: tuple[Column, ...]


def text(key: str) -> Callable[[Row], str]:
    """Show a value as it is."""

    def cell(row: Row) -> str:
        value = row.get(key)
        match value:
            case None | "" | []:
                return "-"
            case True | False:
                return "yes" if value else "no"
            case list():
                return ", ".join(str(item) for item in value)
        return str(value)

    return cell


def size(key: str) -> Callable[[Row], str]:
    """Show octets."""

    def cell(row: Row) -> str:
        value = row.get(key)
        return format_size(value) if isinstance(value, int) and value else "-"

    return cell


def since(key: str) -> Callable[[Row], str]:
    """Show how long ago a wall-clock time in seconds was."""

    def cell(row: Row) -> str:
        value = row.get(key)
        return age(time.time() - value) if isinstance(value, int | float) and value else "-"

    return cell


def clock(key: str) -> Callable[[Row], str]:
    """Show a wall-clock time in seconds as local time."""

    def cell(row: Row) -> str:
        value = row.get(key)
        return at_clock(value) if isinstance(value, int | float) and value else "-"

    return cell


def done(key: str, show: Callable[[int], str] = str) -> Callable[[Row], str]:
    """Show a number of a disk's statistics; where the storage process has not told them it is unknown, and not 0."""

    def cell(row: Row) -> str:
        statistics = row.get("statistics")
        return show(statistics[key]) if statistics else "unknown"

    return cell


def age(seconds: float) -> str:
    """Return ``14s``, ``2m``, ``3h`` or ``5d``."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"


def at_clock(seconds: float) -> str:
    """Return local date and time of a wall-clock time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def disk(row: Row) -> str:
    """Show a disk's size, and the part of it that is written."""
    octets, allocated = row.get("disk_octets"), row.get("allocated_octets")
    if not isinstance(octets, int) or not octets:
        return "-"
    share = f"  {100 * allocated / octets:.0f}%" if isinstance(allocated, int) else ""
    return f"{format_size(octets)}{share}"


def server_state(row: Row) -> str:
    """Show a server's state, and what there is to say about it in a few words."""
    detail = row.get("detail") or ("moved" if row.get("state") == "up" and row.get("moves") else "")
    return f"{row['state']} ({detail})" if detail else str(row["state"])


def conditions(row: Row) -> str:
    """Show what a rule asks of a machine."""
    asked = {
        word.removesuffix("_octets"): f">= {format_size(value)}" if word == "memory_octets" else value
        for word, value in row["match"].items()
    }
    return ", ".join(f"{word} {value}" for word, value in asked.items()) or "any machine"


KINDS = (
    Kind(
        "server",
        ("servers", "server"),
        (
            Column("PAN", text("pan")),
            Column("SERVER", text("server")),
            Column("NODE", text("node")),
            Column("STATE", server_state),
            Column("ADDRESS", text("address")),
            Column("IMAGE", text("image")),
            Column("DISK", disk),
            Column("SINCE", since("since")),
            Column("MAC", text("mac"), wide=True),
            Column("EPOCH", text("epoch"), wide=True),
            Column("WHY", text("why"), wide=True),
        ),
    ),
    Kind(
        "node",
        ("nodes", "node"),
        (
            Column("NODE", text("node")),
            Column("STATE", text("state")),
            Column("POWER", text("power")),
            Column("SERVER", text("server")),
            Column("MAC", text("mac")),
            Column("ADDRESS", text("address")),
            Column("MEMORY", size("memory_octets")),
            Column("SINCE", since("since")),
            Column("PORT", text("port"), wide=True),
            Column("VENDOR", text("vendor"), wide=True),
            Column("PRODUCT", text("product"), wide=True),
            Column("ARCHITECTURE", text("architecture"), wide=True),
            Column("PROCESSOR", text("processor"), wide=True),
            Column("CORES", text("cores"), wide=True),
            Column("NIC", text("nic"), wide=True),
            Column("NICS", text("nics"), wide=True),
            Column("DISKS", text("disks"), wide=True),
            Column("UUID", text("uuid"), wide=True),
            Column("WHY", text("why"), wide=True),
        ),
    ),
    Kind(
        "image",
        ("images", "image"),
        (
            Column("IMAGE", text("image")),
            Column("SIZE", size("octets")),
            Column("STATE", text("state")),
            Column("TAGS", text("tags")),
            Column("SIGNED", text("signed")),
            Column("AGE", since("since")),
            Column("SOURCE", text("source")),
            Column("FORMAT", text("format"), wide=True),
            Column("CLONES", text("clones"), wide=True),
            Column("SHA256", text("sha256"), wide=True),
            Column("WHY", text("why"), wide=True),
        ),
    ),
    Kind(
        "volume",
        ("volumes", "volume"),
        (
            Column("VOLUME", text("volume")),
            Column("ORIGIN", text("origin")),
            Column("DISK", disk),
            Column("SERVER", text("server")),
            Column("STATE", text("state")),
            Column("SPACE", text("provisioning"), wide=True),
            Column("ALLOCATED", size("allocated_octets"), wide=True),
            Column("UNIQUE", size("unique_octets"), wide=True),
            Column("SHARED", size("shared_octets"), wide=True),
            Column("READS", done("reads"), wide=True),
            Column("WRITES", done("writes"), wide=True),
            Column("READ", done("read_octets", format_size), wide=True),
            Column("WRITTEN", done("written_octets", format_size), wide=True),
            Column("EPOCH", text("epoch"), wide=True),
            Column("WHY", text("why"), wide=True),
        ),
    ),
    Kind(
        "update",
        ("updates", "update"),
        (
            Column("IMAGE", text("image")),
            Column("TO", text("version")),
            Column("STATE", text("state")),
            Column("UPDATED", lambda row: f"{row['updated']} of {row['servers']}"),
            Column("AGE", since("since")),
            Column("STORY", text("story")),
            Column("WIDTH", text("width"), wide=True),
            Column("WHO", text("who"), wide=True),
            Column("UNDER WAY", text("under_way"), wide=True),
        ),
    ),
    Kind(
        "snapshot",
        ("snapshots", "snapshot"),
        (
            Column("SNAPSHOT", text("snapshot")),
            Column("DISK", disk),
            Column("AGE", since("since")),
            Column("CLONES", text("clones")),
            Column("ALLOCATED", size("allocated_octets"), wide=True),
        ),
    ),
    Kind(
        "pan",
        ("pans", "pan"),
        (Column("PAN", text("pan")), Column("SERVERS", text("servers")), Column("LANS", text("lans"))),
    ),
    Kind(
        "lan",
        ("lans", "lan"),
        (
            Column("PAN", text("pan")),
            Column("LAN", text("lan")),
            Column("SUBNET", text("subnet")),
            Column("RANGE", text("range")),
            Column("ROUTER", text("router")),
            Column("VNI", text("vni")),
            Column("DNS", text("dns"), wide=True),
            Column("DOMAIN", text("domain"), wide=True),
        ),
    ),
    Kind(
        "rule",
        ("rules", "rule"),
        (
            Column("RULE", text("rule")),
            Column("MATCH", conditions),
            Column("PAN", text("pan")),
            Column("IMAGE", text("image")),
            Column("APPROVE", text("approve")),
            Column("NODES", text("nodes")),
        ),
    ),
    Kind(
        "platform",
        ("platform", "platforms"),
        (
            Column("PLATFORM", text("platform")),
            Column("INTERFACE", text("interface")),
            Column("ADDRESS", text("address")),
            Column("AUTH", text("auth")),
            Column("APPROVE", text("approve")),
            Column("DISCOVERY", text("discovery"), wide=True),
        ),
    ),
    Kind(
        "event",
        ("events", "event"),
        (
            Column("NUMBER", text("number")),
            Column("AT", clock("at")),
            Column("KIND", text("kind")),
            Column("SERVER", text("server")),
            Column("NODE", text("node")),
            Column("TEXT", text("text")),
            Column("EPOCH", text("epoch"), wide=True),
        ),
    ),
)


def kind_of(word: str) -> Kind:
    """Return the kind a word means, singular or plural."""
    for kind in KINDS:
        if word.lower() in kind.words:
            return kind
    raise click.UsageError(f"there is no kind {word!r}; {nearest(word, [kind.words[0] for kind in KINDS])}")


def table(kind: Kind, rows: Sequence[Row], *, wide: bool) -> tuple[list[str], list[list[str]]]:
    """Return header and cells."""
    columns = [column for column in kind.columns if wide or not column.wide]
    return [column.header for column in columns], [[column.cell(row) for column in columns] for row in rows]
