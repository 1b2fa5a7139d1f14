"""Would a forgotten sync be noticed?  Every place that makes something durable, taken out one at a time.

call      a call under which a sync was seen, at whatever depth: SQLite's COMMIT, ``file.appear(…)``, ``os.fsync``
          itself.  It is made, and no sync under it is.
source    what asks for durability and is no call that syncs: the flag of a write, SQLite's setting, FUA and SYNCHRONIZE
          CACHE in SCSI, a commit that is waited for.  The module is imported without it.

Calls are found by running the stories, and by name where no story comes by (``places``).
"""

import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from support.crash import recorder
from support.crash.places import SOURCE, Place


@cache
def _module_of(file):
    path = Path(file)
    if SOURCE / "panloom" not in path.parents:
        return None
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


@cache
def _positions(code):
    return tuple(code.co_positions())


def calls_under_way():
    """Yield the calls in our sources that led here, the innermost first."""
    frame = sys._getframe(1)
    while frame:
        module = _module_of(frame.f_code.co_filename)
        if module:
            line, end_line, column, end_column = _positions(frame.f_code)[frame.f_lasti // 2]
            yield Place(module, line, column, end_line, end_column)
        frame = frame.f_back


@contextmanager
def noting(seen):
    """Add every call that leads to a sync to a set, until the block ends."""

    def note():
        seen.update(calls_under_way())
        return False

    with recorder.leaving_out(note):
        yield


@contextmanager
def without_syncs_under(*places):
    """Let calls be made without the syncs that they lead to."""
    with recorder.leaving_out(lambda: any(call in places for call in calls_under_way())):
        yield
