"""The block hot path in each build that is here: the extension modules, and the sources beside them."""

import importlib.util
import sys
from pathlib import Path

from panloom.storage import hot

MODULES = tuple(
    f"panloom.storage.{name}" for name in ("output", "input", "reading", "performer", "hot")
)  # in the order of their imports
BUILDS = ("python", "compiled") if hot.build() == "compiled" else ("python",)


def hot_module(build):
    """Return ``panloom.storage.hot`` in a build."""
    return hot if build == hot.build() else _SOURCES


def _sources():
    """Import the sources under their own names, beside what is imported already."""
    before = {name: sys.modules.pop(name) for name in MODULES}
    try:
        for name, module in before.items():
            source = Path(module.__file__).parent / f"{name.rpartition('.')[2]}.py"
            spec = importlib.util.spec_from_file_location(name, source)
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        return sys.modules["panloom.storage.hot"]
    finally:
        sys.modules.update(before)


_SOURCES = hot if hot.build() == "python" else _sources()
