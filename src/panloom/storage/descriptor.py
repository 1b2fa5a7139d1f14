"""What the Connection Manager and the Remote Transport say to each other.

    initiator ── TCP ──▶ Remote Transport                      Connection Manager
                         one thread for each connection
                           discovery        ── targets_visible ──▶
                           login begins     ── credentials     ──▶  what must be proved, or None: refused
                           login succeeds   ── admit           ──▶  Admission: the target's Descriptors
                           READ, WRITE …    ── Descriptor.send_handler: direct calls into a volume, with a Frame
                           first READ       ── first_read      ──▶
                           thread has ended ── gone            ──▶  no call of this session is executing any more

                         Connection.resized ◀──── a volume grew
                         Connection.appeared ◀─── the export has a LUN more
                         Connection.vanished ◀─── … or less
                         Connection.shut_down ◀── take-over of a session, fence, end of the process

The Connection Manager's methods are called from many threads.  So is a ``Descriptor``: by the thread of its connection,
by those that do aside what takes long, and by whoever calls an earlier frame of a command back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from panloom.protocol.chap import Credentials
from panloom.storage.exports import Moved
from panloom.storage.frame import Frame, StaleEpochError
from panloom.values import Iqn

__all__ = [
    "Admission",
    "Connection",
    "Credentials",
    "Descriptor",
    "Manager",
    "PlatformDescriptor",
    "ReceiveHandler",
    "SendHandler",
    "SessionFacts",
    "SessionKind",
    "StaleEpochError",
]

SendHandler = Callable[[Any, Frame], None]
"""Gets the context of a Descriptor, and a frame to carry out and call back."""

ReceiveHandler = Callable[[Any, SendHandler, Frame], bool]
"""Sends a frame off by a Descriptor's two, and returns whether it was called back at once."""

SessionKind = Literal["firmware", "kernel", "unknown"]


@dataclass(frozen=True, slots=True)
class Descriptor:
    """How one logical unit is reached: its geometry, its names and the Local Transport's send handler.

    ``send_handler(context, frame)`` is called directly, on the thread that took the command from the wire; it raises
    nothing, and calls the frame back (``storage.frame``).  The Remote Transport has checked what the frame names.
    """

    blocks: int
    read_only: bool
    identity: bytes  # 8 octets, an NAA 3 designator; the same for a volume for ever (SPC-4 r37 7.8.6.6.4)
    serial: str  # ASCII, at most 32 characters
    product: str  # ASCII, at most 16 characters
    context: Any = field(repr=False)  # opaque to all but the Local Transport; handed back untouched with every call
    send_handler: SendHandler = field(repr=False)
    block_octets: int = 512
    thin: bool = True  # whether UNMAP gives space back
    removable: bool = False
    physical_octets: int = 512  # what the initiator is told that the medium writes at once
    device_type: int = 0x00  # SPC-4 r37 table 142: a disk, or 05h, an optical disc


@dataclass(frozen=True, slots=True)
class PlatformDescriptor:
    """How the devices of one platform are reached: the Local Transport's calls, and its context for the platform."""

    name: str
    context: Any = field(repr=False)  # opaque, as a Descriptor's
    found: Callable[[Any], tuple[Sequence[Any], str | None]] = field(repr=False)  # its devices; why there are none
    connect: Callable[..., Descriptor] = field(repr=False)
    disconnect: Callable[[Descriptor], None] = field(repr=False)
    send_handler: SendHandler = field(repr=False)


@dataclass(frozen=True, slots=True)
class Admission:
    """A session that has been let in."""

    target: Iqn
    epoch: int
    descriptors: Mapping[int, Descriptor]  # by LUN
    session_id: str


@dataclass(slots=True)
class SessionFacts:
    """What is known of one session; its thread alone writes, everybody may read.

    Times are CLOCK_MONOTONIC seconds.
    """

    initiator: Iqn
    target: Iqn | None  # None: a discovery session, which the Connection Manager never sees
    peer: str  # the initiator's address and port
    isid: bytes
    kind: SessionKind
    login_at: float
    last_heard_at: float  # any PDU
    first_read_at: float | None = None
    answers_nop: bool = False  # has answered a ping of ours at least once; firmware never does
    reads: int = 0
    writes: int = 0
    read_octets: int = 0
    written_octets: int = 0


class Connection(Protocol):
    """One live connection, as the Connection Manager sees it."""

    @property
    def facts(self) -> SessionFacts:
        """Return the session's facts, alive: they change under the reader."""

    def resized(self, lun: int, blocks: int) -> None:
        """Take note, from any thread, that a unit has more blocks: the initiator is told with its next command."""

    def appeared(self, lun: int, descriptor: Descriptor) -> None:
        """Take note, from any thread, of one unit more; the initiator is told with its next command."""

    def vanished(self, lun: int) -> None:
        """Let a unit go, in another thread; the caller ends its Descriptor on return, whatever is still under way."""

    def shut_down(self) -> None:
        """End the connection soon, from any thread, without waiting; ``Manager.gone`` follows its last call."""


class Manager(Protocol):
    """The Connection Manager, as the Remote Transport sees it."""

    def targets_visible(self, initiator: Iqn, address: str) -> tuple[Iqn, ...]:
        """Return the targets that this initiator may see from this address."""

    def credentials(self, initiator: Iqn, target: Iqn, address: str) -> Credentials | None:
        """Return what the initiator must prove to log in to the target from this address; None refuses it outright."""

    def moved(self, initiator: Iqn, target: Iqn, address: str) -> Moved | None:
        """Return where the initiator finds the target instead; None if it is here, or not its business."""

    def admit(self, initiator: Iqn, target: Iqn, proved: Credentials, connection: Connection) -> Admission:
        """Let an initiator in that has proved these, after the sessions that it replaces have been shut down.

        RefusedError: not, or no longer, allowed; UnavailableError: the initiator should try again later.
        """

    def first_read(self, session_id: str) -> None:
        """Take note that a session has read its first block; called once, after its ``first_read_at`` is set."""

    def refused(self, initiator: Iqn | None, target: Iqn | None, peer: str, why: str) -> None:
        """Take note of a login that failed; the names are None where the initiator had not yet told them properly."""

    def gone(self, session_id: str, why: str) -> None:
        """Take note that a session's thread executes no more calls; ``why`` is logout, closed, or what ended it."""
