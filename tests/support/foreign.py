"""Foreign programs that interop tests drive and that are unpacked, never installed, under ``.cache/``."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache" / "tests"


def busybox() -> Path:
    """Return a static busybox: ``$PANLOOM_BUSYBOX``, or Debian's, unpacked from its package."""
    named = os.environ.get("PANLOOM_BUSYBOX")
    return Path(named) if named else unpacked("busybox-static", "bin/busybox")


def unpacked(package: str, path: str) -> Path:
    """Return ``path`` within Debian's ``package``, which is downloaded and unpacked once."""
    root = CACHE / package
    if not (root / path).exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:
            subprocess.run(["apt-get", "download", package], cwd=directory, check=True, capture_output=True)
            (archive,) = Path(directory).glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", archive, f"{directory}/root"], check=True)
            shutil.rmtree(root, ignore_errors=True)
            Path(f"{directory}/root").rename(root)
    return root / path
