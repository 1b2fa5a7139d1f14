"""Boot tokens under any order of events, against a twin that remembers everything."""

from ipaddress import IPv4Address

from fuzz.tape import Script, Tape
from fuzz.target import target
from panloom.protocol.boot_tokens import EACH_MACHINE, VALID_SECONDS, BootTokens, Refusal, Ticket
from panloom.values import Iqn, MacAddress

MACS = tuple(map(MacAddress, range(1, 4)))
ADDRESSES = tuple(IPv4Address(f"10.77.0.{host}") for host in (51, 52, 53))
INITIATORS = (None, Iqn("iqn.2026-11.dev.panloom:node.n1"), Iqn("iqn.2026-11.dev.panloom:node.n2"))
ACTS = ("mint", "redeem", "time", "end", "redeem anything")


def _seeds():
    script = Script()
    for number in range(3):
        script.number(0).number(number).number(number).number(number).number(1)
        script.number(1).number(number).number(number).number(1).number(number).number(0)
    yield script.number(2).number(61).number(1).number(0).number(0).octets
    yield script.number(3).number(1).number(1).number(1).number(1).number(1).octets


class _Twin:
    """Every token there ever was, and which of them should still do."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.good: dict[str, tuple[Ticket, float]] = {}

    def mint(self, token: str, ticket: Ticket, now: float) -> None:
        self.tokens.append(token)
        self.forget_old(now)
        mine = [known for known, (each, _) in self.good.items() if each.mac == ticket.mac]
        if len(mine) == EACH_MACHINE:
            del self.good[mine[0]]
        self.good[token] = (ticket, now)

    def forget_old(self, now: float) -> None:
        self.good = {token: (ticket, at) for token, (ticket, at) in self.good.items() if now < at + VALID_SECONDS}

    def end(self, initiator: Iqn, epoch: int) -> None:
        over = [token for token, (each, _) in self.good.items() if each.initiator == initiator and each.epoch <= epoch]
        for token in over:
            del self.good[token]


@target(seeds=_seeds)
def tokens(octets):
    """A token is good for its own address alone, for 60 s at most, and neither after the login nor after four more."""
    tape, machine, twin, now = Tape(octets), BootTokens(), _Twin(), 0.0
    while not tape.is_over:
        match tape.pick(ACTS):
            case "mint":
                ticket = Ticket(tape.pick(MACS), tape.pick(ADDRESSES), tape.number() % 4, tape.pick(INITIATORS))
                token = f"token {len(twin.tokens)}"
                machine.mint(token, ticket, now=now)
                twin.mint(token, ticket, now)
            case "redeem" if twin.tokens:
                token, address = tape.pick(twin.tokens), tape.pick(ADDRESSES)
                twin.forget_old(now)
                good = twin.good.get(token)
                found = machine.redeem(token, address, now=now)
                if good is None:
                    assert isinstance(found, Refusal)
                    assert found.status == 404
                elif address == good[0].address:
                    assert found == good[0]
                else:
                    assert isinstance(found, Refusal)
                    assert (found.status, found.ticket) == (403, good[0])
            case "redeem anything":
                token = tape.piece().decode(errors="surrogateescape")
                assert isinstance(machine.redeem(token, tape.pick(ADDRESSES), now=now), Refusal) or token in twin.good
            case "time":
                now += tape.number()
            case "end":
                initiator, epoch = tape.pick(INITIATORS[1:]), tape.number() % 4
                machine.end(initiator, epoch)
                twin.end(initiator, epoch)
        assert len(machine.tickets) <= EACH_MACHINE * len(MACS)
        assert sum(map(len, machine._of_machine.values())) == len(machine.tickets)
