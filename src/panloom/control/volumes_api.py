"""The part of the API that acts on volumes.

    POST   /v1/volumes/PAN/NAME/snapshots      {name}: freeze what it holds now; {"snapshot", "created", "seconds"}
    POST   /v1/volumes/PAN/NAME/reopen         open it anew, after a failed sync took it offline; {"volume"}
    POST   /v1/volumes/PAN/NAME/flatten        begin to make it independent of image and snapshots; {"volume"}

Snapshots are shown and deleted as resources are: ``/v1/resources/snapshot``.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict


class VolumeControl(Protocol):
    """What this part asks of the control process; ``ConfigError`` for a volume or a name that there is not."""

    async def take_snapshot(self, volume: str, name: str, *, who: str) -> Mapping[str, Any]:
        """Freeze what a volume holds now, as ``volume@name``; nothing happens if that is there."""
        ...

    async def flatten(self, volume: str, *, who: str) -> Mapping[str, Any]:
        """Begin to copy what a volume reads of image and snapshots; returns at once."""
        ...

    async def reopen(self, volume: str, *, who: str) -> Mapping[str, Any]:
        """Open a volume anew that is offline."""
        ...


class SnapshotBody(BaseModel):
    """What the snapshot is called."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str


def router(control: VolumeControl) -> APIRouter:
    """Return the routes."""
    found = APIRouter()

    @found.post("/v1/volumes/{pan}/{name}/snapshots")
    async def take_snapshot(pan: str, name: str, body: SnapshotBody, request: Request) -> JSONResponse:
        return JSONResponse(await control.take_snapshot(f"{pan}/{name}", body.name, who=_who(request)))

    @found.post("/v1/volumes/{pan}/{name}/flatten")
    async def flatten(pan: str, name: str, request: Request) -> JSONResponse:
        return JSONResponse(await control.flatten(f"{pan}/{name}", who=_who(request)))

    @found.post("/v1/volumes/{pan}/{name}/reopen")
    async def reopen(pan: str, name: str, request: Request) -> JSONResponse:
        return JSONResponse(await control.reopen(f"{pan}/{name}", who=_who(request)))

    return found


def _who(request: Request) -> str:
    return request.client.host if request.client else "unknown"
