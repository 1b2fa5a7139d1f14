from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from panloom.protocol.boot_tokens import VALID_SECONDS, BootTokens, Refusal, Ticket
from panloom.values import Iqn, MacAddress

HERE, ELSEWHERE = IPv4Address("10.77.0.51"), IPv4Address("10.77.0.52")
INITIATOR = Iqn("iqn.2026-11.dev.panloom:node.n1")
TICKET = Ticket(MacAddress(1), HERE, 3, INITIATOR)


def tokens(*names: str) -> BootTokens:
    made = BootTokens()
    for name in names or ("token",):
        made.mint(name, TICKET, now=0.0)
    return made


def test_a_token_is_good_again_and_again_from_its_address():
    made = tokens()
    assert made.redeem("token", HERE, now=1.0) == TICKET
    assert made.redeem("token", HERE, now=VALID_SECONDS - 0.1) == TICKET


def test_from_another_address_a_token_gives_nothing_and_loses_nothing():
    made = tokens()
    assert made.redeem("token", ELSEWHERE, now=1.0) == Refusal(403, "this boot token is another machine's", TICKET)
    assert made.redeem("token", HERE, now=1.0) == TICKET


def test_an_unknown_token_gives_nothing():
    refusal = tokens().redeem("other", HERE, now=1.0)
    assert (refusal.status, refusal.ticket) == (404, None)
    assert tokens().redeem("\ud800", HERE, now=1.0).status == 404


def test_a_token_ends_after_a_minute():
    made = tokens()
    assert made.redeem("token", HERE, now=VALID_SECONDS).status == 404
    assert made.tickets == {}


def test_a_token_ends_with_the_first_login_under_its_epoch():
    made = tokens()
    made.end(INITIATOR, 2)
    made.end(Iqn("iqn.2026-11.dev.panloom:node.n2"), 3)
    assert made.redeem("token", HERE, now=1.0) == TICKET
    made.end(INITIATOR, 3)
    assert made.redeem("token", HERE, now=1.0).status == 404


def test_a_machine_has_four_tokens_at_most():
    made = tokens("a", "b", "c", "d", "e")
    assert [isinstance(made.redeem(name, HERE, now=1.0), Ticket) for name in "abcde"] == [False, True, True, True, True]


@given(
    st.lists(st.tuples(st.sampled_from(["mint", "end", "redeem"]), st.integers(0, 5), st.floats(0, 40)), max_size=40)
)
def test_a_token_is_good_exactly_as_long_as_a_list_of_them_says(steps):
    """The slow twin: a list of (name, ticket, minted at), searched from end to end."""
    made, twin, now = BootTokens(), [], 0.0
    for number, (step, machine, later) in enumerate(steps):
        now += later
        twin = [known for known in twin if known[2] + VALID_SECONDS > now]
        ticket = Ticket(MacAddress(machine), HERE, 1, Iqn(f"iqn.2026-11.dev.panloom:node.{machine}"))
        match step:
            case "mint":
                made.mint(str(number), ticket, now=now)
                mine = [known for known in twin if known[1] == ticket]
                twin = [known for known in twin if known not in mine[: max(len(mine) - 3, 0)]]
                twin.append((str(number), ticket, now))
            case "end":
                made.end(ticket.initiator, 1)
                twin = [known for known in twin if known[1] != ticket]
            case "redeem":
                good = {name for name, _, _ in twin}
                for name in map(str, range(number)):
                    assert isinstance(made.redeem(name, HERE, now=now), Ticket) == (name in good)
