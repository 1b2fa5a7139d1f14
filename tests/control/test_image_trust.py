"""No disk is made of what nobody vouches for."""

import asyncio

import pytest

from panloom.control.image_trust import why_distrusted
from panloom.model.resources import Image, ImagePolicy
from panloom.storage.calls import ImageFacts
from support.world import PLATFORM, opened_store, put

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
