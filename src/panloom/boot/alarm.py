"""One alarm of a protocol machine, in the loop that runs: it rings when the machine's next deadline has come."""

import asyncio
from collections.abc import Callable


class Alarm:
    """Calls ``ring`` once for each deadline that is reached."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None

    def put(self, deadline: float | None) -> None:
        """Ring at that time of the loop's clock, or never; a machine that is asked too soon puts it anew."""
        if self._timer is not None and (deadline is None or deadline < self._timer.when()):
            self.stop()
        if self._timer is None and deadline is not None:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._rings)

    def stop(self) -> None:
        """Ring no more until the next deadline is put."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rings(self) -> None:
        self._timer = None
        self._ring()
