"""The part of the API that acts on images.

    POST   /v1/images/NAME/update              {to, servers, width}: give its servers other disks; an update
    POST   /v1/images/NAME/update/stop         let no further server begin; an update

    POST   /v1/images/NAME/prune               {keep, yes}: destroy the versions that nobody needs; {gone, kept, done}
    POST   /v1/images/NAME@VERSION/tags        {tags, remove}: it alone carries them from now on; {image, tags}
    POST   /v1/images/NAME@VERSION/signatures  {signature, public_key}; {image, signature, trusted}

``to`` is a version or a tag, nothing for the newest; without ``servers`` all are meant.  What it came to is shown as a
resource is: ``/v1/resources/update/NAME``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from panloom.model.fields import PublicKey, Signature, Tag


class ImageControl(Protocol):
    """What this part asks of the control process; ``ConfigError`` for an image, a version or a server there is not."""

    async def update_image(
        self, image: str, to: str, servers: Sequence[str], width: int, *, who: str
    ) -> Mapping[str, Any]:
        """Begin to give the servers of an image disks of a version; the one that is under way if it is the same."""
        ...

    async def stop_update(self, image: str, *, who: str) -> Mapping[str, Any]:
        """Let no further server begin."""
        ...

    async def prune_image(self, image: str, keep: int, *, yes: bool, who: str) -> Mapping[str, Any]:
        """Destroy the versions of an image that nobody needs; without ``yes`` say which these are."""
        ...

    async def tag_image(self, label: str, tags: Sequence[str], *, remove: bool, who: str) -> Mapping[str, Any]:
        """Have one version of an image carry tags, and no other of it; or have it carry them no more."""
        ...

    async def sign_image(self, label: str, signature: str, public_key: str, *, who: str) -> Mapping[str, Any]:
        """Note a signature of an image that is in the store."""
        ...


class UpdateBody(BaseModel):
    """To what, for whom, and how many at a time."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    to: str = ""
    servers: list[str] = []
    width: int = 1


class PruneBody(BaseModel):
    """How many of the newest stay in any case, and whether it is meant."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    keep: int = Field(1, ge=0)
    yes: bool = False


class TagsBody(BaseModel):
    """Which tags, and whether they are taken away."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    tags: list[Tag] = Field(min_length=1)
    remove: bool = False


class SignatureBody(BaseModel):
    """A signature, and the public key that it is checked by."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    signature: Signature
    public_key: PublicKey


def router(control: ImageControl) -> APIRouter:
    """Return the routes."""
    found = APIRouter()

    @found.post("/v1/images/{name}/update")
    async def update(name: str, body: UpdateBody, request: Request) -> JSONResponse:
        done = await control.update_image(name, body.to, body.servers, body.width, who=_who(request))
        return JSONResponse(done)

    @found.post("/v1/images/{name}/update/stop")
    async def stop(name: str, request: Request) -> JSONResponse:
        return JSONResponse(await control.stop_update(name, who=_who(request)))

    @found.post("/v1/images/{name}/prune")
    async def prune(name: str, body: PruneBody, request: Request) -> JSONResponse:
        return JSONResponse(await control.prune_image(name, body.keep, yes=body.yes, who=_who(request)))

    @found.post("/v1/images/{label}/tags")
    async def tag(label: str, body: TagsBody, request: Request) -> JSONResponse:
        return JSONResponse(await control.tag_image(label, body.tags, remove=body.remove, who=_who(request)))

    @found.post("/v1/images/{label}/signatures")
    async def sign(label: str, body: SignatureBody, request: Request) -> JSONResponse:
        done = await control.sign_image(label, body.signature, body.public_key, who=_who(request))
        return JSONResponse(done)

    return found


def _who(request: Request) -> str:
    return request.client.host if request.client else "unknown"
