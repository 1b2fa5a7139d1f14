"""Targets that are killed under load and started again: our storage process, and tgtd, which must pass the same."""

import random
from pathlib import Path

from panloom.storage.exports import Access, ExportedLun
from panloom.values import Iqn
from support import tgtd
from support.block_load import INITIATOR
from support.marked_blocks import BLOCK, Ledger, marked
from support.storage_process import StorageProcess

BLOCKS = 3072  # of each unit: 1.5 MiB, 384 clusters
IMAGE_BLOCKS = 1001  # marked with their own numbers, 1 … 1001; the last cluster is no whole one
TARGET = Iqn("iqn.2026-11.dev.panloom:shop.web1")


class OurStorage(StorageProcess):
    """LUN 0 is a clone of an image, LUN 1 a volume over nothing."""

    target = TARGET
    without = ()

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        image = directory / "golden"
        image.write_bytes(b"".join(marked(lba, lba + 1) for lba in range(IMAGE_BLOCKS)))

        async def prepare(client):
            await client.import_image("web@1", image)
            await client.create_volume("shop.web1", "web@1", BLOCKS * BLOCK)
            await client.create_volume("shop.data", None, BLOCKS * BLOCK)
            luns = [ExportedLun(0, volume="shop.web1"), ExportedLun(1, volume="shop.data")]
            await client.export(str(TARGET), luns, 1, Access(INITIATOR.name))

        self.run(prepare)

    @property
    def portal(self):
        return "127.0.0.1", self.port

    def ledgers(self):
        """Return what the units hold before anything is written."""
        web, data = Ledger(BLOCKS, first=IMAGE_BLOCKS), Ledger(BLOCKS)
        web.now[:IMAGE_BLOCKS] = range(1, IMAGE_BLOCKS + 1)
        return {0: web, 1: data}

    def stumble(self, chance: random.Random) -> None:
        """Be killed a second time, while it starts."""
        self.start_and_kill(chance.uniform(0.0, 0.6))


class Tgtd(tgtd.Tgtd):
    """tgtd with one file."""

    target = tgtd.TARGET
    without = ("unmap",)  # its disk is a file of fixed size

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, BLOCKS * BLOCK)

    def ledgers(self):
        """Return what the unit holds before anything is written."""
        return {1: Ledger(BLOCKS)}

    def stumble(self, chance: random.Random) -> None:
        """It is told what it serves after its start: it would have nothing to lose."""
