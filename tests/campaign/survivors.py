"""Why nothing can be seen when a place is taken out: by module, function and what stands there.

``beside`` are the places that do the same: without them, too, something must be seen, or the reason is not believed.
"""

from typing import NamedTuple


class Reason(NamedTuple):
    """Why, and what stands in for it."""

    why: str
    beside: tuple = ()


_STORE, _MANAGER, _SQLITE = "storage.volume_store", "storage.connection_manager", "state.sqlite_file"
_EPOCHS = "storage.epochs"
_REMOVED_AGAIN = Reason("of something that nobody is told of: the next start removes it again")
_OWN_FILE = Reason(
    "the file is synced before it has its name",
    ((_SQLITE, "_keep_copy", "file.appear(copy.name)"),),
)
_SYNCED_BY_SQLITE = Reason(
    "whenever it opens its log, SQLite syncs the directory with the first sync of that, before a commit is in it"
)
_FOUND_LOG = Reason("SQLite uses a log that it finds, whatever the header of the file says of its journal")
_SAVE = "self._file.save({**self._exports, export.target: export}.values())"
_FLUSHED = (_MANAGER, "ConnectionManager._flush", "self._store.open(name).flush()")
_FLUSHES = (_MANAGER, "ConnectionManager.unexport", "self._flush(known.written_volumes)")
_REMEMBERED = Reason(
    "a revocation is in the file of exports, and an export is forgotten only after its volumes are flushed",
    (
        _FLUSHED,
        (_MANAGER, "ConnectionManager.unexport", "self._close_unused(known)"),
    ),
)
_CLOSED = Reason(
    "its volumes were flushed just before",
    (
        _FLUSHED,
        (_EPOCHS, "raise_epoch", "volume.raise_epoch(epoch)"),
    ),
)
_CLOSES = Reason(
    "a volume that nobody uses any more is flushed when it is closed",
    (
        (_MANAGER, "ConnectionManager.unexport", "self._close_unused(known)"),
        (_EPOCHS, "raise_epoch", "volume.raise_epoch(epoch)"),
    ),
)
_NOTED = Reason(
    "the file of exports holds the epoch by the time that anybody is told, and the next start raises it from there",
    ((_MANAGER, "ConnectionManager._change", _SAVE),),
)
_HOLDS = (_STORE, "VolumeStore.create", "self._directory.holds(file_name)")
_CREATE_SYNC = (_STORE, "VolumeStore.create", "self._directory.sync()")

