"""What the host has: everything where these tests run, and a clear word where it is taken away."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from panloom.fabric import capabilities

PROBE = """
from panloom.fabric import capabilities
print(*capabilities.probe(), sep="\\n")
"""


def names_of_links():
    return sorted(Path("/sys/class/net").iterdir())


def test_nothing_is_missing_here_and_nothing_is_left():
    before = names_of_links()
    assert capabilities.probe() == ()
    assert names_of_links() == before


def loaded(library):
    """Return the file of a library, wherever the loader found it."""
    ctypes.CDLL(f"{library}.1")
    maps = Path("/proc/self/maps").read_text()
    return next(line.split()[-1] for line in maps.splitlines() if f"/{library}" in line)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("mount -t tmpfs none /dev/net", ("/dev/net/tun: No such file", "modprobe tun")),
        ("mount --bind /dev/null $LIBRARY", ("libnftables.so.1 is missing", "apt-get install libnftables1")),
    ],
    ids=["tun", "libnftables"],
)
def test_what_is_missing_is_named_with_what_brings_it(setting, words):
    script = f"{setting.replace('$LIBRARY', loaded('libnftables.so'))} && exec {sys.executable} -W error -c '{PROBE}'"
    done = subprocess.run(["unshare", "--mount", "sh", "-ec", script], capture_output=True, text=True, check=True)
    for word in words:
        assert word in done.stdout


def test_without_privileges_it_says_so():
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-W", "error", "-c", PROBE],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "network namespaces: Operation not permitted; run as root" in done.stdout
