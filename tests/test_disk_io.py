"""Everything that is kept goes to the disk through one module, and that module does what it says."""

import ast
import errno
import os
from pathlib import Path

import pytest

import panloom
from panloom.disk_io import (
    Directory,
    PartialFile,
    SystemCalls,
    close_file,
    copy_file,
    data_extents,
    instead_of_the_kernel,
    make_directory,
    read_file,
    read_fully,
    read_octets,
    sha256,
    take_lock,
    write_fully,
    write_through,
    zero_range,
)

SOURCE = Path(panloom.__file__).parent
KEEPERS = ("storage", "state", "control", "decide", "boot", "fabric")
"""The packages of the two processes; the lab's files are for one afternoon, and the commands keep none."""

FILE_CALLS = {
    "chmod", "copy_file_range", "fallocate", "fchmod", "fdatasync", "fdopen", "fsync", "ftruncate", "link", "listdir",
    "lseek", "makedirs", "mkdir", "mkfifo", "mknod", "open", "posix_fallocate", "pread", "preadv", "pwrite", "pwritev",
    "read", "readv", "remove", "removedirs", "rename", "renames", "replace", "rmdir", "scandir", "sendfile", "splice",
    "stat", "symlink", "sync", "truncate", "unlink", "write", "writev",
}  # fmt: skip
PATH_CALLS = {
    "exists", "glob", "hardlink_to", "is_file", "iterdir", "mkdir", "open", "read_bytes", "read_text", "rename",
    "rglob", "rmdir", "stat", "symlink_to", "touch", "unlink", "write_bytes", "write_text",
}  # fmt: skip
MODULES = {"mmap", "shutil", "tempfile"}

NOT_KEPT = {
    "boot": "serves what others put there",
    "control/console_log.py": "what consoles said; nothing relies on it",
    "control/consoles.py": "what consoles said; nothing relies on it",
    "control/door.py": "a socket",
    "control/power_program.py": "somebody else's program",
    "fabric": "devices and namespaces",
    "storage/__main__.py": "the control channel's socket",
    "storage/channel.py": "the control channel's socket",
    "storage/output.py os.preadv": "what the medium named; nothing is written",
    "storage/output.py os.sendfile": "what the medium named; nothing is written",
    "storage/overlay.py .read_text": "/proc",
    "storage/stand_alone_options.py": "what a person wrote",
    "storage/stores/file.py .stat": "what a name leads to, before it is opened",
    "storage/stores/file.py .read_text": "the machine's name",
    "storage/stores/file.py .exists": "the machine's name",
    "storage/stores/file.py fcntl.ioctl": "whether a block device may be written",
}


def calls_on_files(path):
    """Return what a module calls that reaches a file without ``disk_io``, as line and name."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names) if MODULES & {name.name for name in names}:
                yield node.lineno, "import"
            case ast.ImportFrom(module="os" | "mmap" | "shutil" | "tempfile" | "fcntl"):
                yield node.lineno, "from … import"
            case ast.Call(func=ast.Name(id="open")):
                yield node.lineno, "open"
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in FILE_CALLS:
                yield node.lineno, f"os.{name}"
            case ast.Attribute(value=ast.Name(id="fcntl"), attr=name):
                yield node.lineno, f"fcntl.{name}"
            case ast.Attribute(value=value, attr=name) if name in PATH_CALLS and looks_like_a_path(value):
                yield node.lineno, f".{name}"


def looks_like_a_path(value):
    """Return whether an expression is named as paths are named here."""
    return any(word in ast.unparse(value).lower() for word in ("path", "directory", "file", "/"))


def test_nothing_else_touches_what_is_kept():
    """A new call belongs in ``disk_io``; or, if what it reaches is not kept, into the list above."""
    found = set()
    for path in sorted(each for package in KEEPERS for each in (SOURCE / package).rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        for line, call in calls_on_files(path):
            if not {name, name.partition("/")[0], f"{name} {call}"} & NOT_KEPT.keys():
                found.add(f"{name}:{line}: {call}")
    assert found == set()


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


def test_a_lock_is_held_until_it_is_closed(tmp_path):
    fd = take_lock(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        take_lock(tmp_path / "lock")
    os.close(fd)
    os.close(take_lock(tmp_path / "lock"))


@pytest.fixture
def file(tmp_path):
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def test_reads_and_writes_are_whole_however_short_the_kernel_makes_them(file):
    def short_read(fd, views, offset):
        return os.preadv(fd, [views[0][:5]], offset)

    def short_write(fd, views, offset, flags):
        return os.pwrite(fd, bytes(next(view for view in views if view)[:3]), offset)

    with instead_of_the_kernel(SystemCalls(preadv=short_read, pwritev=short_write)):
        write_fully(file, [b"", b"0123456789", memoryview(b"abcde"), b"Z"], 4)
        into = bytearray(16)
        read_fully(file, memoryview(into), 4)
        assert into == b"0123456789abcdeZ"
        assert read_octets(file, 100, 0) == b"\0\0\0\0" + into
        with pytest.raises(OSError, match="shorter"):
            read_fully(file, memoryview(into), 5)
        write_through(file, b"through", 30)
    assert read_octets(file, 7, 30) == b"through"


def test_a_disk_that_takes_nothing_is_an_error(file):
    with (
        instead_of_the_kernel(SystemCalls(pwritev=lambda fd, views, offset, flags: 0)),
        pytest.raises(OSError, match="takes nothing"),
    ):
        write_fully(file, [b"x"], 0)


def test_closing_fails_only_where_there_is_nothing_to_close(file):
    def close(fd):
        os.close(fd)
        raise OSError(errno.EIO, "too late")

    with instead_of_the_kernel(SystemCalls(close=close)):
        close_file(os.dup(file))
    with pytest.raises(OSError, match="Bad file descriptor"):
        close_file(1 << 20)


@pytest.mark.parametrize("code", [None, errno.EOPNOTSUPP])
def test_zeroing_touches_exactly_its_range(file, code):
    def refuse(fd, offset, length):
        raise OSError(code, "no holes here")

    write_fully(file, [b"x" * 20_000], 0)
    with instead_of_the_kernel(SystemCalls(punch_hole=refuse) if code else SystemCalls()):
        zero_range(file, 4001, 9000)
        zero_range(file, 0, 0)
    assert read_octets(file, 30_000, 0) == b"x" * 4001 + bytes(9000) + b"x" * (20_000 - 13_001)


def test_an_error_of_zeroing_is_told(file):
    os.ftruncate(file, 100)
    with pytest.raises(OSError, match="Invalid"):
        zero_range(file, -1, 10)


def test_a_copy_is_equal_and_has_its_holes(file, tmp_path):
    write_fully(file, [b"a" * 5000], 0)
    write_fully(file, [b"b" * 5000], 1 << 20)
    os.ftruncate(file, 1 << 21)
    target = os.open(tmp_path / "copy", os.O_RDWR | os.O_CREAT)
    copy_file(file, target)
    assert sha256(target) == sha256(file)
    assert os.fstat(target).st_size == 1 << 21
    assert os.fstat(target).st_blocks <= os.fstat(file).st_blocks
    assert list(data_extents(target, 0, 1 << 21)) == list(data_extents(file, 0, 1 << 21))
    os.close(target)
