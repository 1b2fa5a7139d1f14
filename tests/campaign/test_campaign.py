"""A sample of each campaign; ``make campaign`` runs them whole.

The states have theirs in ``storage/test_crash.py`` and ``state/test_crash.py``.
"""

import pytest

from campaign import states, tally
from campaign.faults import strike, survey
from campaign.mutants import hunt
from campaign.mutants import survey as survey_syncs
from campaign.survivors import REASONS
from support.crash.chapter import in_memory
from support.crash.places import path_of

SAMPLE = (
    "_system.fdatasync(fd)",
    "_system.fsync(self.fd)",
    "self._directory.appears(self.path, name)",
    "top.write_header(msgspec.structs.replace(top.header, **changes))",
    "self._replace(octets)",
    'connection.execute("COMMIT")',
)
"""Calls without whose syncs something is lost."""


def test_a_forgotten_sync_is_noticed():
    where = survey_syncs(stories=8)
    found = {text: [place for place in where if place.text == text] for text in SAMPLE}
    assert [text for text, places in found.items() if not places] == []
    missed = {text for text, places in found.items() if not any(hunt(place, where[place], 20.0) for place in places)}
    assert missed == set()  # from some callers another sync follows


def test_every_place_of_a_survivor_is_there():
    """What a reason is given for still stands in the sources."""
    gone = [text for module, text in REASONS if text not in " ".join(path_of(module).read_text().split())]
    assert gone == []


@pytest.mark.parametrize(("kind", "every"), [("volumes", 101), ("state", 31)])
def test_nothing_false_is_answered_when_a_call_fails(kind, every):
    with in_memory() as directory:
        faults = survey(directory, kind)
        assert len(faults) > 200
        wrong = [strike(directory, kind, *fault)[0] for fault in faults[7::every]]
    assert [what for what in wrong if what] == []


def test_a_campaign_goes_on_where_it_was_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tally, "PROGRESS", tmp_path)
    stopped = states.States(10**9, 77)
    assert not stopped.run(0)
    stopped._one("volumes")
    seen = stopped.total
    assert seen > 200
    again = states.States(10**9, 77)
    assert again.total == seen
    assert states.States(10**9, 78).total == 0
    assert states.States(10**9, 77, fresh=True).total == 0
    again.report(tmp_path / "result.json")
    assert '"violations": []' in (tmp_path / "result.json").read_text()
    capsys.readouterr()
