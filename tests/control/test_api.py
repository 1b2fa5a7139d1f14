"""The API over a real Unix socket: what goes in, what comes out, what is refused."""

import asyncio
import http.client
import json
import socket
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from panloom.control import api
from panloom.control.documents import Documents
from panloom.control.door import Door
from panloom.errors import ConflictError, KernelError, MalformedError, PanloomError, RefusedError, UnavailableError
from panloom.state.sqlite import SqliteStore
from support.plain_control import CHASSIS, PlainControl

WEB = (Path(__file__).parents[2] / "examples" / "web.yaml").read_text()


class Answer(NamedTuple):
    status: int
    body: Any


class Caller:
    """Speaks HTTP over a Unix socket, from another thread."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def __call__(self, method: str, target: str, body: Any = None, raw: bytes | None = None) -> Answer:
        payload = raw if raw is not None else None if body is None else json.dumps(body).encode()
        return await asyncio.to_thread(self._call, method, target, payload)

    def _call(self, method: str, target: str, payload: bytes | None) -> Answer:
        connection = http.client.HTTPConnection("panloom", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.path))
        try:
            connection.request(method, target, payload, {"content-type": "application/json"} if payload else {})
            response = connection.getresponse()
            return Answer(response.status, json.loads(response.read()))
        finally:
            connection.close()


def with_api(scenario: Callable[[Caller], Awaitable[None]], kind: type[PlainControl] = PlainControl) -> None:
    async def run(directory: Path) -> None:
        store = await SqliteStore.open(directory / "state.db")
        door = Door(api.create(kind(Documents(store))), directory / "api.sock")
        await door.open()
        try:
            await scenario(Caller(directory / "api.sock"))
        finally:
            await door.close()
            await store.close()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(Path(directory)))


def files(**texts: str) -> dict[str, Any]:
    return {"files": [{"name": f"{name}.yaml", "text": text} for name, text in texts.items()]}


def test_plan_apply_get_show_delete():
    async def scenario(call: Caller) -> None:
        plan = await call("POST", "/v1/plan", files(lab=CHASSIS, web=WEB))
        assert plan.status == 200
        assert (plan.body["add"], plan.body["boots"]) == (9, ["shop/web1", "shop/web2"])
        assert plan.body["changes"][-3] == {
            "mark": "+",
            "kind": "server",
            "name": "shop/web2",
            "detail": "image web@1, 10.1.0.12",
            "fields": [],
            "effect": "boots",
            "note": "",
            "implied": False,
        }
        assert (await call("GET", "/v1/resources/server")).body == {"rows": []}
        applied = await call("POST", "/v1/apply", files(lab=CHASSIS, web=WEB))
        assert applied.body == {**plan.body, "revision": 1, "kept": []}
        rows = (await call("GET", "/v1/resources/server")).body["rows"]
        assert [row["name"] for row in rows] == ["shop/web1", "shop/web2"]
        assert (await call("GET", "/v1/resources/image/web@1")).body["source"] == "/srv/web.img"
        deleted = await call("DELETE", "/v1/resources/server/shop/web1")
        assert (deleted.status, deleted.body["stops"], deleted.body["revision"]) == (200, ["shop/web1"], 2)
        assert (await call("GET", "/v1/resources/server/shop/web1")).status == 404
        assert (await call("DELETE", "/v1/resources/volume/shop/web1")).status == 422
        assert (await call("DELETE", "/v1/resources/volume/shop/web1?yes=true")).status == 200

    with_api(scenario)


def test_every_mistake_of_a_file_is_named_and_nothing_changes():
    async def scenario(call: Caller) -> None:
        await call("POST", "/v1/apply", files(lab=CHASSIS))
        bad = WEB.replace("needs:", "needz:").replace("10.1.0.1[", "10.2.0.1[")
        answer = await call("POST", "/v1/apply", files(web=bad))
        assert answer.status == 422
        assert [error["kind"] for error in answer.body["errors"]] == ["config"] * 3
        assert answer.body["errors"][-1]["where"].endswith(": servers.web[1-2].needz")
        assert answer.body["errors"][-1]["why"] == "no such key; did you mean `needs`?"
        assert (await call("GET", "/v1/resources/pan")).body == {"rows": []}

    with_api(scenario)


def test_acts_and_observations():
    async def scenario(call: Caller) -> None:
        assert (await call("POST", "/v1/servers/shop/web1/failover")).body == {"server": "shop/web1", "from": "n1"}
        assert (await call("POST", "/v1/nodes/n1/power", {"action": "off"})).body == {"node": "n1", "power": "off"}
        assert (await call("POST", "/v1/nodes/n2/power", {"action": "on"})).status == 503
        assert (await call("POST", "/v1/nodes/n1/power", {"action": "explode"})).status == 400
        assert (await call("POST", "/v1/nodes/n1/power", {"action": "kill"})).status == 200
        spare = {"node": "52:54:00:00:00:01", "state": "spare", "server": None}
        assert (await call("POST", "/v1/nodes/52:54:00:00:00:01/approve")).body == spare
        by_rule = {"node": "52:54:00:00:00:01", "state": "installing", "server": "shop/web-9"}
        assert (await call("POST", "/v1/nodes/52:54:00:00:00:01/approve", {"rule": "web"})).body == by_rule
        assert (await call("POST", "/v1/nodes/n1/release")).status == 200
        assert (await call("GET", "/v1/status")).body["state"] == "not redundant"
        assert (await call("GET", "/v1/personalities/shop/web1")).body["server"] == "shop/web1"

    with_api(scenario)


def test_events_wait_for_what_is_to_come():
    async def scenario(call: Caller) -> None:
        assert (await call("GET", "/v1/events?wait=0")).body == {"events": []}
        waiting = asyncio.create_task(call("GET", "/v1/events?after=0&wait=20"))
        await call("POST", "/v1/servers/shop/web1/failover")
        (event,) = (await waiting).body["events"]
        assert event["text"] == "root moves it"
        assert (await call("GET", "/v1/events?after=1")).body == {"events": []}
        assert (await call("GET", "/v1/events?wait=1e9")).status == 400
        assert (await call("GET", "/v1/events?after=-1")).status == 400

    with_api(scenario)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"\xff\xfe", 400),
        (b'{"files": [{"name": "a"}]}', 400),
        (b'{"files": [], "prun": true}', 400),
        (b" " * (api.MAX_BODY_OCTETS + 1), 413),
    ],
)
def test_a_malformed_request_is_refused_in_the_same_form(raw, status):
    async def scenario(call: Caller) -> None:
        answer = await call("POST", "/v1/plan", raw=raw)
        assert answer.status == status
        assert all(error.keys() == {"kind", "where", "why"} for error in answer.body["errors"])

    with_api(scenario)


def test_unknown_paths_and_methods_answer_in_the_same_form():
    async def scenario(call: Caller) -> None:
        assert (await call("GET", "/v2/plan")).status == 404
        answer = await call("PUT", "/v1/plan")
        assert (answer.status, answer.body["errors"][0]["kind"]) == (405, "request")

    with_api(scenario)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ConflictError("they edit"), 409, "conflict"),
        (RefusedError("not you"), 403, "refused"),
        (MalformedError("what"), 403, "refused"),
        (UnavailableError("storage is away"), 503, "unavailable"),
        (KernelError("nft says no"), 503, "kernel"),
        (PanloomError("else"), 500, "internal"),
    ],
)
def test_each_kind_of_error_has_its_status(error, status, kind):
    class Failing(PlainControl):
        async def status(self) -> Any:
            raise error

    async def scenario(call: Caller) -> None:
        answer = await call("GET", "/v1/status")
        assert answer == (status, {"errors": [{"kind": kind, "where": "", "why": str(error)}]})

    with_api(scenario, Failing)


def test_what_nobody_foresaw_is_answered_and_disturbs_nobody():
    class Broken(PlainControl):
        async def status(self) -> Any:
            return 1 / 0

    async def scenario(call: Caller) -> None:
        answer = await call("GET", "/v1/status")
        assert answer.status == 500
        assert "ZeroDivisionError" in answer.body["errors"][0]["why"]
        assert (await call("GET", "/v1/resources/node")).status == 200

    with_api(scenario, Broken)
