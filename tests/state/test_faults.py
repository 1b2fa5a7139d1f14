"""A store on a disk that fails: it goes on safely, or it does not."""

import errno

from campaign.faults import strike, survey
from support.crash.chapter import in_memory


def test_no_store_goes_on_without_its_log():
    """SQLite that cannot switch to its log stays with a journal, says nothing, and may roll back commits."""
    with in_memory() as directory:
        switches = [
            fault for fault in survey(directory, "state")
            if fault[1].caller and "journal_mode" in fault[1].caller.text and fault[2] == errno.EIO
        ]  # fmt: skip
        assert len(switches) > 2
        assert [strike(directory, "state", *fault)[0] for fault in switches] == [None] * len(switches)
