"""Programs of the administrator's: run for one answer, and ended with all that they started.

A program that does not end in time, or keeps its output open, has failed; it is killed with its whole session.
"""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress

from panloom.errors import UnavailableError

MAX_SAID_OCTETS = 4096
CLOSE_SECONDS = 1.0


async def run(arguments: Sequence[str], what: str, *, seconds: float) -> tuple[int, str]:
    """Run a program; return its exit status, and what it said, the end of it where that is long.

    ``what`` is how it is called where it goes wrong: UnavailableError if it cannot be run or does not end in time.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **_libraries()},
        )
    except OSError as error:
        raise UnavailableError(f"{arguments[0]} cannot be run: {error.strerror}") from error
    said, code = b"", None
    try:
        async with asyncio.timeout(seconds):
            said = await _last_said(process)
            code = await process.wait()
    except TimeoutError:
        raise UnavailableError(f"{what} did not end within {seconds:g} s") from None
    finally:
        if code is None:
            await _end(process)
    return code, said.decode(errors="replace").strip()


def _libraries() -> dict[str, str]:
    path = os.environ.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": path} if path else {}


async def _last_said(process: asyncio.subprocess.Process) -> bytes:
    """Return what the program said, its last ``MAX_SAID_OCTETS`` when it said more."""
    said = b""
    if process.stdout is not None:
        while piece := await process.stdout.read(MAX_SAID_OCTETS):
            said = (said + piece)[-MAX_SAID_OCTETS:]
    return said


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill all that is left of a program: it may have ended itself, and what it started hold its output open."""
    with suppress(ProcessLookupError):  # they have just ended, and nobody has told us yet
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):  # one that left the session may hold the output still
        async with asyncio.timeout(CLOSE_SECONDS):
            await _last_said(process)
    await process.wait()
