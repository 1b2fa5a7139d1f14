"""What pyproject.toml cannot say: the block hot path as extension modules, where they can be built.

The modules are plain Python (``panloom.storage.hot``) that Cython also compiles; the .pxd file
beside each holds the C types.
Without Cython or a C compiler the sources are installed alone and do the same, more slowly; ``panloom doctor`` tells
which of the two runs.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("src")
COMPILED = sorted(types.with_suffix(".py") for types in SOURCES.rglob("*.pxd") if types.with_suffix(".py").exists())


def extensions() -> list[Extension]:
    """Return what is to be compiled: nothing where there is no Cython."""
    try:
        from Cython.Build import cythonize
    except ImportError:
        print("panloom: no Cython, so the block hot path stays plain Python", file=sys.stderr)
        return []
    options = {"extra_compile_args": ["-O2"], "optional": True}
    return cythonize(
        [Extension(_module(source), [str(source)], **options) for source in COMPILED],
        build_dir="build/cython",
        include_path=["src"],
        compiler_directives={"language_level": 3, "annotation_typing": False},
    )


def _module(source: Path) -> str:
    return ".".join(source.relative_to(SOURCES).with_suffix("").parts)


setup(ext_modules=extensions())
