"""Before a machine fails it is told which servers nobody could stand in for, and why."""

from panloom.decide.placement import Machine, Wish
from panloom.decide.preflight import warnings, without_spare

GIB = 1 << 30


def machine(name, server=None, memory=4, **facts):
    return Machine(name=name, memory_octets=memory * GIB, server=server, **facts)


def wish(server, memory=1, **facts):
    return Wish(server=server, memory_octets=memory * GIB, **facts)


def test_one_spare_stands_in_for_all_that_fit_it():
    machines = [machine("n1", "shop/a"), machine("n2", "shop/b"), machine("n3")]
    assert without_spare([wish("shop/a"), wish("shop/b")], machines) == {}
    large = wish("shop/b", memory=8)
    assert without_spare([wish("shop/a"), large], machines) == {"shop/b": "n3 too small (4096 MiB, 8192 MiB needed)"}


def test_a_server_that_waits_takes_a_spare_first():
    machines = [machine("n1", "shop/a"), machine("n2")]
    assert without_spare([wish("shop/a")], machines) == {}
    assert without_spare([wish("shop/a"), wish("shop/new")], machines) == dict.fromkeys(
        ("shop/a", "shop/new"), "no machine is free"
    )


def test_hardware_quarantine_fence_and_who_a_machine_is_held_for_count():
    machines = [
        machine("n1", "shop/a"),
        machine("n2", cores=2),
        machine("n3", unfit="is quarantined: it does not boot"),
        machine("n4", held_for="shop/z"),
        machine("n5", has_power=False),
    ]
    asked = wish("shop/a", cores=4, fence_needs_power=True)
    assert without_spare([asked], machines)["shop/a"].split("; ") == [
        "n2 has 2 cores, and 4 are needed",
        "n3 is quarantined: it does not boot",
        "n4 is being installed as shop/z",
        "n5 it has no power driver, and the server asks for fence: power",
    ]


def test_a_reason_is_told_once_for_all_that_it_holds_for():
    lacking = {f"shop/web{number}": "no machine is free" for number in range(1, 7)} | {"shop/db": "n1 too small"}
    assert warnings(lacking) == (
        "no spare for shop/web1, shop/web2, shop/web3, shop/web4 and 2 more: no machine is free",
        "no spare for shop/db: n1 too small",
    )
