"""What targets hold on to while their exports change, so that nothing has to wait for their disks meanwhile.

    export     claim what it was and is to be ─▶ open ─▶ change the table ─▶ take away, give ─▶ close ─▶ release
    unexport                                             change the table ─▶ claim what it was ─▶ close ─▶ release

What is claimed counts as exported to all other targets: none gets what an older export may still write to.
"""

import threading
from collections.abc import Callable, Iterable, Sequence

from panloom.errors import ConflictError
from panloom.storage.exports import Export


class Claims:
    """See above.  All calls are made with ``changing`` held."""

    def __init__(self, changing: threading.Lock) -> None:
        self._released = threading.Condition(changing)
        self._claimed: dict[str, tuple[Export, ...]] = {}
        self._doomed: set[str] = set()

    def await_turn(self, target: str) -> None:
        """Return when nobody changes a target; ``changing`` is let go of meanwhile."""
        self._released.wait_for(lambda: target not in self._claimed)

    def claim(self, target: str, *exports: Export | None) -> None:
        """Claim what a target was and what it is to be, after ``await_turn``."""
        self._claimed[target] = tuple(export for export in exports if export)

    def release(self, *targets: str) -> None:
        """Let the next who changes one of them begin."""
        for target in targets:
            del self._claimed[target]
        self._released.notify_all()

    def claim_all(self, found: Callable[[], Sequence[Export]]) -> Sequence[Export]:
        """Claim what is found once nobody changes any of it; ``changing`` is let go of meanwhile."""
        while busy := [export.target for export in found() if export.target in self._claimed]:
            self.await_turn(busy[0])
        exports = found()
        for export in exports:
            self.claim(export.target, export)
        return exports

    def doom(self, volume: str, exports: Iterable[Export]) -> None:
        """Let nobody export a volume until ``spare``; ConflictError while somebody does, or if it is doomed already."""
        for export in self.held(exports):
            if volume in export.volumes:
                raise ConflictError(f"volume {volume} is exported by {export.target}; unexport that first")
        if volume in self._doomed:
            raise ConflictError(f"volume {volume} is being destroyed")
        self._doomed.add(volume)

    def spare(self, volume: str) -> None:
        """Let whoever wants export a volume of this name."""
        self._doomed.discard(volume)

    def held(self, exports: Iterable[Export]) -> tuple[Export, ...]:
        """Return what counts as exported: this, and what is claimed."""
        return (*exports, *(each for claim in self._claimed.values() for each in claim))

    def unused(self, before: Export, exports: Iterable[Export]) -> tuple[set[str], set[str]]:
        """Return volumes and devices of what a target was that count as exported no more, but for its own claim."""
        claimed = (each for target, claim in self._claimed.items() if target != before.target for each in claim)
        used = (*exports, *claimed)
        volumes = {name for export in used for name in export.volumes}
        devices = {name for export in used for name in export.devices}
        return set(before.volumes) - volumes, set(before.devices) - devices

    def check_writers(self, export: Export, exports: Iterable[Export]) -> None:
        """Raise ConflictError if another target has what an export is to have, and one of the two writes."""
        if doomed := self._doomed.intersection(export.volumes):
            raise ConflictError(f"volume {min(doomed)} is being destroyed")
        for other in self.held(exports):
            if other.target != export.target and (shared := export.disputes(other)):
                raise ConflictError(f"{min(shared)} is exported by {other.target}, and one of the two writes")