REASONS = {
    (_SQLITE, "make_durable", "Directory(path.parent)"): _SYNCED_BY_SQLITE,
    (_SQLITE, "make_durable", "directory.sync()"): _SYNCED_BY_SQLITE,
    (_SQLITE, "connect", 'connection.execute("PRAGMA synchronous = FULL")'): Reason(
        "what it may sync is a journal played back, of one sector that says which journal there is"
    ),
    (_SQLITE, "connect", '"PRAGMA synchronous = FULL"'): Reason("it is what SQLite does if nobody says anything"),
    ("state.sqlite", "SqliteStore.open", "sqlite_file.connect(path)"): Reason("as the statement that it makes"),
    (_SQLITE, "prepare", '_set_journal_mode(connection, "wal", path)'): _FOUND_LOG,
    (_SQLITE, "_set_journal_mode", 'connection.execute(f"PRAGMA journal_mode = {mode}")'): _FOUND_LOG,
    (_SQLITE, "_keep_copy", "Directory(copy.parent)"): Reason("it was synced when the store was opened"),
    (_SQLITE, "_keep_copy", "connection.backup(target)"): _OWN_FILE,
    (_SQLITE, "_keep_copy", '_set_journal_mode(target, "delete", file.path)'): Reason(
        "what is lost is which journal the copy says that it has; it is whole, and read, either way"
    ),
    (_SQLITE, "_keep_copy", "file.appear(copy.name)"): Reason(
        "SQLite has synced the copy, and syncs the directory with the log of what comes after it",
        (
            (_SQLITE, "_keep_copy", "connection.backup(target)"),
            (_SQLITE, "_keep_copy", '_set_journal_mode(target, "delete", file.path)'),
        ),
    ),
    (_EPOCHS, "raise_epoch", "volume.raise_epoch(epoch)"): _REMEMBERED,
    (_EPOCHS, "raise_epochs", "raise_epoch(store, name, epoch)"): _REMEMBERED,
    (_MANAGER, "ConnectionManager._fence", "raise_epochs(self._store, fenced, epoch)"): _REMEMBERED,
    (_EPOCHS, "note_epoch", "volume.raise_epoch(export.epoch)"): _NOTED,
    (_MANAGER, "ConnectionManager.export", "note_epoch(self._store, export)"): _NOTED,
    (_EPOCHS, "raise_epochs_at_start", "volume.raise_epoch(export.epoch)"): Reason(
        "it comes from the file of exports, from where the next start takes it again"
    ),
    _FLUSHED: _CLOSES,
    _FLUSHES: _CLOSES,
    (_MANAGER, "ConnectionManager.unexport", "self._close_unused(known)"): _CLOSED,
    (_MANAGER, "ConnectionManager._close_unused", "self._store.close(name)"): _CLOSED,
    ("storage.exports", "ExportsFile.save", "self._directory.remove(self._reserve_path.name)"): Reason(
        "it is removed for its space, and made again"
    ),
    ("storage.overlay", "Volume.end_absorbing", "self._flush()"): Reason(
        "all that was taken over was flushed before; this is for what comes between",
        (("storage.overlay", "Volume.end_absorbing", "self.flush()"),),
    ),
    ("storage.overlay", "Volume.end_flattening", "self._flush()"): Reason(
        "all that was taken over was flushed before; this is for what comes between",
        (("storage.overlay", "Volume.end_flattening", "self.flush()"),),
    ),
    ("storage.overlay", "Volume.snapshot", "self._flush()"): Reason(
        "there are two, and the second is for what is written during the first",
        (("storage.overlay", "Volume.snapshot", "self._flush()"),),
    ),
    (_STORE, "VolumeStore.__init__", "make_directory(directory)"): Reason(
        "the directories within it are made durable with all those above them",
        (
            (_STORE, "VolumeStore.__init__", 'ImageStore(directory / "images")'),
            (_STORE, "VolumeStore.__init__", 'Directory(directory / "volumes")'),
        ),
    ),
    (_STORE, "VolumeStore.__init__", "self._directory.remove(entry.file_name)"): _REMOVED_AGAIN,
    (_STORE, "VolumeStore._remove_unused", "self._directory.remove(entry.file_name)"): _REMOVED_AGAIN,
    (_STORE, "VolumeStore._unfreeze", "self._directory.remove(frozen_name)"): _REMOVED_AGAIN,
    (_STORE, "VolumeStore.__init__", "self._remove_unused()"): _REMOVED_AGAIN,
    (_STORE, "VolumeStore.delete", "self._remove_unused()"): _REMOVED_AGAIN,
    (_STORE, "VolumeStore.delete_snapshot", "self._remove_unused()"): _REMOVED_AGAIN,
    (_STORE, "VolumeStore.end_absorbing", "self._remove_unused()"): _REMOVED_AGAIN,
    (_STORE, "VolumeStore.end_flattening", "self._remove_unused()"): _REMOVED_AGAIN,
    _HOLDS: Reason("whoever is told that it is there has synced the directory by then", (_CREATE_SYNC,)),
    _CREATE_SYNC: Reason("a name that was changed was synced when it was looked up", (_HOLDS,)),
    (_STORE, "VolumeStore.grow", "self.open(name)"): Reason(
        "the file is synced, its header too, before the next header is written",
        (("storage.overlay", "Volume.grow", "self._sync(top.sync_for_header)"),),
    ),
    (_STORE, "VolumeStore.snapshot", "self._directory.sync()"): Reason(
        "a name that was changed was synced when it was looked up",
    ),
    (_STORE, "VolumeStore.delete_snapshot", "self._directory.sync()"): Reason(
        "a name that was changed was synced when the catalog was read",
    ),
    (_STORE, "VolumeStore._freeze.renew", "VolumeFile.load(file.path, this_boot())"): Reason(
        "the file is synced before it has its name", ((_STORE, "VolumeStore._freeze.renew", "file.appear(file_name)"),)
    ),
}
