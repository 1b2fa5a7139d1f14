"""A personality is read back by a shell exactly as it was written."""

import subprocess
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.decide.personality import SIZE_OCTETS, Personality, PersonalityNic

NIC = PersonalityNic(lan="front", mac="02:50:4c:00:00:01", address="10.1.0.11", prefix=24)


def personality(**changes):
    facts = {"pan": "shop", "server": "web1", "node": "n1", "epoch": 7, "nics": (NIC,), "beacon_key": "00ff"}
    return Personality(beacon_address=IPv4Address("10.77.0.1"), **(facts | changes))


def test_known_octets():
    octets = personality().to_octets()
    assert len(octets) == SIZE_OCTETS
    assert octets.startswith(b"PANLOOM_PERSONALITY='1'\nPAN='shop'\nSERVER='web1'\nNODE='n1'\nEPOCH='7'\nNICS='1'\n")
    assert b"NIC0_MAC='02:50:4c:00:00:01'\nNIC0_ADDRESS='10.1.0.11'\nNIC0_PREFIX='24'\n" in octets
    assert b"BEACON_SECONDS='1'\n" in octets
    assert b"BEACON_SECONDS='0.25'\n" in personality(beacon_seconds=0.25).to_octets()
    assert octets.endswith(b"\n\n")


def test_a_shell_reads_it_back(tmp_path):
    path = tmp_path / "personality"
    path.write_bytes(
        personality(
            nics=(NIC, PersonalityNic(lan="back", mac="02:50:4c:00:00:02", dns="10.0.0.1 10.0.0.2"))
        ).to_octets()
    )
    script = f'. {path}; echo "$PAN/$SERVER $EPOCH $NICS $NIC0_LAN $NIC1_DNS $BEACON_ADDRESS"'
    answer = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout == "shop/web1 7 2 front 10.0.0.1 10.0.0.2 10.77.0.1\n"


@pytest.mark.parametrize("bad", ["o'clock", "new\nline", "umläut", "\x00"])
def test_what_a_shell_could_misread_is_refused(bad):
    with pytest.raises(ValueError, match="cannot stand in a personality"):
        personality(server=bad).to_octets()


@given(st.text(st.characters(codec="ascii", exclude_characters="'", min_codepoint=32, max_codepoint=126), max_size=80))
def test_any_printable_value_survives(text):
    assert (
        f"NIC0_DOMAIN='{text}'\n".encode()
        in personality(nics=(PersonalityNic(lan="l", mac="m", domain=text),)).to_octets()
    )


def test_only_what_needs_another_boot_changes_the_digest():
    digest = personality().digest()
    assert personality(epoch=8, node="n2", beacon_key="11", beacon_seconds=0.25).digest() == digest
    assert personality(nics=()).digest() != digest
