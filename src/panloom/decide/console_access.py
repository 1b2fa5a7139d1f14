"""What somebody may do at the consoles of nodes, by the platform's document.

consoles: {type: [ada, group:operators], read: [group:staff]}
"""

from collections.abc import Collection
from enum import Enum

from panloom.model.resources import ConsoleUsers

GROUP = "group:"


class Access(Enum):
    """What somebody may do."""

    NONE = "nothing"
    READ = "read"
    TYPE = "type"


def access(users: ConsoleUsers, who: str, groups: Collection[str]) -> Access:
    """Return what a user, who is in these groups, may do; a list that is left out holds everybody."""
    names = {who, *(f"{GROUP}{group}" for group in groups)}
    if users.type is None or not names.isdisjoint(users.type):
        return Access.TYPE
    return Access.READ if users.read is None or not names.isdisjoint(users.read) else Access.NONE
