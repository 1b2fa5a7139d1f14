"""Set-up refuses at once, saying why, where the lab cannot run; and says nothing where all is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def setup(*before, path=None, checkout=ROOT, timeout=20):
    environment = {**os.environ, **({"PATH": str(path)} if path else {})}
    command = [*before, checkout / "scripts" / "setup", "demo"]
    done = subprocess.run(
        command, env=environment, cwd=checkout, capture_output=True, text=True, check=False, timeout=timeout
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def stubs(tmp_path):
    """Return a function that puts a program of ours before the host's, or takes the host's away."""

    def stub(**programs):
        for place in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"):
            for program in Path(place).iterdir():
                if program.name not in programs and not (tmp_path / program.name).exists():
                    (tmp_path / program.name).symlink_to(program)
        for name, script in programs.items():
            if script is not None:
                (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
                (tmp_path / name).chmod(0o755)
        return tmp_path

    return stub


def test_another_processor(stubs):
    path = stubs(uname="[[ $1 == -m ]] && echo aarch64 || echo Linux")
    assert setup(path=path) == (
        1,
        "Panloom cannot be set up here: this is Linux on aarch64; it needs Linux on x86-64.\n",
    )


def test_no_apt(stubs):
    status, said = setup(path=stubs(**{"apt-get": None}))
    assert status == 1
    assert "there is no apt-get" in said


def test_neither_root_nor_sudo(stubs):
    status, said = setup(path=stubs(id="echo 1000", sudo=None))
    assert status == 1
    assert "you are not root and there is no sudo" in said


def test_sudo_refuses(stubs):
    status, said = setup(path=stubs(id="echo 1000", sudo="exit 1"))
    assert status == 1
    assert "sudo does not let you become root" in said


def test_namespaces_are_forbidden(stubs):
    status, said = setup(path=stubs(unshare="exit 1"))
    assert status == 1
    assert "namespaces may not be made here" in said


def test_no_tun():
    status, said = setup("unshare", "--mount", "bash", "-c", 'mount -t tmpfs none /dev/net && exec "$0" "$@"')
    assert status == 1
    assert "/dev/net/tun is missing" in said


def test_old_python(stubs):
    status, said = setup(path=stubs(python3="[[ $1 == --version ]] && echo Python 3.9.2; exit 1"))
    assert status == 1
    assert "is Python 3.9.2; it needs Python 3.11 or later" in said


@pytest.mark.parametrize("purpose", [(), ("everything",)])
def test_purpose_is_needed(purpose):
    done = subprocess.run([ROOT / "scripts" / "setup", *purpose], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "usage: scripts/setup demo|test|bench\n")


def test_nothing_is_installed_when_nothing_is_missing():
    again = subprocess.run(["scripts/setup", "test"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert again.stdout == again.stderr == ""


def test_without_venv_compiler_iproute2_and_sudo_it_gets_all_it_needs(stubs, tmp_path_factory):
    """In a checkout of its own, with all but one of the packages that were unpacked before."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in ("README.md", "LICENSE", "pyproject.toml", "requirements", "scripts", "src"):
        subprocess.run(["cp", "--recursive", ROOT / name, checkout], check=True)
    subprocess.run(["cp", "--archive", "--link", ROOT / ".cache", checkout], check=True)
    (checkout / ".cache" / "debian" / ".unpacked" / "python3-pip-whl").unlink(missing_ok=True)
    path = stubs(
        **dict.fromkeys(("gcc", "cc", "c++", "ip", "sudo")),
        python3=f'[[ $* != *ensurepip* ]] && exec {sys._base_executable} "$@"',
    )
    status, said = setup(path=path, checkout=checkout, timeout=300)
    assert status == 0, said
    assert re.search(r"unpack \d+ Debian packages .*, \d\.\d MB to download:\n.*\bpython3-pip-whl\b", said), said
    assert "Python packages into .venv, 17 MB to download" in said
    shown = subprocess.run([checkout / "scripts" / "run", "panloom", "version"], check=True, capture_output=True)
    assert shown.stdout
