"""What Panloom keeps beside the documents people write: placement, epochs, secrets, virtual MACs, quarantine, boots.

    /record/server/PAN/SERVER   ServerRecord   one per server: where it is, its epoch, how far a move has come
    /record/node/NODE           NodeRecord     one per machine: whose it is, whether it may be used
    /record/lan/PAN/LAN         LanRecord      the VNI of a virtual LAN
    /record/blade/NODE          BladeRecord    a machine that was taken in: ``decide.provisioning``
    /record/boot/NODE           BootRecord     the stages of a machine's last boot
    /record/image/NAME@VERSION  ImageRecord    where an image's octets came from
    /record/image-update/NAME   ImageUpdate    the last update of an image's servers: ``decide.image_update``

A server's life (``Phase``)::

              place                     sign of life
    WAITING ─────────▶ BOOTING ─────────────────────▶ UP
       ▲                  │ given up, changed,           │ silent, powered off,
       │  fenced          │ deleted                      │ changed, moved, deleted
       ├────────────── FENCING ◀─────────────────────────┘
       ▼ not wanted
     GONE      epoch and MACs stay for the day the server is wanted again

A node belongs to at most one server: ``ServerRecord.node`` and ``NodeRecord.server`` change in one commit.  While a
server is FENCING it still holds its node: the node is free again when the fence is complete.
"""

from collections.abc import Container
from enum import Enum

import msgspec

from panloom.decide.hardware import Hardware
from panloom.values import Iqn

BASE_IQN = "iqn.2026-11.dev.panloom"


class Phase(Enum):
    """Where a server's life stands; see the picture above."""

    WAITING = "waiting"
    BOOTING = "booting"
    UP = "up"
    FENCING = "fencing"
    GONE = "gone"


class Step(Enum):
    """The steps of a fence, in their order; each is durable before the next begins (design: fence first)."""

    EPOCH = "epoch"
    REFUSE_LOGINS = "refuse logins"
    DROP_SESSIONS = "drop sessions"
    DRAIN_WRITES = "drain writes"
    FILTER_PORT = "filter port"
    POWER_OFF = "power off"


STEPS = tuple(Step)


class VirtualNic(msgspec.Struct, frozen=True):
    """What was once given to a server's link to a LAN; both stay with the server for ever (line 106).

    ``vni``: by which the control node knows who speaks in the LAN; None in records from before there were any.
    """

    lan: str
    mac: str
    vni: int | None = None


class LanRecord(msgspec.Struct, frozen=True):
    """The VNI that was once given to a virtual LAN; it stays while the LAN is deleted and comes back."""

    vni: int


class Fence(msgspec.Struct, frozen=True):
    """A fence under way: the node that is shut out, why, and the last step that is known to hold."""

    node: str
    cause: str
    done: Step
    started_at: float  # wall clock, seconds
    power_confirmed: bool = False
    restart: bool = False  # the node is not at fault: it may take the server again at once


class Clone(msgspec.Struct, frozen=True):
    """One clone of an image or a snapshot; ``instance``, a UUID, is durable before it is made."""

    volume: str  # as the storage process calls it
    instance: str
    prepared: bool = True  # its partitions end where it does


class ServerRecord(msgspec.Struct, frozen=True):
    """One server's placement. ``epoch`` only grows; ``secret`` and ``beacon_key`` (hex) are new with each epoch."""

    phase: Phase
    epoch: int
    node: str | None = None
    since: float = 0.0  # wall clock of the last change of phase, seconds
    secret: str = ""
    beacon_key: str = ""
    nics: tuple[VirtualNic, ...] = ()
    started: bool = False  # the node was switched on for this placement, or was on already
    boot_attempts: int = 0  # resets on this node since it was placed there
    personality: str = ""  # what the node was booted with: a digest, and `.none` where it proves nothing
    fence: Fence | None = None
    moves: int = 0
    moving_since: float | None = None  # wall clock when it began to move, None once it is up again
    left: str | None = None  # the node it was fenced from last
    left_for_good: bool = False  # that node is the last choice for it, not the first
    clones: tuple[Clone, ...] = ()  # those of its disks, which may be several where its image is updated

    def clone_of(self, volume: str) -> Clone | None:
        """Return which clone a volume is, None for one that is from before they had names, or not known here yet."""
        return next((clone for clone in self.clones if clone.volume == volume), None)

    def with_clone(self, clone: Clone, volumes: Container[str]) -> "ServerRecord":
        """Return the record with this clone for its volume; those of other volumes stay as long as there are these."""
        others = (one for one in self.clones if one.volume != clone.volume and one.volume in volumes)
        return msgspec.structs.replace(self, clones=(*others, clone))


class NodeRecord(msgspec.Struct, frozen=True):
    """One machine. ``quarantined`` is the reason it may not be used until a person releases it, or None."""

    server: str | None = None  # PAN/SERVER
    quarantined: str | None = None
    power_unknown: bool = False  # fenced without a confirmed power-off: not free before it is seen off or fresh
    seen_at: str | None = None  # the port where its frames came in last, since its server was placed
    hardware: Hardware = Hardware()  # what it said last of itself, while it waited
    hardware_mac: str = ""  # of the machine that said so; empty in older records


class Discovered(msgspec.Struct, frozen=True):
    """A machine that asked to boot and is named by no document; it is in memory only."""

    mac: str
    address: str
    first_seen: float  # wall clock, seconds
    asked_at: float = 0.0  # monotonic seconds
    known_at: float = 0.0  # monotonic seconds of its first request
    hardware: Hardware = Hardware()
    reported_at: float | None = None  # wall clock, seconds, of its first report
    choice: str = ""  # at its console: an image, or ``boot_menu.SPARE``


STAGES = ("power", "dhcp", "script", "login", "first read", "kernel", "userland")
"""What a machine's boot passes, in this order."""


class BootRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Stages of a machine's last boot: name and seconds since ``at`` (wall clock).

    ``tries``: how often it had begun again by itself, since its power-on, without coming up.
    """

    at: float
    stages: tuple[tuple[str, float], ...]
    server: str | None = None
    epoch: int = 0
    tries: int = 0


class ImageRecord(msgspec.Struct, frozen=True):
    """Where an image's octets came from; written before it is in the store, which alone says whether it is."""

    source: str
    format: str
    at: float  # wall clock, seconds
    source_sha256: str | None = None  # None: the image is the file, octet for octet


def target_of(server: str) -> Iqn:
    """Return the target that carries the server's root disk, LUN 0; ``server`` is PAN/SERVER."""
    return Iqn(f"{BASE_IQN}:{server.replace('/', '.')}")


def personality_target_of(server: str) -> Iqn:
    """Return the target whose read-only LUN 0 carries the server's personality."""
    return Iqn(f"{target_of(server)}.personality")


def initiator_of(node: str) -> Iqn:
    """Return the initiator name a machine logs in with, whatever server it carries."""
    return Iqn(f"{BASE_IQN}:node.{node}")


def volume_of(server: str) -> str:
    """Return the name of the volume that is the server's root disk."""
    return server.replace("/", ".")


def user_of(server: str, epoch: int) -> str:
    """Return the CHAP user of a server at an epoch."""
    return f"{server.replace('/', '.')}.{epoch}"
