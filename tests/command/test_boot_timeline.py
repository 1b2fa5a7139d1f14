"""A boot as people read it: every state in words, and no line wider than the terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.command.boot_timeline import timeline
from panloom.decide.records import STAGES

UP = [[stage, 1.25 * number] for number, stage in enumerate(STAGES)]


def boot(stages, state, **more):
    return {
        "at": 1795257067.0,
        "stages": stages,
        "server": "shop/web1",
        "epoch": 3,
        "state": state,
        "seconds": 9.0,
        **more,
    }


@pytest.mark.parametrize(
    ("told", "state", "last"),
    [
        (boot(UP, "up"), "up after 7.5 s", "       7.5 s  userland"),
        (boot(UP[:2], "booting", waits_for="script"), "under way", "       9.0 s  … waits for script"),
        (boot(UP[:1], "booting", waits_for="dhcp"), "under way", "       9.0 s  … waits for DHCP"),
        (boot(UP[:2], "waiting"), "waits for a server", "       1.2 s  DHCP"),
        (boot(UP, "off"), "over, it is off; it had reached userland", "       7.5 s  userland"),
        (boot(UP[1:5], "stopped", tries=3), "stopped after first read, begun 4 times", "       5.0 s  first read"),
    ],
)
def test_states(told, state, last):
    lines = list(timeline(told, columns=120))
    assert lines[0].endswith(f": {state}")
    assert lines[0].startswith("boot of shop/web1, epoch 3, ")
    assert lines[-1] == last


def test_a_boot_of_no_server_names_none():
    assert next(timeline(boot(UP[:1], "booting", server=None), columns=80)).startswith("boot 20")


@given(st.lists(st.text("ab:-", min_size=1, max_size=12), min_size=1, max_size=40).map(" ".join), st.integers(40, 120))
def test_no_line_is_wider_than_the_terminal(words, columns):
    seen = {"source": "control node", "seconds": 1.0, "text": words}
    told = boot(UP[:6], "stopped", tries=2, seen=seen, likely=words, mend=words)
    assert max(map(len, timeline(told, columns=columns))) <= columns
