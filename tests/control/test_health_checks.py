"""What a server's document asks of its health, against real sockets and programs."""

import asyncio

import pytest

from panloom.control.health_checks import HealthChecks
from panloom.model.resources import Health
from support.waiting_async import eventually


def trouble(health, *, port=None):
    """Return what the first try of a server's checks meets; ``port``: one that listens on 127.0.0.1 meanwhile."""

    async def scenario():
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        number = server.sockets[0].getsockname()[1]
        if port != "open":
            server.close()
            await server.wait_closed()
        asked = health.model_copy(update={"tcp": number}) if port else health
        ended = asyncio.Event()
        checks = HealthChecks(ended.set)
        try:
            assert checks.trouble_of("shop/web1 2", asked, "shop/web1", "127.0.0.1", "n1") is None
            await eventually(ended.is_set, "the try has ended", seconds=30)
            return checks.trouble_of("shop/web1 2", asked, "shop/web1", "127.0.0.1", "n1")
        finally:
            checks.forget(frozenset())
            server.close()

    return asyncio.run(scenario())


def test_an_open_port_is_well_and_a_closed_one_is_told_of():
    assert trouble(Health(), port="open") == ""
    assert trouble(Health(), port="closed").endswith("of 127.0.0.1: Connection refused")


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ('[ "$1 $2 $3" = "shop/web1 127.0.0.1 n1" ]', ""),
        ("echo first; echo the database is empty; exit 3", "the database is empty"),
        ("exit 4", "exit code 4"),
    ],
)
def test_a_program_is_told_which_server_and_where_and_its_last_line_is_the_reason(tmp_path, text, met):
    program = tmp_path / "check"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    found = trouble(Health(command=str(program)))
    assert found == (f"{program}: {met}" if met else "")


def test_a_program_that_is_not_there_is_told_of(tmp_path):
    assert "cannot be run: No such file" in trouble(Health(command=str(tmp_path / "absent")))


def test_what_was_found_of_one_epoch_says_nothing_of_the_next():
    async def scenario():
        ended = asyncio.Event()
        checks = HealthChecks(ended.set)
        health = Health(command="/bin/true")
        checks.trouble_of("shop/web1 2", health, "shop/web1", "", "n1")
        await eventually(ended.is_set, "the try has ended", seconds=30)
        assert checks.trouble_of("shop/web1 3", health, "shop/web1", "", "n1") is None
        checks.forget(frozenset(("shop/web1 3",)))
        assert checks.trouble_of("shop/web1 2", health, "shop/web1", "", "n1") is None
        checks.forget(frozenset())

    asyncio.run(scenario())


def test_a_try_that_fails_as_nobody_foresaw_is_told_of_and_followed_by_another(caplog):
    async def scenario():
        clock, ended = iter(range(0, 100, 10)), asyncio.Event()
        checks = HealthChecks(ended.set, clock=lambda: float(next(clock)))
        for told in (None, "the check failed (ValueError: embedded null byte); see the control process's log"):
            health = Health.model_construct(tcp=None, command="/bin/tr\0ue")
            assert checks.trouble_of("shop/web1 2", health, "shop/web1", "", "n1") == told
            await eventually(ended.is_set, "the try has ended", seconds=30)
            ended.clear()

    asyncio.run(scenario())
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
