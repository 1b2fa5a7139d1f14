"""Why nothing is seen when these places are taken out: by module and what stands there."""

REASONS = {
    (
        "panloom.disk_io",
        "make_directory(path)",
    ): "whatever else is in the directory above syncs it too",
    (
        "panloom.disk_io",
        "self.sync()",
    ): "only after a sync that could not be made, as in the faults",
    (
        "panloom.state.sqlite_file",
        "Directory(path.parent)",
    ): "it is synced again when the file has been made",
    ("panloom.state.sqlite_file", "directory.sync()"): "SQLite syncs the directory with the first sync of its log",
    (
        "panloom.storage.connection_manager",
        "self._file.save(self._exports.values())",
    ): "of a target that is not exported: only after an earlier call failed, as in the faults",
    (
        "panloom.storage.connection_manager",
        "self._store.open(name)",
    ): "in a story whoever asks what there is has opened the volume before",
    ("panloom.storage.volume_file", "sync_data(header_fd)"): "of a file of version 1, which no story has",
    (
        "panloom.storage.volume_store",
        "self._directory.remove(entry.file_name)",
    ): "of an unfinished snapshot or an unused layer: the next start removes it again",
    (
        "panloom.storage.volume_store",
        "self._directory.sync()",
    ): "of a snapshot that is not there: a story deletes those only that are",
}
