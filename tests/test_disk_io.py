"""What is done to an open file is done whole, or told."""

import errno
import os

import pytest

from panloom.disk_io import (
    close_file,
    copy_file,
    data_extents,
    read_fully,
    read_octets,
    sha256,
    take_lock,
    write_fully,
    write_through,
    zero_range,
)
from panloom.system_calls import SystemCalls, instead_of_the_kernel


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
