"""What goes on behind the sessions: volumes take over, piece by piece, what they read of other files.

    flatten    all of image and snapshots, because somebody asked; a flag in the header, durable, says so
    absorb     what a deleted snapshot has left directly below a volume and nobody else is read through

    thread     piece  →  pause, so that no more than ``octets_per_second`` are copied  →  piece  →  …  →  header
    killed     what was taken over is in the map; ``resume`` at the next start goes on with the rest

Sessions go on: a piece is what they wait for at most.
"""

import logging
import threading
import time
from collections.abc import Callable

from panloom.errors import ConflictError, PanloomError
from panloom.storage.overlay import Volume
from panloom.storage.volume_store import VolumeStore

PIECE_OCTETS = 1 << 20
OCTETS_PER_SECOND = 64 << 20
AGAIN_SECONDS = 0.1

log = logging.getLogger(__name__)


class _StoppedError(Exception):
    """The process ends."""


class Flattening:
    """Does both, a thread for each volume; every method may be called from any thread."""

    def __init__(self, store: VolumeStore, *, octets_per_second: int = OCTETS_PER_SECOND) -> None:
        self._store = store
        self._octets_per_second = octets_per_second
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        self._asked: set[str] = set()  # what a thread has to look at once more before it ends

    def begin(self, name: str) -> None:
        """Begin to flatten a volume, durably; nothing happens if that is begun, or nothing is below.

        UnavailableError or ConfigError if it cannot be opened.
        """
        volume = self._store.open(name)
        if volume.to_pull:
            volume.begin_flattening()
            self._start(name)

    def tidy(self) -> None:
        """Begin to absorb what deleted snapshots have left."""
        for name in self._store.to_absorb():
            self._start(name)

    def resume(self) -> None:
        """Go on with what an earlier process had begun."""
        for name in self._store.to_flatten():
            self._start(name)
        self.tidy()

    def stop(self) -> None:
        """End all threads at their next piece, and wait for them."""
        self._stopping.set()
        with self._lock:
            threads = tuple(self._threads.values())
        for thread in threads:
            thread.join()

    def _start(self, name: str) -> None:
        with self._lock:
            self._asked.add(name)
            if name not in self._threads:
                thread = threading.Thread(target=self._run, args=(name,), name=f"flatten-{name}", daemon=True)
                self._threads[name] = thread
                thread.start()

    def _run(self, name: str) -> None:
        while self._is_asked(name):
            try:
                while self._flatten(name) or self._absorb(name):
                    pass
            except _StoppedError:
                return
            except ConflictError:  # a snapshot was taken or deleted meanwhile: what there is to do is another thing now
                self._start(name)
                self._stopping.wait(AGAIN_SECONDS)
            except (
                PanloomError,
                OSError,
            ) as error:  # the volume stays usable; the next start tries again
                log.warning("volume=%s flattened=no why=%r", name, str(error))

    def _is_asked(self, name: str) -> bool:
        """Return whether there may be something to do; if not, the next who asks starts a thread of its own."""
        with self._lock:
            if name in self._asked and not self._stopping.is_set():
                self._asked.remove(name)
                return True
            del self._threads[name]
            return False

    def _flatten(self, name: str) -> bool:
        """Flatten a volume if that was begun; return whether it was."""
        if name not in self._store.to_flatten():
            return False

        def pull(volume: Volume, start: int) -> int:
            if not volume.header.flattening:
                raise ConflictError(f"volume {name} is no longer to be flattened")
            return volume.pull(start, start + PIECE_OCTETS)

        copied = self._by_pieces(name, self._store.open(name).to_pull, pull)
        self._store.end_flattening(name)
        log.info("volume=%s flattened=yes copied=%d", name, copied)
        return True

    def _absorb(self, name: str) -> bool:
        """Absorb what a deleted snapshot has left below a volume; return whether there was any."""
        layer = self._store.to_absorb().get(name)
        if layer is None:
            return False

        def absorb(volume: Volume, start: int) -> int:
            return volume.absorb(layer.header.id, start, start + PIECE_OCTETS)

        copied = self._by_pieces(name, layer.header.octets, absorb)
        self._store.end_absorbing(name, layer.header.id)
        log.info("volume=%s absorbed=%s copied=%d", name, layer.file_name, copied)
        return True

    def _by_pieces(self, name: str, octets: int, piece: Callable[[Volume, int], int]) -> int:
        began, copied = time.monotonic(), 0
        for start in range(0, octets, PIECE_OCTETS):
            copied += self._one_piece(name, start, piece)
            if self._stopping.wait(max(0.0, copied / self._octets_per_second - (time.monotonic() - began))):
                raise _StoppedError
        return copied

    def _one_piece(self, name: str, start: int, piece: Callable[[Volume, int], int]) -> int:
        while True:
            volume = self._store.open(name)
            try:
                return piece(volume, start)
            except OSError:
                if self._store.open(name) is volume:
                    raise  # else it was closed meanwhile, since nobody has it exported any more
