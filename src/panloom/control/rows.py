"""What a document alone says of a row that the API shows; the control process adds what it observes.

One dict a resource, JSON types only, named as ``command/columns.py`` names its columns.
"""

from collections.abc import Iterable
from typing import Any

from panloom.model.resources import (
    AddressRange,
    Image,
    Node,
    Pan,
    Platform,
    Resource,
    Server,
    VirtualLan,
    Volume,
)


def of(resource: Resource, resources: Iterable[Resource] = ()) -> dict[str, Any]:
    """Return the row; ``resources`` is everything that is wanted, from which a PAN counts its members."""
    match resource:
        case Platform():
            storage = resource.storage
            return {
                "platform": resource.name,
                "interface": storage.interface,
                "address": str(storage.address),
                "subnet": str(storage.subnet),
                "discovery": _range(storage.discovery),
                "auth": resource.auth,
                "approve": resource.approve,
            }
        case Node():
            return {
                "node": resource.name,
                "mac": str(resource.mac),
                "address": str(resource.address),
                "port": resource.port,
                "memory_octets": resource.memory_octets,
            }
        case Image():
            return {
                "image": resource.label,
                "name": resource.name,
                "version": resource.version,
                "source": resource.source,
            }
        case Pan():
            members = tuple(resources)
            return {
                "pan": resource.name,
                "servers": _members(Server, resource, members),
                "lans": _members(VirtualLan, resource, members),
            }
        case VirtualLan():
            return {
                "pan": resource.pan,
                "lan": resource.name,
                "subnet": str(resource.subnet),
                "range": _range(resource.range),
                "router": str(resource.router) if resource.router else None,
                "dns": [str(address) for address in resource.dns],
                "domain": resource.domain,
            }
        case Server():
            return {
                "pan": resource.pan,
                "server": resource.name,
                "address": ", ".join(str(nic.address) for nic in resource.nics if nic.address),
                "image": resource.image,
            }
        case Volume():
            return {
                "volume": resource.label,
                "pan": resource.pan,
                "image": resource.image,
                "disk_octets": resource.size_octets,
            }
    raise ValueError(f"{resource.kind} has no row")


def _members(kind: type[Server | VirtualLan], pan: Pan, resources: Iterable[Resource]) -> list[str]:
    return [one.name for one in resources if isinstance(one, kind) and one.pan == pan.name]


def _range(ends: AddressRange | None) -> str | None:
    return f"{ends[0]}-{ends[1]}" if ends else None
