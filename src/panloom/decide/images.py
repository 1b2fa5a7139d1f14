"""Which versions of an image somebody needs, and tags that go from one version to another.

versions   web@1   web@2   web@3 (stable)   web@4
prune      gone    volume shop/web1 is a clone of it: kept    tagged: kept    the newest: kept
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from panloom.decide.image_update import ImageUpdate
from panloom.errors import ConfigError
from panloom.model.resources import WANT, Image, Resource, Rule, Server, Volume

MAX_NAMED = 4


class Pruning(NamedTuple):
    """The versions that nobody needs, by label, and why each of the others stays."""

    gone: tuple[str, ...]
    kept: Mapping[str, str]


def users(label: str, resources: Iterable[Resource], updates: Iterable[ImageUpdate] = ()) -> tuple[str, ...]:
    """Return who needs a version of an image: disks that are clones of it, and who names it by its number."""
    found = []
    for resource in resources:
        match resource:
            case Volume(image=image) if image == label:
                found.append(f"volume {resource.label}")
            case Server(image=image) if image == label:
                found.append(f"server {resource.label}")
            case Rule() if label in _named(resource):
                found.append(f"rule {resource.name}")
    found += [f"the update of {one.image}" for one in updates if one.ended_at is None and one.version == label]
    return tuple(found)


def _named(rule: Rule) -> tuple[str, ...]:
    """Return the images that a rule gives to machines, or lets a person choose among."""
    return (*((rule.server.image,) if rule.server else ()), *(rule.prompt.images if rule.prompt else ()))


def prune(
    name: str,
    resources: Collection[Resource],
    updates: Iterable[ImageUpdate],
    *,
    keep: int,
    read: Mapping[str, str] = MappingProxyType({}),
) -> Pruning:
    """Return which versions of an image may go: all but the ``keep`` newest, tagged ones, and those in use.

    ``read`` are versions that something is read through which no document names, and how that is said and ended.
    """
    versions = sorted(
        (image for image in resources if isinstance(image, Image) and image.name == name),
        key=lambda image: image.version,
        reverse=True,
    )
    running = tuple(updates)
    gone: list[str] = []
    kept: dict[str, str] = {}
    for position, image in enumerate(versions):
        by = users(image.label, resources, running)
        if position < keep:
            kept[image.label] = "the newest" if keep == 1 else f"one of the {keep} newest"
        elif image.tags:
            kept[image.label] = f"tagged {', '.join(image.tags)}"
        elif by:
            more = f" and {len(by) - MAX_NAMED} more" if len(by) > MAX_NAMED else ""
            kept[image.label] = f"in use by {', '.join(by[:MAX_NAMED])}{more}"
        elif image.label in read:
            kept[image.label] = read[image.label]
        else:
            gone.append(image.label)
    return Pruning(tuple(reversed(gone)), kept)


def with_notes(
    written: Mapping[str, Resource], stored: Mapping[str, Resource], says: Callable[[str, str], bool]
) -> dict[str, Resource]:
    """Return the images among documents, by key, with what was noted of them since and they say nothing of.

    ``says`` tells whether a document has a word.  One without ``tags:`` leaves those that `panloom image tag` gave, one
    without ``signatures:`` those of `panloom image sign`; one that has the word means that and no more.  A tag that the
    document of another version has goes there.
    """
    claimed = _carried(image for key, image in written.items() if says(key, "tags"))
    found: dict[str, Resource] = {}
    for key, image in written.items():
        known = stored.get(key)
        if isinstance(image, Image) and isinstance(known, Image):
            noted = {word: getattr(known, word) for word in ("tags", "signatures") if not says(key, word)}
            if "tags" in noted:
                noted["tags"] = tuple(tag for tag in known.tags if (known.name, tag) not in claimed)
            found[key] = image.model_copy(update=noted)
    return found


def without_claimed(written: Mapping[str, Resource], stored: Mapping[str, Resource]) -> dict[str, Resource]:
    """Return the images that no document is of and that lose tags to those that are written, by key."""
    claimed = _carried(written.values())
    found: dict[str, Resource] = {}
    for key, image in stored.items():
        if isinstance(image, Image) and key not in written:
            less = _less(image, [tag for tag in image.tags if (image.name, tag) in claimed])
            if less != image:
                found[key] = less
    return found


def _carried(images: Iterable[Resource]) -> frozenset[tuple[str, str]]:
    """Return name and tag of each tag that one of the images carries."""
    return frozenset((image.name, tag) for image in images if isinstance(image, Image) for tag in image.tags)


def tagged(label: str, tags: Collection[str], resources: Mapping[str, Resource]) -> dict[str, Resource]:
    """Return the versions of an image that change, by key, so that one of them alone carries the tags.

    ConfigError: there is no such version.
    """
    return _retagged(label, resources, lambda image: _with(image, tags) if image.label == label else _less(image, tags))


def untagged(label: str, tags: Collection[str], resources: Mapping[str, Resource]) -> dict[str, Resource]:
    """Return the versions that change, by key, so that one of them carries the tags no more."""
    return _retagged(label, resources, lambda image: _less(image, tags) if image.label == label else image)


def _retagged(label: str, resources: Mapping[str, Resource], change: Callable[[Image], Image]) -> dict[str, Resource]:
    chosen = resources.get(f"{WANT}image/{label}")
    if not isinstance(chosen, Image):
        raise ConfigError(f"image {label}", "there is no such version; see: panloom get images")
    changed = {
        key: change(image) for key, image in resources.items() if isinstance(image, Image) and image.name == chosen.name
    }
    return {key: image for key, image in changed.items() if image != resources[key]}


def _with(image: Image, tags: Collection[str]) -> Image:
    return image.model_copy(update={"tags": (*image.tags, *(tag for tag in tags if tag not in image.tags))})


def _less(image: Image, tags: Collection[str]) -> Image:
    return image.model_copy(update={"tags": tuple(tag for tag in image.tags if tag not in tags)})
