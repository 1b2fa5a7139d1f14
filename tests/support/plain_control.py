"""A control process that only keeps documents: the real API, door, documents and store around plain answers."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from panloom.control import api
from panloom.control.documents import Documents, Outcome, Return
from panloom.control.door import Door
from panloom.decide.history import Revision
from panloom.decide.plan import Plan
from panloom.errors import ConfigError, UnavailableError
from panloom.model.export import Exported
from panloom.model.load import File
from panloom.model.resources import KINDS, Member, Resource, Server, Volume
from panloom.state.sqlite import SqliteStore

BOOT = {
    "at": 1795257067.0,
    "stages": [["power", 0.0], ["dhcp", 2.4], ["script", 2.4], ["login", 2.5], ["first read", 2.6], ["kernel", 5.9]],
    "server": "shop/web1",
    "epoch": 3,
    "tries": 0,
    "state": "stopped",
    "seconds": 130.0,
    "waits_for": None,
    "seen": {"source": "console", "seconds": 9.1, "text": "Kernel panic - not syncing: VFS: Unable to mount root fs"},
    "likely": "the kernel finds no root file system: it lacks the disk's driver, or root= is wrong",
    "mend": "give the image an initramfs that logs in to the disk, and the right root=",
}


class PlainControl:
    """Answers from the documents; every server runs on the node of its number."""

    def __init__(self, documents: Documents) -> None:
        self.documents = documents
        self.log: list[dict[str, Any]] = []
        self._more = asyncio.Event()

    async def plan(self, files: Sequence[File]) -> Plan:
        return await self.documents.plan(files)

    async def apply(self, files: Sequence[File], *, prune: bool, who: str) -> Outcome:
        outcome = await self.documents.apply(files, prune=prune, who=who)
        if outcome.revision:
            self._report("apply", f"{who} applied revision {outcome.revision}")
        return outcome

    async def revisions(self) -> Sequence[Revision]:
        return await self.documents.history.revisions()

    async def revision(self, number: int) -> tuple[Revision, Plan | None]:
        return await self.documents.history.revision(number), await self.documents.between(number - 1, number)

    async def between(self, first: int, second: int | None) -> Plan:
        return await self.documents.between(first, second)

    async def export(self, kind: str, label: str, revision: int | None) -> Exported:
        return await self.documents.export(kind, label, revision)

    async def plan_rollback(self, revision: int | None) -> Return:
        return await self.documents.plan_rollback(revision)

    async def rollback(self, revision: int | None, *, last: int | None, who: str) -> Outcome:
        return await self.documents.rollback(revision, last=last, who=who)

    async def rows(self, kind: str) -> Sequence[Mapping[str, Any]]:
        if kind not in KINDS:
            raise ConfigError(kind, "is no kind")
        return [self._row(one) for one in await self.documents.resources(kind)]

    async def row(self, kind: str, name: str) -> Mapping[str, Any] | None:
        for one in await self.documents.resources(kind):
            if one.label == name:
                return self._row(one) | ({"boot": BOOT} if kind == "node" else {})
        return None

    async def delete(self, kind: str, name: str, *, yes: bool, who: str) -> Outcome:
        return await self.documents.delete(kind, name, yes=yes, who=who)

    async def take_snapshot(self, volume: str, name: str, *, who: str) -> Mapping[str, Any]:
        self._report("snapshot", f"{volume}@{name} taken")
        return {"snapshot": f"{volume}@{name}", "created": True, "seconds": 0.012}

    async def flatten(self, volume: str, *, who: str) -> Mapping[str, Any]:
        self._report("flatten", f"{volume} is being flattened")
        return {"volume": volume}

    async def failover(self, server: str, *, who: str) -> Mapping[str, Any]:
        self._report("failover", f"{who} moves it", server=server)
        return {"server": server, "from": "n1"}

    async def power(self, node: str, action: str, *, who: str) -> Mapping[str, Any]:
        if node == "n2":
            raise UnavailableError(f"the power driver of {node} does not answer")
        return {"node": node, "power": "off" if action == "off" else "on"}

    async def approve(self, node: str, *, rule: str | None, image: str | None, who: str) -> Mapping[str, Any]:
        rule = f"{rule or 'any'}-{image}" if image else rule
        return {"node": node, "state": "installing" if rule else "spare", "server": f"shop/{rule}-9" if rule else None}

    async def release(self, node: str, *, who: str) -> Mapping[str, Any]:
        return {"node": node}

    async def events(self, *, after: int, wait_seconds: float) -> Sequence[Mapping[str, Any]]:
        if len(self.log) <= after:
            self._more.clear()
            try:
                await asyncio.wait_for(self._more.wait(), wait_seconds)
            except TimeoutError:
                return []
        return self.log[after:]

    async def status(self) -> Mapping[str, Any]:
        return {"state": "not redundant", "parts": [{"part": "storage", "state": "up", "why": "1 process"}]}

    async def personality(self, server: str) -> Mapping[str, Any]:
        return {"server": server, "nics": [{"mac": "02:50:4c:00:00:01"}]}

    def _row(self, one: Resource) -> dict[str, Any]:
        own = one.name if isinstance(one, Member) and not isinstance(one, Volume) else one.label
        row = one.model_dump(mode="json") | {"name": one.label, one.kind: own}
        if isinstance(one, Server):
            octets = one.disk.size_octets
            row |= {"node": "n1", "state": "up", "disk_octets": octets, "allocated_octets": octets // 32, "since": 1.0}
            row |= {"address": [str(nic.address) for nic in one.nics]}
        return row

    def _report(self, kind: str, text: str, server: str | None = None) -> None:
        number = len(self.log) + 1
        self.log.append({"number": number, "at": 1795257067.0, "kind": kind, "text": text, "server": server})
        self._more.set()


async def serve(directory: Path, socket: Path) -> None:
    """Serve until cancelled; ``directory`` keeps the store."""
    store = await SqliteStore.open(directory / "state.db")
    door = Door(api.create(PlainControl(Documents(store))), socket)
    await door.open()
    try:
        await asyncio.Event().wait()
    finally:
        await door.close()
        await store.close()


CHASSIS = """
apiVersion: panloom/v1
kind: Platform
name: lab
storage: {interface: eth0, address: 10.0.0.1, subnet: 10.0.0.0/24}
---
apiVersion: panloom/v1
kind: Node
name: n[1-3]
mac: 52:54:00:00:00:[01-03]
address: 10.0.0.1[1-3]
port: port[1-3]
memory: 512MiB
---
apiVersion: panloom/v1
kind: Image
name: web
source: /srv/web.img
"""
"""What the documents of a chassis look like: platform, three nodes, one image."""

if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2])))
