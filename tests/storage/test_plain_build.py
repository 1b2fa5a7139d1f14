"""The block path as it is where there is no C compiler: all its modules are their sources."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from panloom.storage.hot import build

HERE = Path(__file__).parent
TOLD = """
import sys, support.plain_build, panloom.storage.stand_alone
print(*(module.__file__ for name, module in sys.modules.items() if name.startswith("panloom.")))
"""
FILES = [HERE / f"test_{name}.py" for name in ("frame", "direct_call", "extents", "hot_slow", "statistics", "limits")]


def plainly(*command):
    environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=280)
    return done.returncode, done.stdout + done.stderr


def test_the_compiled_build_is_there_where_it_can_be_made():
    can = shutil.which("cc") and Path(sysconfig.get_path("include"), "Python.h").exists()
    assert build() == ("compiled" if can else "python")


def test_no_module_is_compiled():
    status, said = plainly("-c", TOLD)
    assert status == 0, said
    assert not [each for each in said.split() if not each.endswith(".py")]


def test_the_same_tests_pass():
    status, said = plainly("-m", "pytest", "-q", "-n0", "-p", "support.plain_build", *map(str, FILES))
    assert status == 0, said[-4000:]
