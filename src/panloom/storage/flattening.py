"""Flattening: a volume takes over, piece by piece, what it reads of image and snapshots, and then needs them no more.

    begin    flag in the header, durable  →  a thread
    thread   piece  →  pause, so that no more than ``octets_per_second`` are copied  →  piece  →  …  →  header
    killed   what was taken over is in the map; ``resume`` at the next start goes on with the rest

Sessions go on: a piece is what they wait for at most.
"""

import logging
import threading
import time

from panloom.errors import ConflictError, PanloomError
from panloom.storage.volume_store import VolumeStore

PIECE_OCTETS = 1 << 20
OCTETS_PER_SECOND = 64 << 20

log = logging.getLogger(__name__)


class Flattening:
    """Flattens volumes, one thread each; every method may be called from any thread."""

    def __init__(self, store: VolumeStore, *, octets_per_second: int = OCTETS_PER_SECOND) -> None:
        self._store = store
        self._octets_per_second = octets_per_second
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}

    def begin(self, name: str) -> None:
        """Begin with a volume, durably; nothing happens if it is begun, or has nothing below.

        UnavailableError or ConfigError if it cannot be opened.
        """
        volume = self._store.open(name)
        if volume.to_pull:
            volume.begin_flattening()
            self._start(name)

    def resume(self) -> None:
        """Go on with what an earlier process had begun."""
        for name in self._store.to_flatten():
            self._start(name)

    def stop(self) -> None:
        """End all threads at their next piece, and wait for them."""
        self._stopping.set()
        for thread in tuple(self._threads.values()):
            thread.join()

    def _start(self, name: str) -> None:
        with self._lock:
            thread = self._threads.get(name)
            if thread is None or not thread.is_alive():
                thread = threading.Thread(target=self._run, args=(name,), name=f"flatten-{name}", daemon=True)
                self._threads[name] = thread
                thread.start()

    def _run(self, name: str) -> None:
        began, copied, start = time.monotonic(), 0, 0
        try:
            while start < (octets := self._store.open(name).to_pull):
                copied += self._pull(name, start)
                start += PIECE_OCTETS
                if self._stopping.wait(max(0.0, copied / self._octets_per_second - (time.monotonic() - began))):
                    return
            if octets:
                self._store.end_flattening(name)
        except (PanloomError, OSError) as error:  # the volume stays as it is, and usable; the next start tries again
            log.warning("volume=%s flattened=no why=%r", name, str(error))
            return
        log.info("volume=%s flattened=yes copied=%d", name, copied)

    def _pull(self, name: str, start: int) -> int:
        """Take over a piece; ConflictError if it is another volume of that name by now."""
        while True:
            volume = self._store.open(name)
            if not volume.header.flattening:
                raise ConflictError(f"volume {name} is no longer to be flattened")
            try:
                return volume.pull(start, start + PIECE_OCTETS)
            except OSError:
                if self._store.open(name) is volume:
                    raise  # else it was closed meanwhile, since nobody has it exported any more
