"""What becomes of a machine that nobody named: which rule it meets, and where it goes on after any interruption."""

from ipaddress import IPv4Address

import pytest

from panloom.decide.boot_menu import SPARE
from panloom.decide.hardware import Hardware
from panloom.decide.provisioning import (
    DEAF_SECONDS,
    Advance,
    BecomeSpare,
    BladeRecord,
    BladeState,
    Candidate,
    TakeIn,
    is_held,
    meet,
    next_step,
    node_name,
    prompt_for,
    rule_for,
    server_of,
    why_unfit,
)
from panloom.model.resources import Becoming, Image, Match, Nic, Node, Prompt, Rule
from panloom.values import MacAddress
from support.identities import KEY

MAC = MacAddress.parse("52:54:00:77:00:0a")
DELL = Hardware(vendor="Dell Inc.", product="PowerEdge R640", architecture="x86-64", cores=8, memory_octets=64 << 30)
WEB = Becoming(pan="shop", image="web", lans=("front", "back"))


def rule(name, server=WEB, approve="always", **match):
    return Rule(name=name, match=Match(**match), server=server, approve=approve)


def known(hardware=DELL):
    return Candidate(MAC, hardware)


def test_a_machine_waits_for_its_own_report_where_there_are_rules_but_not_for_ever():
    rules = [rule("any")]
    assert meet(Candidate(MAC), rules, "manual") is None
    assert meet(Candidate(MAC, known_seconds=DEAF_SECONDS), rules, "manual") == TakeIn(rules[0])
    assert meet(known(), rules, "manual") == TakeIn(rules[0])


def test_without_a_rule_the_platform_decides():
    assert meet(known(), [], "manual") is None
    assert meet(Candidate(MAC), [], "always") == TakeIn()
    assert meet(known(), [rule("others", vendor="HP*")], "always") == TakeIn()
    assert meet(known(), [rule("others", vendor="HP*")], "manual") is None


def test_a_rule_that_asks_at_the_console_waits_for_the_answer_and_takes_its_image():
    rules, images = [rule("any", approve="prompt")], [Image(name="db", version=1)]
    assert prompt_for(Candidate(MAC), rules, images) is None  # it may fit another, once it says what it is
    assert prompt_for(known(), rules, images).offers("db")
    assert prompt_for(known(), [rule("any")], images) is None
    assert meet(known(), rules, "always") is None
    answered = meet(Candidate(MAC, DELL, choice="db"), rules, "manual")
    assert (answered.rule.name, answered.rule.server.image) == ("any", "db")
    assert meet(Candidate(MAC, DELL, choice=SPARE), rules, "manual") == TakeIn()


def test_a_choice_that_stands_is_not_asked_for_again_and_one_that_its_rule_does_not_offer_is():
    asks = rule("any", approve="prompt")
    few = asks.model_copy(update={"prompt": Prompt(images=("web@2",))})
    images = [Image(name="db", version=1)]
    for choice, there in (("db", images), ("db", []), (SPARE, images)):
        assert prompt_for(Candidate(MAC, DELL, choice=choice), [asks], there) is None
    for rules, choice in (([few], "db"), ([rule("any", None, "prompt")], "web")):  # another rule's by now
        answered = Candidate(MAC, DELL, choice=choice)
        assert meet(answered, rules, "always") is None
        assert prompt_for(answered, rules, images) is not None
    for choice in ("web", "web@2", SPARE):
        assert meet(Candidate(MAC, DELL, choice=choice), [few], "manual") is not None


def test_a_rule_that_asks_for_a_person_takes_nobody_in():
    assert meet(known(), [rule("any", approve="manual")], "always") is None


