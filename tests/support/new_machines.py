"""Machines that no document names, and what they become."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from panloom.lab.qemu import Machine
from panloom.storage.exports import Access
from support.lab import LabInTest
from support.waiting import until

PAN = """
apiVersion: panloom/v1
kind: PAN
name: shop
lans:
  front: {subnet: 10.1.0.0/24, range: 10.1.0.100-10.1.0.199}
"""


def rule(name: str = "web", match: str = "{}", *, image: str = "web", approve: str = "always", more: str = "") -> str:
    """Return a rule's document: a server of shop, with a NIC in its LAN; ``more`` is a line of it."""
    return f"""
---
apiVersion: panloom/v1
kind: Rule
name: {name}
match: {match}
approve: {approve}
{more}
server: {{pan: shop, image: {image}, lans: [front]}}
"""


def donor(name: str, source: Path, *, version: int = 1) -> str:
    """Return an image's document."""
    return f"---\napiVersion: panloom/v1\nkind: Image\nname: {name}\nversion: {version}\nsource: {source}\n"


def access_of_all(lab: LabInTest) -> Mapping[str, Access]:
    """Return target → who may log in, by the storage process's own file."""
    exports = msgspec.json.decode((lab.lab.directory / "volumes" / "exports.json").read_bytes())["exports"]
    return {export["target"]: msgspec.convert(export["access"], Access) for export in exports}


def digits(machine: Machine) -> str:
    """Return its MAC as it is called by it."""
    return machine.mac.replace(":", "")


def node_of(machine: Machine) -> str:
    """Return the name of the node that it becomes."""
    return f"n-{digits(machine)}"


def server_of(machine: Machine, rule: str = "web") -> str:
    """Return the server that it becomes."""
    return f"shop/{rule}-{digits(machine)}"


def until_discovered(lab: LabInTest, machine: Machine, *, seconds: float = 30.0) -> Mapping[str, Any]:
    """Wait until a machine has told what it is, and is known by that; return its row."""

    def discovered() -> Mapping[str, Any] | None:
        rows = lab.call(lab.lab.get("resources", "node"))["rows"]
        return next((row for row in rows if row["mac"] == machine.mac and row["vendor"]), None)

    return until(discovered, f"{machine.name} has told what it is", seconds=seconds)


def until_booted(lab: LabInTest, machine: Machine, *, seconds: float = 30.0) -> Mapping[str, Any]:
    """Wait until a machine has come to the end of its way; return its row."""

    def booted() -> Mapping[str, Any] | None:
        rows = lab.call(lab.lab.get("resources", "node"))["rows"]
        if node_of(machine) not in {row["name"] for row in rows}:
            return None
        shown = lab.node(node_of(machine))
        return shown if "booted" in [state for state, _ in shown.get("provisioning", ())] else None

    return until(booted, f"{machine.name} is provisioned", seconds=seconds)
