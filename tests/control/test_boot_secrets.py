"""What a machine is told once to boot from is told to nobody later: its token ends with its first login."""

import re

import pytest

from support.control_node import control_node, pan
from support.waiting import until


@pytest.fixture
def control(tmp_path):
    with control_node(tmp_path, nodes=1) as made:
        made.start()
        yield made


def test_a_boot_token_is_over_with_the_first_login(control):
    control.apply(pan("shop", "web1"))
    machine = control[control.until_up("shop/web1")["node"]]
    assert re.search("password [0-9a-f]{32}", machine.script)
    until(lambda: machine.fetch(machine.url) == "", "the script is given no more", seconds=20)  # of the token's 60
