"""Every call on a file that a plain disk, or an import of an image, makes fails once, in each way in which it may.

What volumes and the control node's state make is struck by ``make campaign PARTS=faults``.
"""

import os
from dataclasses import fields
from functools import partial

import pytest

from panloom.errors import PanloomError
from panloom.storage.image import ImageStore
from panloom.storage.stores.file import open_path
from panloom.system_calls import SystemCalls, instead_of_the_kernel
from support.crash.faults import SHORT, TORN, WAYS, halved

REFUSALS = (OSError, PanloomError)
BLOCK = 4096


class OneFault:
    """The kernel; its call of this number is refused, or reads or writes half."""

    def __init__(self, number=None, way=None):
        self.made = []
        self._number, self._way = number, way

    def calls(self):
        """Return what stands in for the kernel."""
        real = SystemCalls()
        names = [field.name for field in fields(SystemCalls)]
        return SystemCalls(**{name: partial(self._call, name, getattr(real, name)) for name in names})

    def _call(self, name, real, *arguments):
        self.made.append(name)
        if len(self.made) - 1 == self._number:
            if self._way == SHORT:
                return real(*halved(name, arguments))
            raise OSError(self._way, os.strerror(self._way))
        return real(*arguments)


def faults(work):
    """Yield each fault that a piece of work may meet."""
    survey = OneFault()
    with instead_of_the_kernel(survey.calls()):
        work()
    for number, name in enumerate(survey.made):
        for way in WAYS.get(name, ()):
            if way != TORN:
                yield f"{name} {number} {way}", OneFault(number, way)


def make_source(path):
    with path.open("wb") as file:
        file.write(b"a" * BLOCK)
        file.seek(1 << 20)
        file.write(b"b" * BLOCK)


def test_an_import_is_whole_or_refused_and_can_be_asked_for_again(tmp_path):
    source, places = tmp_path / "source", iter(range(1000))
    make_source(source)

    def work(place=None):
        return ImageStore(place or tmp_path / f"{next(places)}").import_file("web@1", source)

    struck = 0
    for told, fault in faults(work):
        place = tmp_path / f"{next(places)}"
        with instead_of_the_kernel(fault.calls()):
            try:
                answered = work(place)
            except REFUSALS:
                answered = None
        if answered is not None:
            assert [image.sha256 for image in ImageStore(place).all()] == [answered.sha256], told
        image = work(place)
        assert image.path.read_bytes() == source.read_bytes(), told
        assert [path.name for path in place.iterdir()] == [image.path.name], told
        struck += 1
    assert struck > 40


WORK = {
    "write 0": lambda store, into: store.write(0, memoryview(b"a" * BLOCK)),
    "write 2": lambda store, into: store.write(2 * BLOCK, memoryview(b"b" * BLOCK)),
    "unmap 1": lambda store, into: store.unmap(BLOCK, BLOCK),
    "flush": lambda store, into: store.flush(),
    "read": lambda store, into: store.read_now(0, memoryview(into)) or store.read(0, memoryview(into)),
    "look up": lambda store, into: store.look_up(0, len(into)),
    "close": lambda store, into: store.close(),
}
WANTED = (b"a" * BLOCK, bytes(BLOCK), b"b" * BLOCK)


def work_on(path, *, thick):
    """Write to a disk, read it; return what was refused, and what was read."""
    path.write_bytes(bytes(BLOCK) + b"x" * BLOCK + bytes(2 * BLOCK))
    into, refused = bytearray(3 * BLOCK), set()
    try:
        store = open_path("disk", path, read_only=False, thick=thick, optical=False)
    except REFUSALS:
        return {*WORK}, bytes(into)
    for name, what in WORK.items():
        try:
            what(store, into)
        except REFUSALS:
            refused.add(name)
    return refused, bytes(into)


@pytest.mark.parametrize("thick", [False, True])
def test_what_a_plain_disk_does_not_refuse_is_done(tmp_path, thick):
    path, struck = tmp_path / "disk", 0
    for told, fault in faults(partial(work_on, path, thick=thick)):
        with instead_of_the_kernel(fault.calls()):
            refused, read = work_on(path, thick=thick)
        octets = path.read_bytes()
        for number, name in enumerate(("write 0", "unmap 1", "write 2")):
            assert name in refused or octets[number * BLOCK :][:BLOCK] == WANTED[number], told
        assert "read" in refused or read == octets[: 3 * BLOCK], told
        assert "flush" not in refused or {"read", "look up"} <= refused, told
        struck += 1
    assert struck > 20
