"""A machine's serial line, written down line by line with the time of each.

2026-11-21 16:25:29.986 No bootable device.          local time; the stamp is ``STAMP_CHARACTERS`` long
"""

import datetime as dt
import re
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

_ESCAPES = re.compile(
    rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[c=>()][0-9A-B]?)"
)  # ECMA-48 5.4, and what iPXE and syslinux send
_ENDS = re.compile(rb"[\r\n\x08]|\x1bc|\x1b\[2J")  # what was taken back or wiped from the screen was said all the same
_CONTROLS = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
MAX_OCTETS = 4 << 20
MAX_LINE_OCTETS = 4096
STAMP_CHARACTERS = len("2026-01-01 00:00:00.000")
_TAIL_OCTETS = 1 << 16


class Line(msgspec.Struct, frozen=True):
    """A line of text, and when it was said: monotonic seconds."""

    at: float
    text: str


class ConsoleLines:
    """Cuts what a serial line says into lines of text, without control characters and empty ones."""

    def __init__(self) -> None:
        self._line = b""

    @property
    def begun(self) -> bytes:
        """The line that has not ended yet: a prompt, mostly."""
        return _text(self._line)

    def feed(self, octets: bytes) -> list[bytes]:
        """Return the lines that have ended; one of ``MAX_LINE_OCTETS`` ends there."""
        *lines, self._line = _ENDS.split(self._line + octets)
        if len(self._line) > MAX_LINE_OCTETS:
            lines.append(self._line)
            self._line = b""
        return [text for line in lines if (text := _text(line))]


def _text(line: bytes) -> bytes:
    return _CONTROLS.sub(b"", _ESCAPES.sub(b"", line)).strip()


class ConsoleLog:
    """Appends to a file; when it has grown to ``MAX_OCTETS`` it becomes ``NAME.1`` and a new one begins."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._lines = ConsoleLines()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for line in self._lines.feed(b"\n"):
            self._write_line(line, time.time())
        self._file.close()

    def write(self, octets: bytes, at: float) -> None:
        """Take what the line said at a wall-clock time; each line is stamped with when it ended."""
        for line in self._lines.feed(octets):
            self._write_line(line, at)

    def _write_line(self, text: bytes, at: float) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1000):03d} "
        self._file.write(stamp.encode() + text + b"\n")
        if self._file.tell() > MAX_OCTETS:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = self._path.open("ab", buffering=0)


def readable(line: bytes) -> str:
    """Return a line as text that is harmless on any terminal."""
    return "".join(character for character in line.decode(errors="replace") if character.isprintable())


def time_of(written: str) -> float | None:
    """Return the wall-clock time of a line that was written down, None if it has none."""
    try:
        return dt.datetime.fromisoformat(written[:STAMP_CHARACTERS]).timestamp()
    except (ValueError, OverflowError):
        return None


def last_lines(path: Path, most: int) -> Sequence[Line]:
    """Return what was last written down, oldest first; nothing where that cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_OCTETS))
            written = file.read(_TAIL_OCTETS).splitlines()
    except OSError:
        return ()
    began = time.monotonic() - time.time()
    texts = [readable(line) for line in written[-most:]]
    return [Line(at + began, text[STAMP_CHARACTERS + 1 :]) for text in texts if (at := time_of(text)) is not None]
