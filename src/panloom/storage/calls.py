"""The control channel's messages: JSON lines over a Unix stream socket.

    client                                               storage process
    {"id":1,"call":"drop","target":"iqn…:shop.web1"} ──▶
                                                     ◀── {"id":1,"ok":1}
    {"id":2,"call":"export",…}                       ──▶
                                                     ◀── {"id":2,"error":{"kind":"conflict","why":"…"}}
    {"id":3,"call":"watch"}                          ──▶
                                                     ◀── {"id":3,"ok":null}
                                                     ◀── {"event":"login",…}     from then on, at any time

Calls of one client run side by side: wait for an answer before sending what depends on it.  What a call changed is
durable before it is answered.
"""

from typing import Literal

import msgspec

from panloom.storage.exports import Access, Epoch, ExportedLun, Moved
from panloom.storage.limits import Limits
from panloom.storage.statistics import Totals

ErrorKind = Literal["config", "conflict", "unavailable"]
EventKind = Literal["login", "refused", "first_read", "logout", "dropped", "silent", "heard", "offline"]

MAX_LINE_OCTETS = 1 << 22


class Call(msgspec.Struct, frozen=True, tag_field="call", forbid_unknown_fields=True, kw_only=True):
    """What all requests have."""

    id: int


class ImportImage(Call, frozen=True, tag="import_image"):
    """Copy a file in as an image → ImageFacts."""

    name: str
    source: str


class DeleteImage(Call, frozen=True, tag="delete_image"):
    """Destroy an image that no volume and no snapshot is read through → null."""

    name: str


class CreateVolume(Call, frozen=True, tag="create_volume"):
    """Clone an image or a snapshot (VOLUME@NAME), or make an empty disk → Created.

    ``thick`` takes all its space now; ``image_sha256`` is what the image must be, None whatever is there by that name.
    """

    name: str
    image: str | None
    size_octets: int
    image_sha256: str | None = None
    snapshot: str | None = None
    thick: bool = False


class GrowVolume(Call, frozen=True, tag="grow_volume"):
    """Make a volume larger; its sessions are told with their next command → null."""

    name: str
    octets: int


class LimitVolume(Call, frozen=True, tag="limit_volume"):
    """Hold a volume that is exported to other limits from now on → null."""

    name: str
    limits: Limits


class TakeSnapshot(Call, frozen=True, tag="take_snapshot"):
    """Freeze what a volume holds now as VOLUME@NAME, while it is written to → whether it is new."""

    name: str


class DeleteSnapshot(Call, frozen=True, tag="delete_snapshot"):
    """Delete a snapshot that no clone is read through → null."""

    name: str


class FlattenVolume(Call, frozen=True, tag="flatten_volume"):
    """Begin to copy what a volume reads of others, so that it needs them no more → null.

    It goes on behind the answer, and after a restart, until ``VolumeFacts.flattening`` is false again.
    """

    name: str


class DeleteVolume(Call, frozen=True, tag="delete_volume"):
    """Destroy a volume that is not exported → null."""

    name: str


class ListVolumes(Call, frozen=True, tag="volumes"):
    """→ Volumes."""


class ExportTarget(Call, frozen=True, tag="export"):
    """Export a target, or replace what is behind it and who may log in → null.

    ``moved``: sessions end, and who may log in is sent elsewhere, until it is exported anew without.
    """

    target: str
    epoch: Epoch
    luns: tuple[ExportedLun, ...]
    access: Access | None = None
    moved: Moved | None = None


class Revoke(Call, frozen=True, tag="revoke"):
    """Let nobody log in any more, and let no grant of an older epoch write → null."""

    target: str
    epoch: Epoch


class Drop(Call, frozen=True, tag="drop"):
    """Shut all connections to the target down → how many there were."""

    target: str


class Drain(Call, frozen=True, tag="drain"):
    """Wait until no command of a dropped connection is executing → why each volume is not flushed that is not."""

    target: str


class Unexport(Call, frozen=True, tag="unexport"):
    """Forget an export; its volumes remember the epoch → null."""

    target: str
    epoch: Epoch


class ListPlatforms(Call, frozen=True, tag="platforms"):
    """→ Platforms, as the last scan found them; ``scan``: after another one."""

    scan: bool = False


class GetStatistics(Call, frozen=True, tag="statistics"):
    """→ Statistics."""


class ReopenVolume(Call, frozen=True, tag="reopen_volume"):
    """Open a volume anew that is offline since a sync failed; its sessions end → null.  Check its disk before."""

    name: str


class GetStatus(Call, frozen=True, tag="status"):
    """→ Status."""


class Watch(Call, frozen=True, tag="watch"):
    """Send events from now on → null."""


AnyCall = (
    ImportImage
    | DeleteImage
    | CreateVolume
    | GrowVolume
    | LimitVolume
    | TakeSnapshot
    | DeleteSnapshot
    | FlattenVolume
    | DeleteVolume
    | ListVolumes
    | ExportTarget
    | Revoke
    | Drop
    | Drain
    | Unexport
    | ListPlatforms
    | GetStatistics
    | ReopenVolume
    | GetStatus
    | Watch
)


