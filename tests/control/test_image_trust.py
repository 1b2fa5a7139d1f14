"""No disk is made of what nobody vouches for."""

import asyncio

import pytest

from panloom.control.image_trust import why_distrusted
from panloom.control.volumes import make
from panloom.errors import ConflictError
from panloom.model.resources import Image, ImagePolicy, Volume
from panloom.storage import calls
from panloom.storage.calls import ImageFacts
from support.world import PLATFORM, opened_store, put

VOLUME = Volume(pan="shop", name="web1", image="web@1", size_octets=4096)
FACTS = ImageFacts("web@1", 4096, "ab" * 32)
WEB = Image(name="web", version=1, source="/srv/web.img")


@pytest.mark.parametrize(
    ("unsigned", "image", "why"),
    [
        ("allow", None, None),
        ("allow", WEB, None),
        ("refuse", None, "no document says who signed web@1; write its Image document"),
        ("refuse", WEB, "no trusted key signed web@1; sign it: panloom image sign web@1 --key FILE"),
    ],
)
def test_an_image_without_signature_or_document_is_as_the_policy_says(unsigned, image, why):
    async def judge():
        async with opened_store() as store:
            policy = PLATFORM.model_copy(update={"images": ImagePolicy(unsigned=unsigned)})
            return why_distrusted(image, FACTS, await put(store, policy))

    assert asyncio.run(judge()) == why


class Storage:
    """A storage process that is told what it is to make."""

    def __init__(self):
        self.made = []

    async def create_volume(self, name, image, octets, *, image_sha256, **options):
        self.made.append((name, image, image_sha256))
        return calls.Created(octets, True)


@pytest.mark.parametrize("unsigned", ["allow", "refuse"])
def test_what_was_judged_is_what_is_cloned_and_what_is_there_is_not_judged_again(unsigned):
    async def work():
        storage, stored = Storage(), calls.Volumes((), (FACTS,))
        async with opened_store() as store:
            policy = PLATFORM.model_copy(update={"images": ImagePolicy(unsigned=unsigned)})
            world = await put(store, policy, WEB)
            try:
                await make(VOLUME, storage, stored, world)
            except ConflictError as error:
                storage.made.append(str(error)[:20])
            there = calls.VolumeFacts("shop.web1", "web@1", 4096, 0, 0)
            await make(VOLUME, storage, calls.Volumes((there,), (FACTS,)), world)
        return storage.made

    first = ("shop.web1", "web@1", FACTS.sha256) if unsigned == "allow" else "no trusted key signe"
    assert asyncio.run(work()) == [first, ("shop.web1", "web@1", None)]
