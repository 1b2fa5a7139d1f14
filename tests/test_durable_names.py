"""A name is durable, or counts for nothing."""

import errno

import pytest

from panloom.disk_io import read_file, write_fully
from panloom.durable_names import Directory, PartialFile, make_directory
from panloom.system_calls import SystemCalls, instead_of_the_kernel


def test_a_partial_file_is_there_whole_or_not_at_all(tmp_path):
    directory = Directory(tmp_path)
    with PartialFile(directory, "a", 0o600) as file:
        write_fully(file.fd, [b"one"], 0)
    assert directory.names() == ()
    with PartialFile(directory, "a", 0o640) as file:
        write_fully(file.fd, [b"two"], 0)
        assert directory.names() == ("a.partial",)
        assert file.appear("b") == tmp_path / "b"
    assert directory.names() == ("b",)
    assert read_file(tmp_path / "b") == b"two"
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o640


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    (tmp_path / "a.partial").write_bytes(b"half")
    (tmp_path / "a").write_bytes(b"whole")
    assert Directory(tmp_path).names() == ("a",)


def test_directories_are_made_down_to_the_last(tmp_path):
    make_directory(tmp_path / "a" / "b" / "c")
    make_directory(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        make_directory(tmp_path / "file" / "x")


def test_after_a_failed_sync_a_directory_never_claims_that_its_names_are_durable(tmp_path):
    directory = Directory(tmp_path)

    def fail(fd):
        raise OSError(errno.EIO, "a disk that forgets")

    with instead_of_the_kernel(SystemCalls(fsync=fail)), pytest.raises(OSError, match="forgets"):
        directory.sync()
    with pytest.raises(OSError, match="earlier sync"):
        directory.sync()
    with pytest.raises(OSError, match="earlier sync"):
        directory.remove("a")
    Directory(tmp_path).sync()


def test_a_directory_that_could_not_be_opened_has_lost_nothing(tmp_path):
    directory = Directory(tmp_path)

    def none_left(path, flags, mode):
        raise OSError(errno.EMFILE, "no descriptor is left")

    with instead_of_the_kernel(SystemCalls(open=none_left)), pytest.raises(OSError, match="descriptor"):
        directory.sync()
    directory.sync()


def test_a_name_counts_for_nothing_until_its_directory_was_synced(tmp_path):
    """Whoever sees it builds on it, though a power cut would take it away."""
    directory = Directory(tmp_path)

    def fail(fd):
        raise OSError(errno.EIO, "a disk that forgets")

    def none_left(path, flags, mode):
        raise OSError(errno.EMFILE, "no descriptor is left")

    (tmp_path / "a").touch()
    with instead_of_the_kernel(SystemCalls(open=none_left)):
        for call in (lambda: directory.move("a", "b"), directory.names, lambda: directory.holds("b")):
            with pytest.raises(OSError, match="descriptor"):
                call()
    assert directory.names() == ("b",)
    with instead_of_the_kernel(SystemCalls(fsync=fail)), pytest.raises(OSError, match="forgets"):
        directory.link("b", "c")
    with pytest.raises(OSError, match="earlier sync"):
        directory.names()
    with pytest.raises(OSError, match="earlier sync"):
        directory.holds("c")
    assert directory.holds("b")
