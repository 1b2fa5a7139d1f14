"""What nobody needs may go, and a tag is never on none or on two versions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.decide.image_update import ImageUpdate, Turn
from panloom.decide.images import prune, tagged, untagged, users, with_notes, without_claimed
from panloom.errors import ConfigError
from panloom.model.resources import Becoming, Image, Prompt, Rule, Server, Volume

VERSIONS = tuple(Image(name="web", version=number, source=f"/{number}") for number in range(1, 6))
DISK = Volume(pan="shop", name="web1", image="web@2")
PINNED = Server(pan="shop", name="web2", image="web@3")
RULE = Rule(name="blades", server=Becoming(pan="shop", image="web@3"))


def by_key(*resources):
    return {resource.key: resource for resource in resources}


def update(version, **fields):
    return ImageUpdate("web", version, version, 1, "ada", 1.0, (Turn("shop/web1"),), **fields)


def test_who_uses_a_version_is_named():
    there = (*VERSIONS, DISK, PINNED, RULE)
    assert users("web@2", there) == ("volume shop/web1",)
    assert users("web@3", there) == ("server shop/web2", "rule blades")
    menu = Rule(name="menu", prompt=Prompt(images=("web@5", "web")))
    assert users("web@5", (*there, menu)) == ("rule menu",)
    assert users("web@4", there, [update("web@4")]) == ("the update of web",)
    assert users("web@4", there, [update("web@4", ended_at=2.0)]) == ()


def test_what_is_in_use_tagged_or_new_stays():
    tagged_one = VERSIONS[3].model_copy(update={"tags": ("stable",)})
    there = (*VERSIONS[:3], tagged_one, VERSIONS[4], DISK)
    found = prune("web", there, (), keep=1)
    assert found.gone == ("web@1", "web@3")
    assert found.kept == {
        "web@5": "the newest",
        "web@4": "tagged stable",
        "web@2": "in use by volume shop/web1",
    }
    assert prune("web", there, [update("web@1")], keep=0).gone == ("web@3", "web@5")
    assert prune("db", there, (), keep=1) == ((), {})


@given(
    st.lists(st.tuples(st.integers(1, 5), st.sets(st.sampled_from(["a", "b", "c"]), min_size=1), st.booleans())),
)
def test_after_any_moves_a_tag_is_where_it_was_put_last(moves):
    there = by_key(*VERSIONS)
    want = {}
    for number, tags, away in moves:
        label = f"web@{number}"
        there |= (untagged if away else tagged)(label, tags, there)
        for tag in tags:
            if not away:
                want[tag] = label
            elif want.get(tag) == label:
                del want[tag]
        carried = [(tag, image.label) for image in there.values() for tag in image.tags]
        assert sorted(carried) == sorted(want.items())


def test_a_version_that_is_not_there_carries_nothing():
    with pytest.raises(ConfigError, match="there is no such version"):
        tagged("web@9", ["stable"], by_key(*VERSIONS))


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 5)),
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 5)),
    st.sets(st.integers(1, 5)),
)
def test_a_tag_that_a_document_has_leaves_the_version_that_had_it(before, claims, silent):
    """Tags are where commands put them, then documents of some versions are applied, some of them without a word."""

    def carrying(where):
        return by_key(
            *(
                image.model_copy(update={"tags": tuple(tag for tag in where if where[tag] == image.version)})
                for image in VERSIONS
            )
        )

    stored, claimed = carrying(before), carrying(claims)
    loud = {key for key, image in claimed.items() if image.tags}
    quiet = {image.key for image in VERSIONS if image.version in silent} - loud
    written = {key: claimed[key] for key in loud | quiet}
    written |= with_notes(written, stored, lambda key, word: word == "tags" and key in loud)
    after = {**stored, **without_claimed(written, stored), **written}
    carried = [tag for image in after.values() for tag in image.tags]
    assert len(carried) == len(set(carried))
    assert {tag: image.version for image in after.values() for tag in image.tags}.items() >= claims.items()
    lost = before.keys() - claims.keys() - set(carried)
    assert {before[tag] for tag in lost} <= {after[key].version for key in loud}  # said to have others, and no more
