"""The lab's image on foreign servers: tgtd and dnsmasq bring it to userland, under CHAP and without."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.machine
PEER_BOOT = Path(__file__).parents[2] / "bench" / "peer_boot.py"


@pytest.fixture(scope="module")
def boots():
    """Two boots of one disk, by a script with CHAP and by DHCP's root path without; tgtd is killed in each."""
    done = subprocess.run(
        [sys.executable, PEER_BOOT, "--auth", "chap", "none", "--restart"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_stage_is_marked_in_order(boots):
    for boot in boots:
        assert list(boot["stages"]) == ["kernel", "network", "login", "root", "userland"]


def test_page_names_the_server_and_counts_its_boots(boots):
    for number, boot in enumerate(boots, start=1):
        kernel = boot["page"].pop("kernel")
        assert kernel.endswith("-cloud-amd64")
        assert boot["page"] == {
            "server": "shop/web1",
            "epoch": "1",
            "node": "n1",
            "boots": str(number),
            "mac": "02:50:4c:00:00:01",
            "address": "10.1.0.11",
        }


def test_one_nic_has_two_identities(boots):
    for boot in boots:
        assert boot["neighbours"] == {"10.77.0.11": "52:54:00:77:00:01", "10.1.0.11": "02:50:4c:00:00:01"}


def test_writes_go_on_after_the_target_was_away(boots):
    assert all(boot["restart_seconds"] > 0 for boot in boots)


def test_beacon_is_signed_and_counts(boots):
    for boot in boots:
        said = [beacon.split("panloom ", 1)[1].split() for beacon in boot["beacons"]]
        assert [words[3] for words in said] == ["1", "2"]
        for version, server, epoch, counter, digest in said:
            assert (version, server, epoch) == ("1", "shop/web1", "1")
            assert digest == hashlib.sha256(f"00112233:shop/web1:1:{counter}".encode()).hexdigest()
