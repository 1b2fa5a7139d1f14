"""Sixteen machines boot at once while packets are lost and the server is killed.

``make campaign PARTS=netboots`` does it for longer, with up to 64.
"""

from support.netboots import netboots


def test_sixteen_machines_boot_whatever_is_lost_and_whoever_is_killed(tmp_path):
    with netboots(tmp_path, 16, octets=200_000, seed=1) as boots:
        boots.round(16, kills=2, seconds=90)
    assert boots.violations == []
    assert (boots.boots, boots.kills) == (16, 3)
    assert len(boots.owners) >= 16
