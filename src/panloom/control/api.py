"""The API: HTTP and JSON over ``Control``; the command line speaks nothing else.

    POST   /v1/plan  /v1/apply                 {files: [{name, text, origin}], prune}
    GET    /v1/resources/KIND[/NAME]           rows, or one of them with its details
    DELETE /v1/resources/KIND/NAME?yes=        yes=true for a volume or a snapshot
    POST   /v1/servers/PAN/NAME/failover
    POST   /v1/nodes/NAME/power                {action: on | off | reset | kill}
    POST   /v1/nodes/MAC/approve               {rule, image}
    POST   /v1/nodes/NAME/release
    GET    /v1/nodes/NAME/console?types=       its serial line, without end;  …/console/log  what is written down of it
    POST   /v1/nodes/NAME/console              {keyboard, octets}: what was typed
    GET    /v1/events?after=&wait=             those after a number; waits up to ``wait`` seconds for the first
    GET    /v1/status
    GET    /v1/personalities/PAN/NAME
    …                                          revisions, diff, rollback, export: ``history_api``
    …                                          snapshots, flatten: ``volumes_api``
    …                                          updates of images: ``images_api``

An error is ``{"errors": [{"kind", "where", "why"}, …]}`` with the status of its kind (``_STATUS``).  ``where`` may be
empty. Whoever is connected (``door.py``) is named as the one who did it.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Literal, Protocol

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from panloom.control import history_api, images_api, volumes_api
from panloom.control.bodies import outcome_body, plan_body
from panloom.control.consoles import Viewer
from panloom.control.documents import Outcome
from panloom.control.history_api import HistoryControl
from panloom.control.images_api import ImageControl
from panloom.control.volumes_api import VolumeControl
from panloom.decide.plan import Plan
from panloom.errors import (
    ConfigError,
    ConfigErrors,
    ConflictError,
    KernelError,
    PanloomError,
    PeerError,
    UnavailableError,
)
from panloom.model.load import File
from panloom.model.sources import did_you_mean

MAX_BODY_OCTETS = 8 << 20
MAX_WAIT_SECONDS = 60.0

Row = Mapping[str, Any]
"""One resource as it is shown: JSON types only; ``command/columns.py`` says which keys of each kind are columns."""
_log = logging.getLogger("panloom.api")


class Control(HistoryControl, ImageControl, VolumeControl, Protocol):
    """What the API asks of the control process.

    Each call raises ``ConfigError`` or ``ConfigErrors`` for what the caller got wrong, ``ConflictError`` when others
    changed it first, ``UnavailableError`` for a part that does not answer.  ``who`` is the caller's user name;
    ``server`` is PAN/NAME; a kind is one of ``platform node image pan lan rule server volume snapshot update``.
    """

    async def plan(self, files: Sequence[File]) -> Plan:
        """Return what applying the files would do."""
        ...

    async def apply(self, files: Sequence[File], *, prune: bool, who: str) -> Outcome:
        """Make the files what is wanted, and begin to make it so."""
        ...

    async def rows(self, kind: str) -> Sequence[Row]:
        """Return the resources of a kind, each with what is observed of it."""
        ...

    async def row(self, kind: str, name: str) -> Row | None:
        """Return one with its details, None when there is none of that name."""
        ...

    async def delete(self, kind: str, name: str, *, yes: bool, who: str) -> Outcome:
        """Take one resource out of what is wanted; a volume's data go with it, and only with ``yes``."""
        ...

    async def failover(self, server: str, *, who: str) -> Row:
        """Fence the server's node and move the server to another; returns at once with ``{"server", "from"}``."""
        ...

    async def power(self, node: str, action: str, *, who: str) -> Row:
        """Switch a node on, off, reset it or pull its plug; return ``{"node", "power"}``."""
        ...

    async def approve(self, node: str, *, rule: str | None, image: str | None, who: str) -> Row:
        """Take a discovered machine (by its MAC) in: by a rule, by the one that fits (None), or as a spare ("").

        ``image`` takes the place of the rule's.
        """
        ...

    async def release(self, node: str, *, who: str) -> Row:
        """End a node's quarantine."""
        ...

    async def events(self, *, after: int, wait_seconds: float) -> Sequence[Row]:
        """Return the events after a number, oldest first; wait for the first if there is none."""
        ...

    async def status(self) -> Row:
        """Return how the platform is: ``{"state", "parts": [{"part", "state", "why"}], …}``."""
        ...

    async def check(self) -> Row:
        """Return what would go wrong on this site: {state, findings: [{part, where, state, found, mend}]}.

        A state is ok, wrong or unknown; that of the whole is the worst of them.
        """
        ...

    async def console(self, node: str, *, types: bool, who: str) -> AbstractContextManager[Viewer]:
        """Let somebody look at a node's serial line; RefusedError if the platform does not."""
        ...

    async def type(self, node: str, keyboard: str, octets: bytes, *, who: str) -> None:
        """Send to a node's serial line what was typed."""
        ...

    async def console_log(self, node: str, *, who: str) -> str:
        """Return all that is written down of a node's serial line."""
        ...

    async def personality(self, server: str) -> Row:
        """Return everything that makes a machine be that server, its secrets left out."""
        ...


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileBody(_Body):
    """A file as the caller read it; ``origin`` is its absolute path, where there is one."""

    name: str
    text: str
    origin: str = ""


