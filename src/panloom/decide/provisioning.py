"""How a machine that nobody named becomes a server of its own.

           says what it is          a rule fits,            its disk          a sign of life
           (``hardware``)           or it is approved       is made           of its server
    NEW ─────────────────▶ DISCOVERED ──────────▶ INSTALLING ──────▶ INSTALLED ──────────▶ BOOTED
     │ asks to boot             │ approved, no server                                        │
     └──────────────────────────┴──▶ a spare                a spare ◀── its server is deleted ┘

NEW and DISCOVERED are in memory only: whoever is there asks again within seconds, and who is not costs nothing.  All of
INSTALLING begins in one commit, of node, server, disk and ``BladeRecord`` together.  From then on the machine is a
node, and its server boots as any other does (``server_plan``); it is held for that server until it has booted, or
another machine carries it.
Each step is named by records and by what is seen, so that a control process killed anywhere goes on where they stand.
"""

import fnmatch
import hashlib
from collections.abc import Collection, Iterable
from enum import Enum

import msgspec

from panloom.decide.boot_menu import Menu, chosen, may_choose, menu_of
from panloom.decide.hardware import Hardware
from panloom.model.resources import Approval, Image, Match, Nic, Node, Rule, Server
from panloom.values import MacAddress, natural_key

DEAF_SECONDS = 10.0
"""After which a machine that says nothing of its hardware is judged without: one whose firmware is no iPXE."""

_LONGEST_STEM = 50  # with a dash and twelve digits a DNS label
_DIGEST_DIGITS = 12


class BladeState(Enum):
    """How far a machine has come; see the picture above."""

    NEW = "new"
    DISCOVERED = "discovered"
    INSTALLING = "installing"
    INSTALLED = "installed"
    BOOTED = "booted"


class BladeRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A machine that was taken in: what it is, and what it becomes."""

    state: BladeState
    hardware: Hardware = Hardware()
    rule: str = ""  # by which it was taken in; empty: a person's word
    server: str = ""  # PAN/SERVER that it becomes; empty: a spare
    since: tuple[tuple[str, float], ...] = ()  # state, wall clock in seconds


class Candidate(msgspec.Struct, frozen=True):
    """A machine that asks to boot and that no document names; ``hardware`` None is one that has not told of it yet."""

    mac: MacAddress
    hardware: Hardware | None = None
    known_seconds: float = 0.0
    choice: str = ""  # of the menu on its console; empty: none was made


class TakeIn(msgspec.Struct, frozen=True):
    """Make it a node, and a server by this rule; None is a spare."""

    rule: Rule | None = None


class Advance(msgspec.Struct, frozen=True):
    """Note that it has come to a state."""

    to: BladeState


class BecomeSpare(msgspec.Struct, frozen=True):
    """Its server is not wanted any more, or went elsewhere before it had booted here: the machine is anybody's."""


def meet(candidate: Candidate, rules: Iterable[Rule], approve: Approval) -> TakeIn | None:
    """Return what to do with a machine that nobody has approved, None while it must wait."""
    rules = tuple(rules)
    if is_undecided(candidate, rules):
        return None
    rule = rule_for(candidate, rules)
    if rule is None:
        return TakeIn() if approve == "always" else None
    if rule.approve == "prompt" and may_choose(rule, candidate.choice):
        return TakeIn(chosen(rule, candidate.choice))
    return TakeIn(rule) if rule.approve == "always" else None


def prompt_for(candidate: Candidate, rules: Iterable[Rule], images: Iterable[Image]) -> Menu | None:
    """Return the menu that a machine's console is to show now, None for none.

    A choice that stands is not asked for again: nobody may sit there any more, and the clock would choose another.
    """
    rules = tuple(rules)
    rule = None if is_undecided(candidate, rules) else rule_for(candidate, rules)
    if rule is None or rule.approve != "prompt" or may_choose(rule, candidate.choice):
        return None
    return menu_of(rule, images)


