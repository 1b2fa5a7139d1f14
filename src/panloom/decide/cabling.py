"""Does a node's cable end where its document says?  A filter at any other interface shuts nobody out.

A bridge learns at which port a MAC's frames come in, and forgets it when the port goes down or nothing comes for
minutes.  What it filters it does not learn, so that no node can pretend to be at another's port.

    its frames come in       at its own port    elsewhere    nowhere: it is off, silent, or not plugged in
    may be placed on         if that is a bridge's port   no           if that is a bridge's port
    a fence there holds      yes                no           as they came in last; never yet: if a bridge's port
"""

from collections.abc import Mapping

import msgspec


class Cabling(msgspec.Struct, frozen=True):
    """``bridged``: the interfaces that are ports of a bridge.  ``learnt``: MAC → those where its frames come in."""

    bridged: frozenset[str]
    learnt: Mapping[str, frozenset[str]]

    def seen_at(self, mac: str, port: str) -> str | None:
        """Return where a MAC's frames come in, ``port`` if there too (bridges may hang together), None if nowhere."""
        ports = self.learnt.get(mac, frozenset())
        return port if port in ports else min(ports, default=None)

    def why_not_placed(self, mac: str, port: str) -> str | None:
        """Return why no server may be placed on the node with this MAC and port, None if one may."""
        if port not in self.bridged:
            return _not_bridged(port)
        return _elsewhere(self.seen_at(mac, port), port)

    def why_not_fenced(self, mac: str, port: str, last: str | None) -> str | None:
        """Return why a fence at ``port`` does not hold, None if it does.

        ``last``: where the node's frames came in last since its server was placed.  An interface that was taken away
        since then lets nothing in, and is filtered when it comes back.
        """
        seen = self.seen_at(mac, port) or last
        if seen is None and port not in self.bridged:
            return _not_bridged(port)
        return _elsewhere(seen, port)


def _not_bridged(port: str) -> str:
    return f"its port {port} is no port of a bridge here, so it could not be fenced: write the one where its cable ends"


def _elsewhere(seen: str | None, port: str) -> str | None:
    if seen in (None, port):
        return None
    return f"its frames come in at {seen}, so a fence at its port {port} holds nothing: mend the cable or write {seen}"
