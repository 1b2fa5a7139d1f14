"""One pool of machines serves every PAN; nobody gets a machine that cannot be fenced."""

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from panloom.decide.placement import Machine, Wish, objection, place, why_none, why_not

MIB = 1 << 20


def machine(name, *, memory=256, **facts):
    return Machine(name=name, memory_octets=memory * MIB, **facts)


def wish(server, *, memory=128, **facts):
    return Wish(server=server, memory_octets=memory * MIB, **facts)


def test_the_preferred_node_wins_while_it_is_free_and_fits():
    machines = [machine("n1"), machine("n2")]
    assert place([wish("a/x", prefer="n2")], machines) == {"a/x": "n2"}
    assert place([wish("a/x", prefer="n2", memory=512)], [machine("n1", memory=512), machine("n2")]) == {"a/x": "n1"}
    assert place([wish("a/x", prefer="n2")], [machine("n1"), machine("n2", server="b/y")]) == {"a/x": "n1"}


def test_a_preference_is_not_taken_away_by_a_server_that_has_none():
    wishes = [wish("a/early", waiting_since=1.0), wish("a/late", prefer="n1", waiting_since=2.0)]
    assert place(wishes, [machine("n1"), machine("n2")]) == {"a/late": "n1", "a/early": "n2"}


def test_the_smallest_machine_that_fits_is_taken():
    assert place([wish("a/x")], [machine("n1", memory=1024), machine("n2", memory=128)]) == {"a/x": "n2"}


def test_a_machine_that_does_not_have_what_is_needed_is_passed_over_and_told_of():
    small = machine("n1", cores=2, architecture="x86-64", nics=1)
    right = machine("n2", cores=4, architecture="arm64", nics=2)
    for needs, why in (
        ({"cores": 4}, "has 2 cores, and 4 are needed"),
        ({"architecture": "arm64"}, "is x86-64, and arm64 is needed"),
        ({"nics": 2}, "has 1 NIC, and 2 are needed"),
    ):
        assert place([wish("a/x", **needs)], [small, right]) == {"a/x": "n2"}
        assert place([wish("a/x", prefer="n1", **needs)], [small]) == {}
        assert why_not(wish("a/x", **needs), [small]) == f"no spare: n1 {why}"


def test_what_nobody_knows_of_a_machine_is_enough_but_who_is_known_to_fit_goes_first():
    unknown, large = machine("n1", memory=0), machine("n2", memory=4096, cores=8, architecture="x86-64", nics=2)
    needs = wish("a/x", cores=8, architecture="x86-64", nics=2)
    assert place([needs], [unknown, large]) == {"a/x": "n2"}
    assert place([needs], [unknown]) == {"a/x": "n1"}
    assert place([wish("a/x", memory=0)], [unknown, large]) == {"a/x": "n1"}


def test_equal_machines_are_taken_as_people_count_them():
    assert place([wish("a/x")], [machine("n10"), machine("n2")]) == {"a/x": "n2"}


def test_the_node_just_fenced_is_the_last_choice():
    assert place([wish("a/x", avoid="n1")], [machine("n1"), machine("n2")]) == {"a/x": "n2"}
    assert place([wish("a/x", avoid="n1")], [machine("n1")]) == {"a/x": "n1"}


def test_nobody_is_placed_where_no_disk_is_served():
    address = IPv4Address("10.0.0.1")
    for portals in (None, ("10.0.0.1:3260",), ("10.9.0.1:3260", "0.0.0.0:3260")):
        assert why_none(portals, address, 3260) is None
    for portals in (("10.0.0.1:3261",), ("10.0.0.2:3260", "0.0.0.0:3261")):
        why = why_none(portals, address, 3260)
        assert f"listens at {', '.join(portals)}, and machines are told 10.0.0.1:3260; " in why
    assert "listens at no portal" in why_none((), address, 3260)


def test_who_waits_longest_is_served_first_whatever_its_pan():
    wishes = [wish("pan2/b", waiting_since=5.0), wish("pan3/c", waiting_since=9.0)]
    assert place(wishes, [machine("n9")]) == {"pan2/b": "n9"}


def test_why_not_names_each_machine_and_its_reason():
    machines = [machine("n1", server="a/y"), machine("n2", unfit="quarantined: died twice"), machine("n3", memory=64)]
    text = why_not(wish("a/x"), [*machines, machine("n4", has_port=False)])
    for part in ("n1 carries a/y", "n2 quarantined: died twice", "n3 too small", "n4 its port is not known"):
        assert part in text


def test_fence_power_needs_a_power_driver():
    assert objection(machine("n1", has_power=False), wish("a/x", fence_needs_power=True))
    assert objection(machine("n1", has_power=False), wish("a/x")) is None


names = st.sampled_from([f"n{i}" for i in range(8)])
machines_lists = st.lists(
    st.builds(
        machine,
        names,
        memory=st.sampled_from([64, 128, 256]),
        server=st.none() | st.just("z/held"),
        unfit=st.none() | st.just("broken"),
        has_port=st.booleans(),
        has_power=st.booleans(),
    ),
    unique_by=lambda m: m.name,
)
wish_lists = st.lists(
    st.builds(
        wish,
        st.sampled_from([f"p/s{i}" for i in range(8)]),
        memory=st.sampled_from([64, 128, 256]),
        prefer=st.none() | names,
        avoid=st.none() | names,
        fence_needs_power=st.booleans(),
        waiting_since=st.floats(0, 100),
    ),
    unique_by=lambda w: w.server,
)


@given(wish_lists, machines_lists)
def test_no_machine_twice_none_unfit_and_none_left_idle_that_fits(wishes, machines):
    placed = place(wishes, machines)
    by_name = {m.name: m for m in machines}
    assert len(set(placed.values())) == len(placed)
    for w in wishes:
        if w.server in placed:
            assert objection(by_name[placed[w.server]], w) is None
        else:
            assert all(objection(m, w) is not None or m.name in placed.values() for m in machines)
