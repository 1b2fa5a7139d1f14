"""What pyproject.toml cannot say: the block hot path as extension modules, where they can be built.

The modules are plain Python (``panloom.storage.hot``) that Cython also compiles; their .pxd files hold the C types.
Without Cython or a C compiler the sources are installed alone and do the same, more slowly; ``panloom doctor`` tells
which of the two runs.
"""

import sys

from setuptools import Extension, setup

COMPILED = ("access", "frame", "hot", "input", "output", "sending", "statistics", "turnstile")


def extensions() -> list[Extension]:
    """Return what is to be compiled: nothing where there is no Cython."""
    try:
        from Cython.Build import cythonize
    except ImportError:
        print("panloom: no Cython, so the block hot path stays plain Python", file=sys.stderr)
        return []
    options = {"extra_compile_args": ["-O2"], "optional": True}
    return cythonize(
        [Extension(f"panloom.storage.{name}", [f"src/panloom/storage/{name}.py"], **options) for name in COMPILED],
        build_dir="build/cython",
        include_path=["src"],
        compiler_directives={"language_level": 3, "annotation_typing": False},
    )


setup(ext_modules=extensions())
