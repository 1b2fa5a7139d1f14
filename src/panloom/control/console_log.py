"""A machine's serial line, written down line by line with the time of each."""

import re
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_ESCAPES = re.compile(
    rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[c=>()][0-9A-B]?)"
)  # ECMA-48 5.4, and what iPXE and syslinux send
MAX_OCTETS = 4 << 20
MAX_LINE_OCTETS = 4096


class ConsoleLog:
    """Appends to a file; when it has grown to ``MAX_OCTETS`` it becomes ``NAME.1`` and a new one begins."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._line = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_line(time.time())
        self._file.close()

    def write(self, octets: bytes, at: float) -> None:
        """Take what the line said at a wall-clock time; each line is stamped with when it ended."""
        *lines, self._line = (self._line + octets).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._write_line(line, at)
        if len(self._line) > MAX_LINE_OCTETS:
            self._end_line(at)

    def _end_line(self, at: float) -> None:
        line, self._line = self._line, b""
        self._write_line(line, at)

    def _write_line(self, line: bytes, at: float) -> None:
        text = _ESCAPES.sub(b"", line).strip()
        if not text:
            return
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1000):03d} "
        self._file.write(stamp.encode() + text + b"\n")
        if self._file.tell() > MAX_OCTETS:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = self._path.open("ab", buffering=0)
