"""Epochs as volumes remember them: what is over stays over, whatever becomes of the file of exports."""

import logging

from panloom.errors import ConflictError, PanloomError, UnavailableError
from panloom.storage.exports import Export
from panloom.storage.local_transport import Volumes

RAISE_ATTEMPTS = 8  # a volume that was closed each time, between being found and being written to

log = logging.getLogger(__name__)


def raise_epoch(store: Volumes, name: str, epoch: int) -> None:
    """Have a volume remember that all lower epochs are over, though others close it and open it anew meanwhile.

    OSError if its disk refuses to remember it; UnavailableError if it is closed again and again.
    """
    for _ in range(RAISE_ATTEMPTS):
        volume = store.open(name)
        try:
            volume.raise_epoch(epoch)
        except (ConflictError, OSError):
            if volume.header.epoch < epoch and store.open(name) is volume:
                raise
        if volume.header.epoch >= epoch:  # higher if another export has raised it
            return
    raise UnavailableError("it is closed again and again")


def raise_epochs_at_start(store: Volumes, export: Export) -> None:
    """Finish what a crash interrupted; a volume that cannot be opened costs only its own target."""
    for name in export.written_volumes:
        try:
            volume = store.open(name)
            if volume.epoch < export.epoch:
                volume.raise_epoch(export.epoch)
        except (PanloomError, OSError) as error:
            log.warning("target=%s volume=%s served=no why=%s", export.target, name, error)
