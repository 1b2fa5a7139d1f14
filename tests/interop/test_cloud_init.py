"""cloud-init itself reads the disc of a personality: its NoCloud data source, and its renderer for systemd-networkd."""

import json
import subprocess
import sys

import pytest

from panloom.decide.cloud_init import identity_disc, vendor_data
from support.foreign import unpacked
from support.identities import KEY, WEB1

READ = r"""
import json, sys
sys.path.append(sys.argv[1])
from cloudinit import helpers, log
from cloudinit.net import network_state, networkd
from cloudinit.sources import DataSourceNoCloud
paths = helpers.Paths({"cloud_dir": sys.argv[2], "run_dir": sys.argv[2] + "/run"})
source = DataSourceNoCloud.DataSourceNoCloud({}, None, paths)
found = source._get_data()
state = network_state.parse_net_config_data(source.network_config)
networkd.Renderer({}).render_network_state(state, target=sys.argv[2])
print(json.dumps({
    "found": found,
    "instance": source.get_instance_id(),
    "name": source.metadata["local-hostname"],
    "keys": source.get_public_ssh_keys(),
    "user_data": source.get_userdata_raw().decode(),
    "vendor_data": source.get_vendordata_raw().decode(),
}))
"""
USER_DATA = "#cloud-config\npackages: [nginx-light]\n"


@pytest.fixture
def told(tmp_path):
    disc, seed = tmp_path / "disc", tmp_path / "seed" / "nocloud"
    disc.write_bytes(identity_disc(WEB1, (KEY,), USER_DATA))
    seed.mkdir(parents=True)
    subprocess.run(("bsdtar", "-xf", disc, "-C", seed), check=True)
    modules = unpacked("usr/lib/python3/dist-packages/cloudinit").parent
    done = subprocess.run(
        (sys.executable, "-c", READ, modules, tmp_path), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_is_found_and_says_who_the_instance_is(told):
    assert told == {
        "found": True,
        "instance": WEB1.instance,
        "name": "web1",
        "keys": [KEY],
        "user_data": USER_DATA,
        "vendor_data": vendor_data(WEB1),
    }


def test_its_network_is_that_of_the_virtual_macs(told, tmp_path):
    written = {path.name: path.read_text() for path in (tmp_path / "etc/systemd/network").iterdir()}
    fixed, lent = (next(text for text in written.values() if nic.mac in text.lower()) for nic in WEB1.nics)
    assert "Address=10.1.0.11/24" in fixed
    assert "Gateway=10.1.0.1" in fixed
    assert "DNS=10.1.0.2 10.1.0.3" in fixed
    assert "Domains=shop.example" in fixed
    assert "DHCP=ipv4" in lent
