"""The iSCSI names that are made of documents' names."""

from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from panloom.decide.records import BASE_IQN, initiator_of, personality_target_of, target_of
from panloom.values import Iqn

LABELS = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
WORDS = st.sampled_from(["node", "personality", "n1", "web1", "shop"]) | LABELS
PANS = WORDS.filter(lambda name: name != "node")  # the documents' check refuses that one


def test_cap_073_the_naming_authority_is_a_domain_reversed_and_the_month_in_which_it_was_ours():
    kind, month, authority = BASE_IQN.split(".", 2)
    assert (kind, authority.split(".")) == ("iqn", ["dev", "panloom"])
    assert date.fromisoformat(f"{month}-01") == date(2026, 11, 1)


@given(st.sets(st.tuples(PANS, WORDS), max_size=8), st.sets(WORDS, max_size=8))
def test_cap_073_names_are_well_formed_and_no_two_are_alike(servers, nodes):
    keys = [f"{pan}/{name}" for pan, name in servers]
    names = [*map(target_of, keys), *map(personality_target_of, keys), *map(initiator_of, nodes)]
    assert all(Iqn.parse(str(name)) == name and str(name).startswith(f"{BASE_IQN}:") for name in names)
    assert len(set(names)) == len(names)