@pytest.mark.parametrize(
    ("match", "why"),
    [
        ({"mac": "52:54:00:*"}, None),
        ({"mac": "52:54:01:*"}, "its mac is 52:54:00:77:00:0a"),
        ({"vendor": "DELL*", "product": "*r6?0"}, None),
        ({"vendor": "Dell"}, "its vendor is Dell Inc."),
        ({"product": "*R740"}, "its product is PowerEdge R640"),
        ({"architecture": "arm64"}, "its architecture is x86-64"),
        ({"memory_octets": 64 << 30, "cores": 8}, None),
        ({"memory_octets": 65 << 30}, "its memory is too small, or unknown"),
        ({"cores": 9}, "it has too few cores, or does not tell"),
    ],
)
def test_a_rule_fits_when_all_that_it_asks_is_there(match, why):
    assert why_unfit(known(), Match(**match)) == why
    assert (rule_for(known(), [rule("it", **match)]) is None) == (why is not None)


def test_of_rules_that_fit_the_one_that_asks_most_is_taken():
    any_, two, large, small = (
        rule("any"),
        rule("two", vendor="Dell*", product="*"),
        rule("large", memory_octets=32 << 30),
        rule("small", memory_octets=1 << 30),
    )
    assert rule_for(known(), [any_, small, large, two]) == two
    assert rule_for(known(), [any_, small, large]) == large
    assert rule_for(known(), [rule("b10"), rule("b9")]).name == "b9"
    assert rule_for(known(Hardware()), [two, large, small]) is None


def machine(mac=MAC):
    return Node(name=node_name(mac), mac=mac, address=IPv4Address("10.77.0.2"), port="p1", memory_octets=0)


def test_the_same_machine_becomes_the_same_server():
    made = server_of(rule("web"), machine())
    assert (made.label, made.node, made.image) == ("shop/web-52540077000a", "n-52540077000a", "web")
    assert made.nics == (Nic(lan="front"), Nic(lan="back"))
    assert server_of(rule("web"), machine()) == made
    assert server_of(rule("spare", server=None), machine()) is None


def test_a_server_has_the_keys_and_the_user_data_of_its_rule():
    told = {"ssh_keys": (KEY,), "user_data": "#cloud-config\n"}
    made = server_of(rule("web", server=WEB.model_copy(update=told)), machine())
    assert (made.ssh_keys, made.user_data) == ((KEY,), "#cloud-config\n")


def test_no_two_machines_and_no_two_rules_make_a_server_of_one_name_for_its_disk_is_kept_under_that():
    other = MacAddress.parse("ba:bb:00:77:00:0a")
    assert node_name(other) != node_name(MAC)
    assert server_of(rule("web"), machine(other)).name != server_of(rule("web"), machine()).name
    long = [server_of(rule("x" * 50 + end), machine()).name for end in ("", "y", "z", "y" * 13)]
    assert len({*long}) == 4
    assert max(map(len, long)) == 63


def test_each_step_follows_from_the_record_and_from_what_is_seen():
    def step(state, *, server="shop/web-1", **seen):
        seen = {"wanted": True, "volume_ready": False, "booted": False, **seen}
        return next_step(BladeRecord(state, server=server), **seen)

    assert step(BladeState.INSTALLING) is None
    assert step(BladeState.INSTALLING, booted=True) is None
    assert step(BladeState.INSTALLING, volume_ready=True) == Advance(BladeState.INSTALLED)
    assert step(BladeState.INSTALLED, volume_ready=True) is None
    assert step(BladeState.INSTALLED, booted=True) == Advance(BladeState.BOOTED)
    assert step(BladeState.BOOTED, booted=True, volume_ready=True) is None
    assert step(BladeState.INSTALLING, volume_ready=True, elsewhere=True) == BecomeSpare()
    assert step(BladeState.INSTALLED, elsewhere=True) == BecomeSpare()
    assert step(BladeState.BOOTED, elsewhere=True) is None
    for state in BladeState:
        assert step(state, wanted=False) == BecomeSpare()
        assert step(state, server="", wanted=False) is None


def test_a_machine_is_held_for_its_server_until_that_has_booted():
    states = (BladeState.INSTALLING, BladeState.INSTALLED, BladeState.BOOTED)
    assert [is_held(BladeRecord(state, server="shop/web-1")) for state in states] == [True, True, False]
    assert not is_held(BladeRecord(BladeState.DISCOVERED))
