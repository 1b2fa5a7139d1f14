"""A netlink connection to one network namespace."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pyroute2 import AsyncIPRoute

from panloom.fabric.namespaces import within


class Netlink:
    """An asynchronous context manager, for one event loop; ``namespace`` None is our own."""

    def __init__(self, namespace: Path | None = None) -> None:
        self._namespace = namespace
        self._route: Any = None  # pyroute2 makes its methods at run time

    async def __aenter__(self) -> Self:
        with within(self._namespace):
            self._route = AsyncIPRoute(ext_ack=True)
            _ = self._route.socket  # opened by the first look at it
        await self._route.setup_endpoint()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._route.close()
