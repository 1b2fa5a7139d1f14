"""Resources back to documents: what is stored, as a person would write it.

    resources ──spec──▶ only what differs from the defaults ──writers──▶ documents ──load──▶ the same resources

A spec's field and its resource's have the same name but for a unit: ``memory`` is ``memory_octets``, ``within`` is
``within_seconds``.  A PAN comes with its LANs and servers inside: alone it would say that it has none.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from panloom.model.disks import is_server_disk
from panloom.model.documents import SPECS, PanSpec, inner_model
from panloom.model.resources import Member, Node, Pan, Platform, Resource, Server, VirtualLan, Volume, order
from panloom.model.written import API_VERSION, Spec

Document = dict[str, Any]
_UNITS = ("", "_octets", "_seconds")
_BY_TYPE = {resource: (kind, spec) for kind, (spec, _, resource) in SPECS.items()}


class LeftOut(NamedTuple):
    """A resource that no document can describe as it is now, and why."""

    resource: Resource
    why: str


class Exported(NamedTuple):
    """Documents in the order in which they would be made, and what they cannot say."""

    documents: tuple[Document, ...]
    left_out: tuple[LeftOut, ...]


def whole(resources: Mapping[str, Resource]) -> Exported:
    """Return documents for everything; applied where it stands they change nothing."""
    documents: list[Document] = []
    left_out: list[LeftOut] = []
    for resource in sorted(resources.values(), key=order):
        if isinstance(resource, VirtualLan | Server):
            continue
        if is_server_disk(resource, resources):
            continue
        if why := _unwritable(resource, resources):
            left_out.append(LeftOut(resource, why))
        else:
            documents.append(document(resource, resources))
    return Exported(tuple(documents), tuple(left_out))


def some(wanted: Iterable[Resource], resources: Mapping[str, Resource]) -> Exported:
    """Return a document for each resource wanted, of all that there are."""
    ordered = sorted(wanted, key=order)
    reasons = [_unwritable(resource, resources) for resource in ordered]
    left_out = tuple(LeftOut(resource, why) for resource, why in zip(ordered, reasons, strict=True) if why)
    documents = (document(resource, resources) for resource, why in zip(ordered, reasons, strict=True) if not why)
    return Exported(tuple(documents), left_out)


def document(resource: Resource, resources: Mapping[str, Resource]) -> Document:
    """Return the document of one resource; a PAN's holds the LANs and servers that it has among ``resources``."""
    kind, _ = _BY_TYPE[type(resource)]
    written: Document = {"apiVersion": API_VERSION, "kind": kind}
    if isinstance(resource, Member):
        written["pan"] = resource.pan
    written["name"] = resource.name
    written |= body(resource)
    if isinstance(resource, Pan):
        for key, inner in PanSpec.nested.items():
            members = sorted(_members(SPECS[inner][2], resource.name, resources), key=order)
            written |= {key: {member.name: body(member) for member in members}} if members else {}
    return written


def body(resource: Resource) -> Document:
    """Return what stands below the header: each field that is not as it would be by itself."""
    spec = _BY_TYPE[type(resource)][1]
    made: Spec = spec.model_validate(_values(spec, resource))
    return made.model_dump(mode="json", exclude_defaults=True)


def _values(spec: type[BaseModel], part: BaseModel) -> dict[str, Any]:
    """Return the values of a spec's fields, taken from the resource, or the part of one, that it describes."""
    found: dict[str, Any] = {}
    for field, info in spec.model_fields.items():
        attribute = next((field + unit for unit in _UNITS if field + unit in type(part).model_fields), None)
        value = getattr(part, attribute) if attribute else None
        inner = inner_model(info.annotation)
        if inner and isinstance(value, tuple):
            value = tuple(_values(inner, item) for item in value)
        elif inner and isinstance(value, BaseModel):
            value = _values(inner, value)
        if value is not None and value != "":
            found[field] = value
    return found


def _members(kind: type[Resource], pan: str, resources: Mapping[str, Resource]) -> Iterable[Resource]:
    for resource in resources.values():
        if isinstance(resource, kind) and isinstance(resource, Member) and resource.pan == pan:
            yield resource


def _unwritable(resource: Resource, resources: Mapping[str, Resource]) -> str:
    match resource:
        case Node(port="") if not _is_relayed(resource, resources):
            return "it was taken in without a port; write a document that names one"
        case Volume(server="") if f"/want/server/{resource.label}" in resources:
            return f"server {resource.label} had it before an update, and a document would call it the server's disk"
        case Volume() if is_server_disk(resource, resources):
            return f"it is the disk of server {resource.serves}, which its `disk:` describes"
        case Member() if f"/want/pan/{resource.pan}" not in resources:
            return f"PAN {resource.pan} is not described any more"
    return ""


def _is_relayed(node: Node, resources: Mapping[str, Resource]) -> bool:
    platform = resources.get("/want/platform")
    return isinstance(platform, Platform) and any(node.address in relay.subnet for relay in platform.storage.relays)
