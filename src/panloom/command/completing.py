"""What can stand at a place of the command line: kinds, and the names of what is there now.

Names come from the control process; where it does not answer at once there are none, and nothing is said: a shell that
waits for a completion shows no messages.
"""

from collections.abc import Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

from panloom.command.columns import KINDS, kind_of
from panloom.control.client import Client
from panloom.errors import PanloomError

TIMEOUT_SECONDS = 0.5


def kinds(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a kind, in the word that its table has: ``servers``."""
    return _beginning(incomplete, (kind.words[0] for kind in KINDS))


def resource_kinds(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a kind in the singular, as one of it is named next: ``server``."""
    words = [kind.name for kind in KINDS if kind.name != "event"]
    return _beginning(incomplete, words)


def names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a resource of the kind that stands before it."""
    word = str(context.params.get("kind") or "")
    try:
        return _beginning(incomplete, _names_of(context, kind_of(word).name))
    except click.UsageError:
        return []


def servers(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete PAN/SERVER."""
    return _beginning(incomplete, _names_of(context, "server"))


def volumes(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete PAN/VOLUME."""
    return _beginning(incomplete, _names_of(context, "volume"))


def images(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete NAME@VERSION."""
    return _beginning(incomplete, _names_of(context, "image"))


def nodes(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a node's name."""
    return _beginning(incomplete, _names_of(context, "node"))


def rules(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a rule's name."""
    return _beginning(incomplete, _names_of(context, "rule"))


def revisions(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the number of a revision, the last one first."""
    found = _ask(context, "revisions").get("revisions", [])
    items = [CompletionItem(str(one["number"]), help=f"{one['what']} by {one['who']}") for one in reversed(found)]
    return [item for item in items if item.value.startswith(incomplete)]


def _names_of(context: click.Context, kind: str) -> list[str]:
    rows = _ask(context, "resources", kind).get("rows", [])
    return [str(row["name"]) for row in rows]


def _ask(context: click.Context, *path: str) -> Any:  # noqa: ANN401 -- JSON
    """Ask the control process, which is named before the sub-command; an empty answer if it has none at once."""
    from panloom.command.main import DEFAULT_SOCKET

    socket = context.find_root().params.get("socket_path") or DEFAULT_SOCKET
    try:
        return Client(str(socket), timeout_seconds=TIMEOUT_SECONDS).get(*path)
    except PanloomError:
        return {}


def _beginning(incomplete: str, words: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]
