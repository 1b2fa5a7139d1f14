"""Who may type and read at consoles."""

import pytest

from panloom.decide.console_access import Access, access
from panloom.model.resources import ConsoleUsers


@pytest.mark.parametrize(
    ("users", "ada", "bob", "eve"),  # bob is in group ops
    [
        (ConsoleUsers(), Access.TYPE, Access.TYPE, Access.TYPE),
        (ConsoleUsers(type=("ada",)), Access.TYPE, Access.READ, Access.READ),
        (ConsoleUsers(type=("ada",), read=("group:ops",)), Access.TYPE, Access.READ, Access.NONE),
        (ConsoleUsers(type=("group:ops",), read=("ada",)), Access.READ, Access.TYPE, Access.NONE),
        (ConsoleUsers(type=("ops", "group:bob"), read=()), Access.NONE, Access.NONE, Access.NONE),
        (ConsoleUsers(type=(), read=()), Access.NONE, Access.NONE, Access.NONE),
        (ConsoleUsers(read=("eve",)), Access.TYPE, Access.TYPE, Access.TYPE),
    ],
)
def test_who_may_do_what(users, ada, bob, eve):
    assert (access(users, "ada", ()), access(users, "bob", ("ops",)), access(users, "eve", ("staff",))) == (
        ada,
        bob,
        eve,
    )
