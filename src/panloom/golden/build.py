"""From a recipe to a disk, and what is to be known of it afterwards."""

import hashlib
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import msgspec

from panloom.errors import ConfigError
from panloom.golden.debian import build_tree
from panloom.golden.disk import write_disk
from panloom.golden.recipe import load


class Made(msgspec.Struct, frozen=True):
    """A disk, and where it comes from in a few words."""

    octets: int
    sha256: str
    provenance: Mapping[str, str]


def build_image(recipe: Path, output: Path, *, archive: Path) -> Made:
    """Make the disk ``output`` of a recipe; all that the tools say is in ``output.log``.

    The tree is made beside the output and is gone afterwards.  ConfigError or ConfigErrors: the recipe is wrong.
    UnavailableError: a tool is missing or has failed.
    """
    try:
        text = recipe.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(recipe), f"cannot be read: {error}") from error
    wanted, root_uuid = load(str(recipe), text), uuid4()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        made_in = tempfile.TemporaryDirectory(prefix=".panloom-build-", dir=output.parent)
    except OSError as error:
        raise ConfigError(str(output), f"cannot be made there: {error.strerror}") from error
    with made_in as work:
        log = output.with_name(output.name + ".log")
        built = build_tree(wanted, Path(work), root_uuid, archive=archive, log=log)
        digest = write_disk(built, output, octets=wanted.size, root_uuid=root_uuid)
    provenance = {
        "builder": "panloom image build",
        "recipe": recipe.name,
        "recipe_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "suite": wanted.suite,
        "mirror": built.mirror,
        "packages": str(built.packages),
        "packages_sha256": built.packages_sha256,
        "built_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return Made(wanted.size, digest, provenance)