class FilesBody(_Body):
    """What to plan or apply."""

    files: list[FileBody]
    prune: bool = False

    def to_files(self) -> list[File]:
        """Return them as the loader takes them."""
        return [File(file.name, file.text, file.origin) for file in self.files]


class TypedBody(_Body):
    """What was typed at a console: one character an octet, as ISO 8859-1 has them."""

    keyboard: str
    octets: str


class ApproveBody(_Body):
    """By which rule a machine is taken in; None: by the one that fits, empty: by none, as a spare."""

    rule: str | None = None
    image: str | None = None
    """None: the rule's."""


class PowerBody(_Body):
    """What to do with a node's power."""

    action: Literal["on", "off", "reset", "kill"]


_STATUS: Mapping[type[Exception], tuple[int, str]] = {
    ConfigError: (422, "config"),
    ConfigErrors: (422, "config"),
    ConflictError: (409, "conflict"),
    PeerError: (403, "refused"),
    UnavailableError: (503, "unavailable"),
    KernelError: (503, "kernel"),
}


def create(control: Control) -> FastAPI:
    """Return the ASGI application."""
    app = FastAPI(title="Panloom", version="1", docs_url=None, redoc_url=None)
    app.add_middleware(BoundedBody)
    app.add_exception_handler(PanloomError, _panloom_error)
    app.add_exception_handler(Exception, _bug)
    app.add_exception_handler(RequestValidationError, _malformed_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.include_router(history_api.router(control))
    app.include_router(images_api.router(control))
    app.include_router(volumes_api.router(control))
    _add_documents(app, control)
    _add_acts(app, control)
    _add_observations(app, control)
    _add_consoles(app, control)
    return app


def _add_documents(app: FastAPI, control: Control) -> None:
    @app.post("/v1/plan")
    async def plan(body: FilesBody) -> JSONResponse:
        return JSONResponse(plan_body(await control.plan(body.to_files())))

    @app.post("/v1/apply")
    async def apply(body: FilesBody, request: Request) -> JSONResponse:
        outcome = await control.apply(body.to_files(), prune=body.prune, who=_who(request))
        return JSONResponse(outcome_body(outcome))

    @app.get("/v1/resources/{kind}")
    async def rows(kind: str) -> JSONResponse:
        return JSONResponse({"rows": list(await control.rows(kind))})

    @app.get("/v1/resources/{kind}/{name:path}")
    async def row(kind: str, name: str) -> JSONResponse:
        found = await control.row(kind, name)
        if found is None:
            known = [known["name"] for known in await control.rows(kind)]
            why = f"there is none of that name; {did_you_mean(name, known)}"
            return _errors(404, [("absent", f"{kind} {name}", why)])
        return JSONResponse(found)

    @app.delete("/v1/resources/{kind}/{name:path}")
    async def delete(kind: str, name: str, request: Request, *, yes: bool = False) -> JSONResponse:
        outcome = await control.delete(kind, name, yes=yes, who=_who(request))
        return JSONResponse(outcome_body(outcome))


def _add_acts(app: FastAPI, control: Control) -> None:
    @app.post("/v1/servers/{pan}/{name}/failover")
    async def failover(pan: str, name: str, request: Request) -> JSONResponse:
        return JSONResponse(await control.failover(f"{pan}/{name}", who=_who(request)))

    @app.post("/v1/nodes/{name}/power")
    async def power(name: str, body: PowerBody, request: Request) -> JSONResponse:
        return JSONResponse(await control.power(name, body.action, who=_who(request)))

    @app.post("/v1/nodes/{name}/approve")
    async def approve(name: str, request: Request, body: ApproveBody | None = None) -> JSONResponse:
        asked = body or ApproveBody()
        return JSONResponse(await control.approve(name, rule=asked.rule, image=asked.image, who=_who(request)))

    @app.post("/v1/nodes/{name}/release")
    async def release(name: str, request: Request) -> JSONResponse:
        return JSONResponse(await control.release(name, who=_who(request)))


def _add_observations(app: FastAPI, control: Control) -> None:
    @app.get("/v1/events")
    async def events(
        after: int = Query(0, ge=0), wait: float = Query(0.0, ge=0.0, le=MAX_WAIT_SECONDS)
    ) -> JSONResponse:
        return JSONResponse({"events": list(await control.events(after=after, wait_seconds=wait))})

    @app.get("/v1/status")
    async def status() -> JSONResponse:
        return JSONResponse(await control.status())

    @app.get("/v1/check")
    async def check() -> JSONResponse:
        return JSONResponse(await control.check())

    @app.get("/v1/personalities/{pan}/{name}")
    async def personality(pan: str, name: str) -> JSONResponse:
        return JSONResponse(await control.personality(f"{pan}/{name}"))


def _add_consoles(app: FastAPI, control: Control) -> None:
    @app.get("/v1/nodes/{name}/console")
    async def look(name: str, request: Request, *, types: bool = False) -> StreamingResponse:
        """The octets of the line without end.

        The header ``panloom-keyboard`` is the word that lets one type; where it is empty ``panloom-reads`` says why.
        """
        with ExitStack() as stack:
            viewer = stack.enter_context(await control.console(name, types=types, who=_who(request)))
            headers = {"panloom-keyboard": viewer.keyboard, "panloom-reads": viewer.reads}
            answer = _Held(viewer.octets(), media_type="application/octet-stream", headers=headers)
            answer.held = stack.pop_all()
        return answer

    @app.post("/v1/nodes/{name}/console")
    async def type_(name: str, body: TypedBody, request: Request) -> JSONResponse:
        octets = body.octets.encode("latin-1", "replace")
        await control.type(name, body.keyboard, octets, who=_who(request))
        return JSONResponse({})

    @app.get("/v1/nodes/{name}/console/log")
    async def log(name: str, request: Request) -> JSONResponse:
        return JSONResponse({"log": await control.console_log(name, who=_who(request))})


class _Held(StreamingResponse):
    """A stream that lets go of ``held`` when it ends, though its caller may have left before it began."""

    held: ExitStack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.held:
            await super().__call__(scope, receive, send)


def _who(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _errors(status: int, errors: Sequence[tuple[str, str, str]]) -> JSONResponse:
    body = {"errors": [{"kind": kind, "where": where, "why": why} for kind, where, why in errors]}
    return JSONResponse(body, status_code=status)


async def _panloom_error(request: Request, error: Exception) -> JSONResponse:
    status, kind = next((found for base, found in _STATUS.items() if isinstance(error, base)), (500, "internal"))
    if isinstance(error, ConfigErrors):
        return _errors(status, [(kind, one.where, one.why) for one in error.errors])
    if isinstance(error, ConfigError):
        return _errors(status, [(kind, error.where, error.why)])
    if status >= 500:
        _log.warning("request=%s %s failed=%s why=%r", request.method, request.url.path, kind, str(error))
    return _errors(status, [(kind, "", str(error))])


async def _bug(request: Request, error: Exception) -> JSONResponse:
    """Answer for what nobody foresaw; the server's own guard logs the traceback."""
    why = f"the control process failed at {request.method} {request.url.path} ({type(error).__name__}); see its log"
    return _errors(500, [("internal", "", why)])


async def _malformed_request(_request: Request, error: Exception) -> JSONResponse:
    mistakes = error.errors() if isinstance(error, RequestValidationError) else []
    return _errors(
        400, [("request", ".".join(str(step) for step in mistake["loc"]), mistake["msg"]) for mistake in mistakes]
    )


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _errors(status, [("request", f"{request.method} {request.url.path}", getattr(error, "detail", str(error)))])


class BoundedBody:
    """ASGI middleware: refuses a body of more than ``MAX_BODY_OCTETS`` without reading the rest of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, its body bounded."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await _read_body(receive)
        if body is None:
            why = f"more than {MAX_BODY_OCTETS >> 20} MiB in one request; apply the files in parts"
            await _errors(413, [("request", "body", why)])(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)


async def _read_body(receive: Receive) -> bytes | None:
    """Return the whole body, None if it is too large."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY_OCTETS:
            return None
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay
