"""The control process as its users see it: HTTP and JSON over its Unix socket, with the standard library alone."""

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from panloom.errors import ConfigError, ConfigErrors, ConflictError, PanloomError, RefusedError, UnavailableError

_TIMEOUT_SECONDS = 120.0  # a plan of thousands of resources, and the longest wait for events

_KINDS: dict[str, type[PanloomError]] = {
    "conflict": ConflictError,
    "refused": RefusedError,
    "unavailable": UnavailableError,
    "kernel": UnavailableError,
    "internal": UnavailableError,
}


class Client:
    """Calls of the API; each raises the error the control process answered with.

    ``UnavailableError`` says which socket does not answer and how to start what should listen there.
    """

    def __init__(self, path: str, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self.path = path
        self._timeout_seconds = timeout_seconds

    def get(self, *path: str, **query: object) -> Any:  # noqa: ANN401 -- JSON
        """Return what stands at a path; each part is quoted, slashes inside a part separate."""
        return self._call("GET", path, query)

    def post(self, *path: str, body: object = None) -> Any:  # noqa: ANN401 -- JSON
        """Ask for something to be done."""
        return self._call("POST", path, {}, body)

    @contextlib.contextmanager
    def stream(self, *path: str, **query: object) -> Iterator[http.client.HTTPResponse]:
        """Open what has no end: ``read1`` returns the next octets, none when the control process is gone."""
        connection = _Connection(self.path, self._timeout_seconds)
        try:
            with self._named_errors():
                response = self._ask(connection, "GET", path, query)
                refusal = json.loads(response.read()) if response.status >= 400 else None
            if refusal is not None:
                raise _error(refusal)
            sock = connection.sock
            sock.settimeout(None)
            try:
                yield response
            finally:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)  # ends the read that another thread may be in
        finally:
            connection.close()

    def delete(self, *path: str, **query: object) -> Any:  # noqa: ANN401 -- JSON
        """Ask for something to be taken away."""
        return self._call("DELETE", path, query)

    def _call(self, method: str, path: tuple[str, ...], query: dict[str, object], body: object = None) -> Any:  # noqa: ANN401
        connection = _Connection(self.path, self._timeout_seconds)
        try:
            with self._named_errors():
                response = self._ask(connection, method, path, query, body)
                answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status >= 400:
            raise _error(answer)
        return answer

    def _ask(
        self,
        connection: "_Connection",
        method: str,
        path: tuple[str, ...],
        query: dict[str, object],
        body: object = None,
    ) -> http.client.HTTPResponse:
        target = "/v1/" + "/".join(quote(part, safe="/@") for part in path)
        if query:
            target += "?" + urlencode(query)
        headers = {"content-type": "application/json"} if body is not None else {}
        with contextlib.suppress(BrokenPipeError):  # refused at the door, which says so before it has read
            connection.request(method, target, json.dumps(body) if body is not None else None, headers)
        return connection.getresponse()

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise UnavailableError(self._nobody("no control process listens on")) from error
        except PermissionError as error:
            why = f"this user may not open {self.path}; become root, or a member of the socket's group"
            raise UnavailableError(why) from error
        except TimeoutError as error:
            raise UnavailableError(
                f"no answer on {self.path} within {self._timeout_seconds:g} s; see its log"
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UnavailableError(self._nobody(f"{error or type(error).__name__}: no proper answer on")) from error

    def _nobody(self, what: str) -> str:
        return f"{what} {self.path}; start it: panloom control (or name another: --socket PATH, PANLOOM_SOCKET)"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_seconds: float) -> None:
        super().__init__("panloom", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _error(answer: Any) -> PanloomError:  # noqa: ANN401 -- JSON
    errors = answer.get("errors", []) if isinstance(answer, dict) else []
    if not errors:
        return UnavailableError(f"the control process failed: {answer}")
    kind, where, why = errors[0]["kind"], errors[0]["where"], errors[0]["why"]
    if kind in _KINDS:
        return _KINDS[kind](why)
    if kind != "config":
        return ConfigError(where, why)
    return ConfigErrors(ConfigError(error["where"], error["why"]) for error in errors)
