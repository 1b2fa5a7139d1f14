"""Paths: whose turn it is."""

import asyncio
import contextlib
import socket

import pytest

from panloom.errors import UnavailableError
from panloom.initiator import Paths
from support.storage_process import free_port


@pytest.fixture
def portals():
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        yield [listener.getsockname() for listener in listeners]


def turns(paths, *asked):
    """Ask for connections one after the other; return to which portals they are, and what ``here`` was then."""

    async def there():
        reached = []
        for address, port in asked:
            made = await paths(address, port)
            reached.append((made.getpeername(), paths.here))
            made.close()
        return reached

    return asyncio.run(there())


def test_each_connection_is_to_the_next_portal(portals):
    first, second, _ = portals
    reached = turns(Paths(first, second), first, first, first)
    assert reached == [(first, first), (second, second), (first, first)]


def test_a_portal_that_is_closed_is_passed_over(portals):
    first, second, _ = portals
    closed = ("127.0.0.1", free_port())
    assert [portal for portal, _ in turns(Paths(closed, first, second), closed, closed)] == [first, second]


def test_where_a_target_sends_us_is_gone_to(portals):
    first, second, third = portals
    assert turns(Paths(first, second), first, third, first) == [(first, first), (third, None), (second, second)]


def test_without_any_that_takes_a_connection_each_is_told():
    closed = [("127.0.0.1", free_port()) for _ in range(2)]
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:\d+: .*; 127\.0\.0\.1:\d+: "):
        turns(Paths(*closed), closed[0])
    with pytest.raises(ValueError, match="name a portal"):
        Paths()
