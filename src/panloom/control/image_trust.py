"""May a disk be made of an image?  What the platform document says of signatures, held against an image's digest."""

from functools import lru_cache

from panloom.control.world import World
from panloom.model.image_signatures import Statement, Verdict, verify
from panloom.model.resources import Image
from panloom.storage.calls import ImageFacts

_VERDICTS = 1000


def verdict(image: Image, facts: ImageFacts, world: World) -> Verdict:
    """Return who of the trusted signed an image that is in the store."""
    keys = world.platform.images.keys if world.platform else {}
    return _verdict(
        Statement(image.name, image.version, facts.octets, facts.sha256), image.signatures, tuple(keys.items())
    )


def why_distrusted(image: Image | None, facts: ImageFacts, world: World) -> str | None:
    """Return why no disk may be made of an image, None if one may; ``image`` None: no document names it any more."""
    refuses = world.platform is not None and world.platform.images.unsigned == "refuse"
    if image is None:
        return f"no document says who signed {facts.name}; write its Image document" if refuses else None
    found = verdict(image, facts, world)
    if found.bad:
        return f"{found.bad}; sign it anew, or import the disk that was signed"
    if refuses and not found.by:
        return f"no trusted key signed {image.label}; sign it: panloom image sign {image.label} --key FILE"
    return None


@lru_cache(_VERDICTS)  # documents and images stay the same for many passes
def _verdict(statement: Statement, signatures: tuple[str, ...], keys: tuple[tuple[str, str], ...]) -> Verdict:
    return verify(statement, signatures, dict(keys))
