"""Foreign programs and firmware for tests, below ``.cache/``: ``make setup-test`` unpacks them, never installed."""

import os
from pathlib import Path

PACKAGES = Path(os.environ.get("PANLOOM_PACKAGES", Path(__file__).parents[2] / ".cache" / "debian"))


def busybox() -> Path:
    """Return a static busybox."""
    return unpacked("bin/busybox")


def unpacked(path: str) -> Path:
    """Return a file of a Debian package."""
    found = PACKAGES / path
    assert found.exists(), f"{found} is missing; run: make setup-test"
    return found
