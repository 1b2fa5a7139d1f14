"""Programs of the administrator's: nothing of one that failed goes on."""

import asyncio
import os
from contextlib import suppress

import pytest

from panloom.control.programs import run
from panloom.errors import UnavailableError
from support.waiting import until

LEAVES_ONE = 'sleep 600 & echo $! > "$0"'


def is_there(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_what_a_program_leaves_at_its_output_ends_with_it(tmp_path):
    """The program itself ended well, and what it began in the background keeps its output open."""
    noted = tmp_path / "pid"
    with pytest.raises(UnavailableError, match="a check did not end within"):
        asyncio.run(run(("/bin/sh", "-c", LEAVES_ONE, str(noted)), "a check", seconds=0.5))
    until(lambda: not is_there(int(noted.read_text())), "what it left is gone")


def test_a_program_says_its_status_and_its_last_words():
    assert asyncio.run(run(("/bin/sh", "-c", "echo one; echo two >&2; exit 3"), "it", seconds=60)) == (3, "one\ntwo")
