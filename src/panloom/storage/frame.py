"""What travels between the Remote Transport and the Local Transport: one frame for each call, and no copy of it.

    receive handler (Remote Transport)                      send handler (Local Transport)
      saved = frame.context
      frame.context = Callback(function, context)
      descriptor.send_handler(descriptor.context, frame) ──▶  does it, or has it done
                                                              frame.error, where it failed
      function(context, frame)  ◀──────────────────────────── frame.context.function(frame.context.context, frame)
      frame.context = saved
      the answer leaves

Two plain calls: no queue, socket or file between.  Each frame is called back exactly once, mostly before the send
handler returns, on the same thread; a slow medium may do so later, from any thread.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Any

from panloom.errors import RefusedError

__all__ = [
    "Callback",
    "Frame",
    "MiscompareError",
    "Operation",
    "StaleEpochError",
    "answer",
    "new_callback",
    "new_frame",
]


_NOTHING = memoryview(b"")


class StaleEpochError(RefusedError):
    """A write under an epoch that has been fenced off: nothing was written, and nothing may be acknowledged."""


class MiscompareError(OSError):
    """The medium holds something else, ``at`` so many octets from the frame's offset for the first time."""

    def __init__(self, at: int) -> None:
        super().__init__(f"differs at octet {at}")
        self.at = at


class Operation(IntEnum):
    """What a frame asks for."""

    READ = 1  # fill ``data``, or name a ``file`` that holds it
    WRITE = 2  # write all of ``data``; it may stay in a cache until FLUSH
    FLUSH = 3  # every write that was answered before is then on stable storage
    UNMAP = 4  # give back exactly this range, which then reads as zeroes
    COMPARE_AND_WRITE = 5  # ``data`` is twice ``octets``: if the first half is there, write the second; atomic
    OR_WRITE = 6  # write the bitwise or of ``data`` and what is there; atomic
    LOOK_UP = 7  # set ``octets`` to how many from ``offset`` on are alike, and ``mapped``


class Callback:
    """What a frame's context is while it is in the Local Transport: whom to call with it, and that one's context."""

    __slots__ = ("context", "function")

    def __init__(self, function: "Callable[[Any, Frame], None]", context: object) -> None:
        self.function = function
        self.context = context


class Frame:
    """One call: octets ``offset … offset + octets`` of a unit, whole blocks, inside it.

    ``data`` is filled by READ and taken by WRITE; it belongs to the requester again after the callback, or at once when
    a WRITE that is done later has had it replaced by a copy before the send handler returned.  ``file`` is an answer to
    READ in place of filling: one that holds the range in one piece, from octet ``at`` on; it has ``fd`` and stays open
    as long as it is referred to.  Only who sets ``takes_extent`` takes such an answer.  ``error``: an OSError becomes
    sense data; after a StaleEpochError the requester answers nothing any more.
    """

    __slots__ = ("at", "context", "data", "error", "file", "mapped", "octets", "offset", "operation", "takes_extent")

    def __init__(
        self,
        operation: Operation,
        offset: int = 0,
        octets: int = 0,
        data: memoryview | None = None,
        context: object = None,
    ) -> None:
        self.context: Any = context  # the requester's own; never looked into
        self.operation = operation
        self.offset = offset
        self.octets = octets
        self.data = _NOTHING if data is None else data
        self.takes_extent = False
        self.file: Any = None
        self.at = 0
        self.mapped = True  # an answer to LOOK_UP: whether they take space
        self.error: OSError | StaleEpochError | None = None


def new_frame(operation: Operation, offset: int, octets: int, data: memoryview, context: object) -> Frame:
    """Return ``Frame(…)``; compiled, in a third of the time."""
    frame = Frame.__new__(Frame)
    frame.context = context
    frame.operation = operation
    frame.offset = offset
    frame.octets = octets
    frame.data = data
    frame.takes_extent = False
    frame.file = None
    frame.at = 0
    frame.mapped = True
    frame.error = None
    return frame


def new_callback(function: Callable[[Any, Frame], None], context: object) -> Callback:
    """Return ``Callback(…)``; compiled, in a third of the time."""
    callback = Callback.__new__(Callback)
    callback.function = function
    callback.context = context
    return callback


def answer(frame: Frame) -> None:
    """Call back who sent a frame: it is done, or ``frame.error`` says why not."""
    callback = frame.context
    callback.function(callback.context, frame)
