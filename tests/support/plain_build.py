"""A plugin of pytest that has panloom imported from its sources, whatever extension modules stand beside them."""

import sys
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path


class Sources:
    """Finds the source where ``PathFinder`` finds an extension module."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target) if name.startswith("panloom.") else None
        if spec is None or not spec.origin.endswith(".so"):
            return spec
        source = Path(spec.origin.partition(".cpython")[0]).with_suffix(".py")
        return spec_from_file_location(name, source, loader=SourceFileLoader(name, str(source)))


sys.meta_path.insert(0, Sources)