def is_undecided(candidate: Candidate, rules: Collection[Rule]) -> bool:
    """Whether rules have to wait for what a machine says of itself."""
    return candidate.hardware is None and bool(rules) and candidate.known_seconds < DEAF_SECONDS


def next_step(
    record: BladeRecord, *, wanted: bool, volume_ready: bool, booted: bool, elsewhere: bool = False
) -> Advance | BecomeSpare | None:
    """Return the next step of a machine that was taken in, None while there is none.

    ``wanted``, ``volume_ready``, ``booted``: of its server.  ``elsewhere``: another machine carries that.
    """
    if not record.server:
        return None
    if not wanted or (elsewhere and is_held(record)):
        return BecomeSpare()
    match record.state:
        case BladeState.INSTALLING if volume_ready:
            return Advance(BladeState.INSTALLED)
        case BladeState.INSTALLED if booted:
            return Advance(BladeState.BOOTED)
    return None


def is_held(record: BladeRecord) -> bool:
    """Whether nobody but its own server may be placed on the machine."""
    return bool(record.server) and record.state is not BladeState.BOOTED


# ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def rule_for(candidate: Candidate, rules: Iterable[Rule]) -> Rule | None:
    """Return the rule that fits and asks for most, so that what is rare is kept for who needs it; None if none fits.

    That is: most conditions, then most memory, then most cores, then by name.
    """
    fitting = [rule for rule in rules if why_unfit(candidate, rule.match) is None]
    return min(fitting, key=_demands, default=None)


def _demands(rule: Rule) -> tuple[object, ...]:
    match = rule.match
    conditions = sum(value not in (None, 0) for _, value in match)
    return -conditions, -match.memory_octets, -match.cores, natural_key(rule.name)


def why_unfit(candidate: Candidate, match: Match) -> str | None:
    """Return what of the machine is not as the rule asks, None if all is."""
    hardware = candidate.hardware or Hardware()
    patterns = (
        ("mac", str(candidate.mac), match.mac),
        ("vendor", hardware.vendor, match.vendor),
        ("product", hardware.product, match.product),
        ("architecture", hardware.architecture, match.architecture),
    )
    for what, has, pattern in patterns:
        if pattern is not None and not fnmatch.fnmatchcase(has.lower(), pattern.lower()):
            return f"its {what} is {has or 'unknown'}"
    if hardware.memory_octets < match.memory_octets:
        return "its memory is too small, or unknown"
    return "it has too few cores, or does not tell" if hardware.cores < match.cores else None


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def node_name(mac: MacAddress) -> str:
    """Return what a machine is called: by its whole MAC, since makers give the same last digits to many."""
    return f"n-{_digits(mac)}"


def server_of(rule: Rule, node: Node) -> Server | None:
    """Return the server that a machine becomes by a rule, None for a spare.

    The same machine becomes the same server each time, so that one taken in again has its disk back; no other machine,
    and no other rule, ever comes to that disk.
    """
    becoming = rule.server
    if becoming is None:
        return None
    return Server(
        pan=becoming.pan,
        name=f"{_stem(rule.name)}-{_digits(node.mac)}",
        image=becoming.image,
        disk=becoming.disk,
        nics=tuple(Nic(lan=lan) for lan in becoming.lans),
        node=node.name,
        needs=becoming.needs,
        failover=becoming.failover,
        ssh_keys=becoming.ssh_keys,
        user_data=becoming.user_data,
    )


def _digits(mac: MacAddress) -> str:
    return str(mac).replace(":", "")


def _stem(rule: str) -> str:
    """Return a rule's name, its end replaced by a digest of the whole where a DNS label would be too long."""
    if len(rule) <= _LONGEST_STEM:
        return rule
    digest = hashlib.sha256(rule.encode()).hexdigest()[:_DIGEST_DIGITS]
    return f"{rule[: _LONGEST_STEM - _DIGEST_DIGITS]}{digest}"
