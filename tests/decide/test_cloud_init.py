"""The personality's LUN is a disc for cloud-init, too."""

import json
import subprocess

import pytest

from panloom.decide.cloud_init import KEYS_OCTETS, identity_disc, meta_data, network_config, vendor_data
from panloom.decide.personality import SIZE_OCTETS, settings_of
from support.identities import FIXED, KEY, LENT, WEB1


def test_images_that_know_panloom_read_the_beginning_as_ever():
    disc = identity_disc(WEB1, (KEY,), "")
    assert disc[:SIZE_OCTETS] == WEB1.to_octets()
    assert settings_of(disc[:SIZE_OCTETS])["INSTANCE"] == WEB1.instance
    assert disc[SIZE_OCTETS : SIZE_OCTETS + KEYS_OCTETS] == f"{KEY}\n".encode().ljust(KEYS_OCTETS, b"\n")
    assert disc[SIZE_OCTETS + KEYS_OCTETS :].startswith(b"\x01CD001")


def test_an_instance_is_a_clone_and_not_a_machine_or_an_epoch():
    told = meta_data(WEB1, (KEY,))
    assert told == {"instance-id": WEB1.instance, "local-hostname": "web1", "public-keys": [KEY]}


def test_each_nic_is_told_by_its_mac():
    assert network_config(WEB1.nics) == {
        "version": 2,
        "ethernets": {
            "eth0": {
                "match": {"macaddress": FIXED.mac},
                "addresses": ["10.1.0.11/24"],
                "routes": [{"to": "0.0.0.0/0", "via": "10.1.0.1"}],
                "nameservers": {"addresses": ["10.1.0.2", "10.1.0.3"], "search": ["shop.example"]},
            },
            "eth1": {"match": {"macaddress": LENT.mac}, "dhcp4": True},
        },
    }
    assert json.loads(json.dumps(network_config(()))) == {"version": 2, "ethernets": {}}


def test_a_system_that_does_not_know_panloom_is_told_to_make_its_nics():
    told = vendor_data(WEB1).splitlines()
    assert told[:2] == ["#cloud-boothook", "#!/bin/sh"]
    assert told[-2:] == [f"nic lan0 {FIXED.mac} 10.1.0.11/24 10.1.0.1", f"nic lan1 {LENT.mac} dhcp"]
    assert "route get 10.77.0.1 |" in told[2]
    assert subprocess.run(("sh", "-n"), input=vendor_data(WEB1), text=True, check=False).returncode == 0


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"SSH keys of .* do not fit"):
        identity_disc(WEB1, (KEY,) * 400, "")
    with pytest.raises(ValueError, match=r"user data of .* is more"):
        identity_disc(WEB1, (), "#!" + "x" * 65536)
