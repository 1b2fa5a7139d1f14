"""Epochs as volumes remember them: what is over stays over, whatever becomes of the file of exports."""

import logging

from panloom.errors import ConflictError, PanloomError, UnavailableError
from panloom.storage.exports import Export
from panloom.storage.local_transport import Volumes
from panloom.storage.told import said
from panloom.storage.volume_store import offline

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


def raise_epochs(store: Volumes, fenced: Export, epoch: int) -> tuple[str, ...]:
    """Have all volumes that an export writes to remember an epoch; return what is to be said of those that do not."""
    troubles = []
    for name in fenced.written_volumes:
        try:
            raise_epoch(store, name, epoch)
        except (OSError, PanloomError) as error:
            # It counts all the same while we run, and the next start reads it from the file of exports.
            log.warning("volume=%s epoch=%d durable=no why=%r", name, epoch, said(error))
            troubles.append(f"volume {name} cannot note epoch {epoch}: {said(error)}")
    return tuple(troubles)


def note_epoch(store: Volumes, export: Export) -> None:
    """Open an export's volumes and raise their epochs to its own; errors as ``Volume.raise_epoch``."""
    for name in export.volumes:
        volume = store.open(name)
        if volume.lost:
            raise UnavailableError(offline(name))
        if name in export.written_volumes:
            volume.raise_epoch(export.epoch)


def raise_epochs_at_start(store: Volumes, export: Export) -> None:
    """Finish what a crash interrupted; a volume that cannot be opened costs only its own target."""
    for name in export.written_volumes:
        try:
            volume = store.open(name)
            if volume.epoch < export.epoch:
                volume.raise_epoch(export.epoch)
        except (PanloomError, OSError) as error:
            log.warning("target=%s volume=%s served=no why=%s", export.target, name, error)
