"""The part of the API that looks back: revisions, what lies between them, the way back, and documents to take along.

    GET    /v1/revisions                   those remembered, oldest first
    GET    /v1/revisions/NUMBER            one, with its changes field by field where they are remembered
    GET    /v1/diff?from=&to=              what changed from after one revision to after another; without ``to``: to now
    GET    /v1/rollback?revision=          what going back would do; without ``revision``: to before the last one
    POST   /v1/rollback                    {revision, last}; refused when ``last`` is no longer the last revision
    GET    /v1/export?kind=&name=&revision=    documents that describe what is wanted, or was after a revision

``at`` is seconds since 1970 UTC.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from panloom.control.bodies import outcome_body, plan_body
from panloom.control.documents import Outcome, Return
from panloom.decide.history import Revision
from panloom.decide.plan import Plan
from panloom.model.export import Exported

_NUMBER = Query(None, ge=0)


class HistoryControl(Protocol):
    """What this part asks of the control process; ``ConfigError`` for a revision that is not remembered."""

    async def revisions(self) -> Sequence[Revision]:
        """Return those remembered, oldest first."""
        ...

    async def revision(self, number: int) -> tuple[Revision, Plan | None]:
        """Return one and what it changed, None where that is forgotten."""
        ...

    async def between(self, first: int, second: int | None) -> Plan:
        """Return what changed from after one revision to after another; None is now."""
        ...

    async def plan_rollback(self, revision: int | None) -> Return:
        """Return what going back would do; None is to before the last revision."""
        ...

    async def rollback(self, revision: int | None, *, last: int | None, who: str) -> Outcome:
        """Bring back the documents after a revision; ``ConflictError`` when ``last`` is not the last any more."""
        ...

    async def export(self, kind: str, label: str, revision: int | None) -> Exported:
        """Return documents: of everything, of a kind, or of one of it; as wanted now, or after a revision."""
        ...


class RollbackBody(BaseModel):
    """To which revision, None for the one before the last; and which was the last when the plan was shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    revision: int | None = Field(None, ge=0)
    last: int | None = Field(None, ge=0)


def router(control: HistoryControl) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()

    @routes.get("/v1/revisions")
    async def revisions() -> JSONResponse:
        return JSONResponse({"revisions": [msgspec.to_builtins(one) for one in await control.revisions()]})

    @routes.get("/v1/revisions/{number}")
    async def revision(number: int) -> JSONResponse:
        found, plan = await control.revision(number)
        return JSONResponse({"revision": msgspec.to_builtins(found), "plan": plan_body(plan) if plan else None})

    @routes.get("/v1/diff")
    async def diff(
        first: int = Query(alias="from", ge=0), second: int | None = Query(None, alias="to", ge=0)
    ) -> JSONResponse:
        return JSONResponse(plan_body(await control.between(first, second)))

    @routes.get("/v1/rollback")
    async def plan_rollback(revision: int | None = _NUMBER) -> JSONResponse:
        return JSONResponse(_return_body(await control.plan_rollback(revision)))

    @routes.post("/v1/rollback")
    async def rollback(body: RollbackBody, request: Request) -> JSONResponse:
        who = request.client.host if request.client else "unknown"
        return JSONResponse(outcome_body(await control.rollback(body.revision, last=body.last, who=who)))

    @routes.get("/v1/export")
    async def export(kind: str = "", name: str = "", revision: int | None = _NUMBER) -> JSONResponse:
        exported = await control.export(kind, name, revision)
        left_out = [
            {"kind": one.resource.kind, "name": one.resource.label, "why": one.why} for one in exported.left_out
        ]
        return JSONResponse({"documents": exported.documents, "left_out": left_out})

    return routes


def _return_body(planned: Return) -> dict[str, Any]:
    return {
        **plan_body(planned.plan),
        "revision": planned.revision,
        "last": planned.last,
        "kept": planned.kept,
        "cloned_anew": planned.cloned_anew,
    }