class ImageFacts(msgspec.Struct, frozen=True):
    """An image."""

    name: str
    octets: int
    sha256: str  # hexadecimal
    readers: tuple[str, ...] = ()  # volumes and snapshots (VOLUME@NAME) that are read through it


class VolumeFacts(msgspec.Struct, frozen=True):
    """A volume; what its three accounts are is told in ``accounts``."""

    name: str
    image: str | None
    octets: int
    allocated_octets: int
    epoch: int  # 0 until it is exported for the first time
    snapshot: str | None = None  # VOLUME@NAME, which it is a clone of
    thick: bool = False
    flattening: bool = False
    unique_octets: int = 0
    shared_octets: int = 0
    limits: Limits | None = None  # None: it is not exported


class DeviceFacts(msgspec.Struct, frozen=True):
    """A device that a scan has found; ``failed`` says why it cannot be used."""

    name: str
    kind: Literal["disk", "optical", "unknown"] = "unknown"
    octets: int = 0
    block_octets: int = 0
    failed: str | None = None


class PlatformFacts(msgspec.Struct, frozen=True):
    """A platform as the Connection Manager describes it: its devices, the calls that it exports, and its context."""

    name: str
    devices: tuple[DeviceFacts, ...]
    calls: dict[str, str]  # what each does → the function
    context: str  # which of them all it is; what it means is the Local Transport's business
    failed: str | None = None  # why nothing could be listed


class Platforms(msgspec.Struct, frozen=True):
    """The answer to ListPlatforms: one descriptor for each platform."""

    platforms: tuple[PlatformFacts, ...]


class DeviceStatistics(msgspec.Struct, frozen=True):
    """What a device has done since the storage process began to serve it: a volume as volume:NAME."""

    name: str
    limits: Limits
    totals: Totals


class Statistics(msgspec.Struct, frozen=True):
    """The answer to GetStatistics, sorted by name; a device that nobody has used is not in it."""

    devices: tuple[DeviceStatistics, ...]
    since: float | None = None  # when the process began to count, wall clock; None: one that does not say


class SnapshotFacts(msgspec.Struct, frozen=True):
    """A snapshot, VOLUME@NAME; ``allocated_octets`` is what was written between the one before and it."""

    name: str
    octets: int
    allocated_octets: int
    taken_at: float  # wall clock, seconds
    clones: tuple[str, ...]  # volumes that are read through it


class Volumes(msgspec.Struct, frozen=True):
    """What the store holds, sorted by name."""

    volumes: tuple[VolumeFacts, ...]
    images: tuple[ImageFacts, ...]
    snapshots: tuple[SnapshotFacts, ...] = ()


class Created(msgspec.Struct, frozen=True):
    """The answer to CreateVolume."""

    octets: int
    created: bool  # False: it was there already


class AccessFacts(msgspec.Struct, frozen=True):
    """Who may log in; never the secret.  ``initiator`` None: whoever can prove the rest."""

    initiator: str | None
    user: str | None


class LunFacts(msgspec.Struct, frozen=True):
    """A logical unit; ``content_sha256`` is None for a volume."""

    lun: int
    volume: str | None
    content_sha256: str | None
    read_only: bool


class ExportFacts(msgspec.Struct, frozen=True):
    """An export; ``content`` LUNs have no volume."""

    target: str
    epoch: int
    luns: tuple[LunFacts, ...]
    access: AccessFacts | None
    moved: Moved | None = None


class Session(msgspec.Struct, frozen=True):
    """A session; times are CLOCK_MONOTONIC seconds."""

    id: str
    target: str
    initiator: str
    peer: str
    epoch: int
    kind: str
    login_at: float
    first_read_at: float | None
    last_heard_at: float
    answers_nop: bool
    reads: int
    writes: int
    read_octets: int
    written_octets: int


class Status(msgspec.Struct, frozen=True):
    """What is exported, and who is there."""

    exports: tuple[ExportFacts, ...]
    sessions: tuple[Session, ...]
    portals: tuple[str, ...] | None = None
    """ADDRESS:PORT of each that is listened at; None: a process that does not say."""


class Event(msgspec.Struct, frozen=True):
    """Something that happened to a session, or to a login that became none."""

    event: EventKind
    at: float  # CLOCK_MONOTONIC seconds
    target: str | None
    initiator: str | None
    session: str | None
    peer: str | None
    why: str


class Error(msgspec.Struct, frozen=True):
    """Why a call was refused; nothing was changed, unless the call takes away: that holds in any case."""

    kind: ErrorKind
    why: str
    where: str | None = None  # of a ConfigError


class Done(msgspec.Struct, frozen=True):
    """The answer to a call that was done: its result."""

    id: int
    ok: msgspec.Raw


class Failed(msgspec.Struct, frozen=True):
    """The answer to any other; ``id`` None: the request could not be read."""

    id: int | None
    error: Error


class Answer(msgspec.Struct, frozen=True):
    """Either of the two, as the client reads it."""

    id: int | None
    ok: msgspec.Raw = msgspec.Raw(b"null")
    error: Error | None = None
