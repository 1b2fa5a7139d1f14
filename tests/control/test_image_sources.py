"""What fails while an image is read is told as trouble that may pass, so that its import is tried again."""

import asyncio
import struct

import pytest

from panloom.control.image_sources import ImageSources
from panloom.errors import UnavailableError
from panloom.model.resources import Image


def lend(directory, source, **facts):
    async def scenario():
        image = Image(name="web", version=1, source=str(source), **facts)
        async with ImageSources(directory / "incoming", None).raw(image) as raw:
            return raw

    return asyncio.run(scenario())


@pytest.mark.parametrize("facts", [{}, {"format": "raw", "sha256": "ab" * 32}])
def test_a_file_that_cannot_be_read_now_is_trouble_that_may_pass(tmp_path, facts):
    with pytest.raises(UnavailableError, match="Input/output error"):
        lend(tmp_path, "/proc/self/mem", **facts)  # nothing is mapped at 0: as of a disk that is going


def test_a_qemu_img_that_talks_nonsense_is_trouble_that_may_pass(tmp_path, monkeypatch):
    program = tmp_path / "qemu-img"
    program.write_text("#!/bin/sh\necho nonsense\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    packed = tmp_path / "web.qcow2"
    packed.write_bytes(struct.pack(">4sIQIIQI", b"QFI\xfb", 2, 0, 0, 16, 1 << 20, 0).ljust(1 << 16, b"\0"))
    with pytest.raises(UnavailableError, match="cannot be checked"):
        lend(tmp_path, packed)
