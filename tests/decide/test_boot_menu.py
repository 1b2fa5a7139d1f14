"""What a machine's console offers, and what a choice makes of its rule."""

from panloom.decide.boot_answer import menu_script
from panloom.decide.boot_menu import SPARE, chosen, menu_of
from panloom.lab.ipxe_script import Chain, Choose, Dhcp, run_script
from panloom.model.resources import Becoming, Disk, Image, Prompt, Rule

IMAGES = [Image(name="web", version=2), Image(name="web", version=3), Image(name="db", version=1, tags=("stable",))]
WEB = Rule(name="web", server=Becoming(pan="shop", image="web"), approve="prompt")


def labels(menu):
    return [item.label for item in menu.items]


def test_the_rules_own_image_comes_first_then_the_others_then_a_spare():
    menu = menu_of(WEB.model_copy(update={"server": Becoming(pan="shop", image="db@stable")}), IMAGES)
    assert [(item.label, item.key, item.text) for item in menu.items] == [
        ("db@stable", "1", "db@1"),
        ("web", "2", "web@3"),
        ("db", "3", "db@1"),
        (SPARE, "0", "no server: a spare"),
    ]
    assert menu.timeout_seconds == 30.0


def test_a_rule_may_offer_few_and_one_without_a_server_offers_none():
    few = Prompt(images=("web@2",), timeout_seconds=5.0)
    menu = menu_of(WEB.model_copy(update={"prompt": few}), IMAGES)
    assert (labels(menu), menu.timeout_seconds) == (["web", "web@2", SPARE], 5.0)
    assert labels(menu_of(Rule(name="pool", approve="prompt"), IMAGES)) == [SPARE]


def test_only_nine_have_keys_of_their_own():
    many = [Image(name=f"web{number}", version=1) for number in range(20)]
    keys = [item.key for item in menu_of(WEB, many).items]
    assert keys == [*"123456789", *[""] * 12, "0"]
    steps = run_script(menu_script(menu_of(WEB, many)), {})
    assert len(next(steps).items) == 22


def test_a_choice_is_the_rule_with_another_image_and_the_snapshot_is_its_own_ones():
    cloned = Rule(name="web", server=Becoming(pan="shop", image="web", disk=Disk(snapshot="gold@v1", size_octets=7)))
    assert menu_of(cloned, IMAGES).items[0].text == "snapshot gold@v1"
    assert chosen(cloned, "web") == cloned
    assert chosen(cloned, SPARE) is None
    other = chosen(cloned, "db")
    assert (other.name, other.server.image, other.server.disk) == ("web", "db", Disk(size_octets=7))


def test_the_script_tells_the_choice_with_a_new_token():
    settings = {"filename": "http://10.77.0.1:8080/boot/old"}
    steps = run_script(menu_script(menu_of(WEB, IMAGES)), settings)
    shown = next(steps)
    assert isinstance(shown, Choose)
    assert (shown.default, shown.timeout_seconds, shown.setting) == ("web", 30.0, "choice")
    assert shown.items == (("web", "1 web@3"), ("db", "2 db@1"), (SPARE, "0 no server: a spare"))
    settings["choice"] = "db"
    assert isinstance(steps.send(True), Dhcp)
    settings["filename"] = "http://10.77.0.1:8080/boot/new"
    assert steps.send(True) == Chain("http://10.77.0.1:8080/boot/new/install?choice=db")


def test_who_leaves_the_menu_is_asked_again():
    steps = run_script(menu_script(menu_of(WEB, IMAGES)), {"filename": "http://10.77.0.1:8080/boot/old"})
    next(steps)
    steps.send(False)
    assert isinstance(steps.send(True), Dhcp)
    assert steps.send(True) == Chain("http://10.77.0.1:8080/boot/old")
