"""A sample of each campaign; ``make campaign`` runs them whole.

The states have theirs in ``storage/test_crash.py`` and ``state/test_crash.py``.
"""

import pytest

from campaign import states, tally
from campaign.faults import strike, survey
from campaign.mutants import hunt, key_of
from campaign.survivors import REASONS
from support.crash import scenes
from support.crash.chapter import Examination, in_memory
from support.crash.mutants import noting
from support.crash.places import path_of

_STORE = "storage.volume_store"
_MOVE = "self._directory.move(file_name, layer_file_name(entry))"
_KEEP_COPY = '_keep_copy(connection, path.with_name(f"{path.name}.v{version}.bak"))'
_LEFT_IN_THE_CACHE = "a_commit_that_a_killed_process_left_in_the_cache"
FORGOTTEN = (
    ("durable_names", "Directory.__init__", "make_directory(path)", "a_file_in_new_directories"),
    ("durable_names", "PartialFile.appear", "system_calls.kernel.fsync(self.fd)", "a_file_in_new_directories"),
    ("durable_names", "Directory.holds", "self.sync()", "a_name_that_is_seen_after_it_could_not_be_made_durable"),
    ("durable_names", "Directory.names", "self.sync()", "a_list_of_names_after_one_could_not_be_made_durable"),
    ("disk_io", "sync_data", "system_calls.kernel.fdatasync(fd)", "what_was_flushed"),
    (_STORE, "VolumeStore._freeze.freeze", "self._directory.link(file_name, frozen_name)", "a_snapshot"),
    (_STORE, "VolumeStore._freeze.renew", "file.appear(file_name)", "a_snapshot"),
    (_STORE, "VolumeStore.delete_snapshot", _MOVE, "what_a_deleted_snapshot_left"),
    ("storage.overlay", "Volume.end_absorbing", "self.flush()", "what_a_deleted_snapshot_left"),
    ("storage.overlay", "Volume.end_flattening", "self.flush()", "a_flattened_clone"),
    ("storage.overlay", "Volume.grow", "self._sync(top.sync_for_header)", "a_larger_disk"),
    ("storage.volume_file", "VolumeFile.load", "sync_data(header_fd)", "the_first_opening_of_version_1"),
    ("storage.exports", "ExportsFile.__init__", "Directory(path.parent)", "exports_in_a_directory_of_their_own"),
    ("state.sqlite", "SqliteStore.open", "sqlite_file.make_durable(path)", _LEFT_IN_THE_CACHE),
    ("state.sqlite_file", "prepare", _KEEP_COPY, "a_store_of_the_format_before"),
)
"""A place, and the scene in which something is lost without its syncs."""


@pytest.fixture(scope="module")
def calls():
    with in_memory() as directory:
        seen = set()
        for name in scenes.SCENES:
            place = directory / name
            place.mkdir()
            with noting(seen):
                scenes.tell(name, place)
    return seen


@pytest.mark.parametrize("name", scenes.SCENES)
def test_no_crash_breaks_a_promise_of_a_scene(name):
    with in_memory() as directory:
        examination = Examination(directory)
        scenes.examine(examination, name)
    assert examination.violations == []
    assert examination.states.total() > 4


@pytest.mark.parametrize(
    ("module", "function", "text", "scene"), FORGOTTEN, ids=[f"{each[1]}-{each[3]}" for each in FORGOTTEN]
)
def test_a_forgotten_sync_is_noticed(calls, module, function, text, scene):
    (place,) = (each for each in calls if key_of(each) == (module, function, text))
    assert hunt([place], [("scene", scene)], 60.0)


def test_every_place_of_a_survivor_is_there():
    """What a reason is given for still stands in the sources, and so does what stands in for it."""
    named = {*REASONS, *(other for reason in REASONS.values() for other in reason.beside)}
    texts = {module: " ".join(path_of(f"panloom.{module}").read_text().split()) for module, _, _ in named}
    gone = [(module, text) for module, _, text in named if text not in texts[module]]
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
