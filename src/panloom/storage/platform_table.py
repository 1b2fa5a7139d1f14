"""The Connection Manager's table of platforms: one descriptor for each, made from what the Local Transport has found.

Local Transport ── platforms() ──▶ a context each ──▶ PlatformDescriptor: calls and context ──▶ facts
"""

from collections.abc import Iterable

from panloom.storage.calls import PlatformFacts, Platforms
from panloom.storage.descriptor import PlatformDescriptor
from panloom.storage.local_transport import LocalTransport, found
from panloom.storage.sending import send


class PlatformTable:
    """See above; any thread may call."""

    def __init__(self, transport: LocalTransport) -> None:
        self._transport = transport
        self._descriptors: tuple[PlatformDescriptor, ...] = ()
        self.add(())

    def add(self, names: Iterable[str]) -> None:
        """Have devices found at these places, too; ConfigError says which is none."""
        transport = self._transport
        for name in names:
            transport.add_platform(name)
        self._descriptors = tuple(
            PlatformDescriptor(name, context, found, transport.connect, transport.disconnect, send)
            for name, context in transport.platforms()
        )

    def facts(self, *, scan: bool = False) -> Platforms:
        """Return what the platforms hold, as of the last scan, or of one now."""
        if scan:
            self._transport.scan()
        return Platforms(tuple(_facts(each) for each in self._descriptors))


def _facts(platform: PlatformDescriptor) -> PlatformFacts:
    devices, failed = platform.found(platform.context)
    table = {
        "found": platform.found,
        "connect": platform.connect,
        "disconnect": platform.disconnect,
        "send_handler": platform.send_handler,
    }
    return PlatformFacts(
        name=platform.name,
        devices=tuple(devices),
        calls={what: f"{call.__module__}.{call.__qualname__}" for what, call in table.items()},
        context=f"{id(platform.context):x}",
        failed=failed,
    )
