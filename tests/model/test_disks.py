"""A server has one disk, by its name or by what an update said; documents cannot say otherwise."""

from hypothesis import given
from hypothesis import strategies as st

from panloom.decide.history import way_back
from panloom.decide.plan import changes, volumes
from panloom.model.disks import disks, handed_over, is_server_disk, next_name, with_owners
from panloom.model.resources import Image, Server, Volume

WEB1 = Server(pan="shop", name="web1", image="web")
OLD = Volume(pan="shop", name="web1", image="web@1")
NEW = Volume(pan="shop", name="web1-disk-2", image="web@2", server="")
IMAGES = (Image(name="web", version=1, source="/1"), Image(name="web", version=2, source="/2"))


def by_key(*resources):
    return {resource.key: resource for resource in resources}


def test_a_server_has_the_disk_of_its_name_until_it_is_given_another_and_again_when_it_goes_back():
    before = by_key(WEB1, OLD, NEW)
    assert disks(before.values()) == {"shop/web1": OLD}
    after = before | handed_over(WEB1, OLD, NEW)
    assert disks(after.values())["shop/web1"].name == "web1-disk-2"
    assert not is_server_disk(after[OLD.key], after)
    back = after | handed_over(WEB1, after[NEW.key], after[OLD.key])
    assert back == before


def test_what_a_document_says_of_either_disk_changes_nothing():
    after = by_key(WEB1, *IMAGES) | handed_over(WEB1, OLD, NEW)
    written = by_key(WEB1, Volume(pan="shop", name="web1", image="web@1"))
    kept = with_owners(written, after)
    assert kept[OLD.key] == after[OLD.key]
    found, refusals = volumes(after, {**after, **kept})
    assert refusals == []
    assert changes(after, {**kept, **found}).changes == ()


def test_a_server_by_the_name_of_another_ones_disk_is_refused():
    after = by_key(WEB1, *IMAGES) | handed_over(WEB1, OLD, NEW)
    other = Server(pan="shop", name="web1-disk-2", image="web")
    _, (refusal,) = volumes(after, {**after, other.key: other})
    assert "is the disk of server shop/web1" in refusal.why


def test_the_disk_that_a_server_was_given_is_its_disk_wherever_the_other_stands():
    given = NEW.model_copy(update={"server": "web1"})
    assert disks([OLD, given]) == disks([given, OLD]) == {"shop/web1": given}


def test_the_way_back_to_before_an_update_gives_no_server_a_second_disk():
    """The disk of before was destroyed since: its name may come back, but not as what the server runs from."""
    before = by_key(WEB1, *IMAGES, OLD)
    now = by_key(WEB1, *IMAGES, NEW.model_copy(update={"server": "web1"}))
    way = way_back(now, before)
    served = [volume.label for volume in way.want.values() if isinstance(volume, Volume) and volume.serves]
    assert served == ["shop/web1-disk-2"]
    assert [volume.label for volume in way.cloned_anew] == ["shop/web1"]


def test_a_server_whose_disk_was_destroyed_has_the_one_of_its_name_again():
    retired = OLD.model_copy(update={"server": ""})
    found, refusals = volumes(by_key(*IMAGES, retired), by_key(WEB1, *IMAGES, retired))
    assert refusals == []
    assert disks(found.values())["shop/web1"] == OLD


names = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@given(names, st.sets(names, max_size=4), st.integers(0, 12))
def test_further_disks_have_names_of_their_own(server, taken, number):
    for _ in range(number):
        name = next_name(server, taken)
        assert name not in taken
        assert len(name) <= 63
        assert name.isascii()
        taken = {*taken, name}


def test_going_back_to_documents_from_before_an_update_moves_no_server_to_another_disk():
    before = by_key(WEB1, OLD, *IMAGES)
    now = by_key(WEB1, *IMAGES) | handed_over(WEB1, OLD, NEW)
    way = way_back(now, before)
    assert disks(way.want.values())["shop/web1"].name == "web1-disk-2"
    assert way.want[OLD.key] == now[OLD.key]
    assert changes(now, way.want, absent=way.absent).changes == ()


def test_a_server_that_asked_for_one_version_asks_for_the_one_of_its_disk_after_going_back():
    pinned = WEB1.model_copy(update={"image": "web@1"})
    updated = WEB1.model_copy(update={"image": "web@2"})
    now = by_key(updated, *IMAGES) | handed_over(updated, OLD, NEW)
    assert way_back(now, by_key(pinned, OLD, *IMAGES)).want[WEB1.key] == updated
