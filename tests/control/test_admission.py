"""What targets grant and tell, and who is told news first."""

import asyncio
import hashlib

import msgspec

from panloom.control.admission import Admission
from panloom.control.personalities import identity_of
from panloom.control.volumes import MAX_AT_ONCE
from panloom.decide.records import personality_target_of, target_of
from panloom.model.resources import Liveness
from panloom.storage import calls
from support.dict_store import DictStore
from support.identities import KEY
from support.world import DOCUMENTS, LAN, PLATFORM, UP, WEB1, world_of

NAME = "shop/web1"
DISK, IDENTITY = str(target_of(NAME)), str(personality_target_of(NAME))


def world(*documents):
    return asyncio.run(world_of(DictStore(), UP, documents))


def with_change(old, **changes):
    return world(*(one.model_copy(update=changes) if one is old else one for one in DOCUMENTS))


def exports(there, *, epoch=UP.epoch):
    """Return both targets as they are once the server was admitted in a world."""
    told = hashlib.sha256(identity_of(NAME, UP, there)).hexdigest()
    access = calls.AccessFacts(initiator=str(there.initiator("n1")), user=None)
    disk = calls.LunFacts(lun=0, volume="shop.web1", content_sha256=None, read_only=False)
    identity, beside = (calls.LunFacts(lun=lun, volume=None, content_sha256=told, read_only=True) for lun in (0, 1))
    return {
        DISK: calls.ExportFacts(DISK, epoch, (disk, beside), access),
        IDENTITY: calls.ExportFacts(IDENTITY, epoch, (identity,), access),
    }


def test_a_server_is_admitted_by_both_targets_under_its_epoch_as_who_it_is_now():
    admission, now = Admission(), world(*DOCUMENTS)
    there = exports(now)
    assert admission.is_there(NAME, UP, there, now)
    for less in (
        {},
        {DISK: there[DISK]},
        exports(now, epoch=2),
        {**there, DISK: msgspec.structs.replace(there[DISK], access=None)},
    ):
        assert not admission.is_granted(NAME, UP, less, now)
        assert not admission.is_there(NAME, UP, less, now)
    for later in (with_change(PLATFORM, liveness=Liveness(timeout_seconds=1.0)), with_change(WEB1, ssh_keys=(KEY,))):
        assert admission.is_granted(NAME, UP, there, later)
        assert not admission.is_there(NAME, UP, there, later)
        assert admission.is_there(NAME, UP, exports(later), later)
    assert admission.is_there(NAME, UP, there, now)


def test_what_does_not_fit_is_said_and_what_is_missing_is_not():
    admission, now = Admission(), world(*DOCUMENTS)
    there, large = exports(now), with_change(WEB1, ssh_keys=(KEY,) * 400)
    assert admission.is_there(NAME, UP, there, large)  # it goes on, and a fence finds its record as ever
    why = admission.why_untold(NAME, UP, large)
    assert "octets do not fit into 28672; give shop/web1 fewer NICs or keys" in why
    assert admission.why_untold(NAME, UP, now) is None
    without = world(*(one for one in DOCUMENTS if one is not LAN))
    assert admission.is_there(NAME, UP, there, without)
    assert admission.why_untold(NAME, UP, without) is None


def test_few_are_told_news_at_once_each_has_its_turn_and_nobody_else_waits():
    admission = Admission()
    news = {f"shop/web{number}": True for number in range(3 * MAX_AT_ONCE)}
    due = {**news, "shop/down": False}
    first = admission.in_turn(due, ())
    assert first[0] == "shop/down"
    assert len(first) == 1 + MAX_AT_ONCE
    assert admission.in_turn(due, first[1:]) == ("shop/down",)
    had = set(first)
    for _ in range(2):  # none of them got it: they fail, and the others have their turn all the same
        had.update(admission.in_turn(due, ()))
    assert had == due.keys()
