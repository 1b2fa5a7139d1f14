"""What a checkout has beside the package: tools that set-up unpacked, example documents."""

import os
from pathlib import Path

from panloom.errors import UnavailableError


def find(relative: str, variable: str) -> Path:
    """Return what an environment variable names, or else what stands here or around this file.

    UnavailableError, with what brings it, if there is none.
    """
    given = os.environ.get(variable)
    for base in (Path.cwd(), *Path(__file__).resolve().parents):
        if (base / relative).exists() and not given:
            return base / relative
    if given and Path(given).exists():
        return Path(given).absolute()
    raise UnavailableError(f"{relative} is missing; in a checkout: make setup-demo (or name it: {variable})")
