"""Node sets expand to distinct names in order, in step, and within bounds; anything else is a ValueError."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.model.nodeset import MAX_MEMBERS, expand, is_set


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("web", ("web",)),
        ("web[1-3]", ("web1", "web2", "web3")),
        ("n[08-11]", ("n08", "n09", "n10", "n11")),
        ("n[1-2,7]", ("n1", "n2", "n7")),
        ("r[1-2]n[1-2]", ("r1n1", "r1n2", "r2n1", "r2n2")),
        ("10.1.0.1[1-2]", ("10.1.0.11", "10.1.0.12")),
        ("52:54:00:00:00:[09-0b]", ("52:54:00:00:00:09", "52:54:00:00:00:0a", "52:54:00:00:00:0b")),
    ],
)
def test_members(text, members):
    assert expand(text) == members


@pytest.mark.parametrize("text", ["n[3-1]", "n[1-5000]", "n[1-9999999999999]", "n[a-c]", "a[1-99]b[1-99]"])
def test_refused(text):
    with pytest.raises(ValueError, match=r"\["):
        expand(text)


@pytest.mark.parametrize("text", ["[]", "n[1-]", "n[-1]", "n[1;2]", "n[1,]", "[::1]", "n["])
def test_other_brackets_are_text(text):
    assert not is_set(text)
    assert expand(text) == (text,)


@given(st.text(alphabet="n0129af[]-,:.", max_size=30))
def test_any_text_expands_or_is_refused(text):
    try:
        members = expand(text)
    except ValueError:
        return
    assert 1 <= len(members) <= MAX_MEMBERS
