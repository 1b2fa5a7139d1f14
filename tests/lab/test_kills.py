"""kill -9 under write load: what was acknowledged stays, I/O goes on, a fail-over that was cut off completes."""

import contextlib
import time

import pytest

from panloom.control.failpoint import VARIABLE
from panloom.decide.records import Step
from panloom.errors import UnavailableError
from panloom.lab.image import WRITER_RING
from support.lab import ONE, LabInTest, pan, running_lab
from support.waiting import until

pytestmark = [pytest.mark.machine, pytest.mark.timeout(400)]


def newest(lab: LabInTest) -> int:
    return max((counter for _, counter in lab.tags().values()), default=-1)


def assert_no_hole(lab: LabInTest):
    """The ring holds the newest counters of the epoch without a gap: each write that was acknowledged is there, whole.

    The writer waits for each write, so only the one under way may be missing.
    """
    tags = lab.tags()
    last = max(counter for _, counter in tags.values())
    for counter in range(max(0, last - len(WRITER_RING) + 2), last):
        sector = WRITER_RING.start + counter % len(WRITER_RING)
        assert tags[sector] == (1, counter)


def test_storage_and_control_killed_under_write_load_and_io_goes_on(tmp_path):
    with running_lab(tmp_path, nodes=1, writer=True) as lab:
        lab.apply(ONE)
        node = lab.until_up("shop/web1")["node"]
        lab.until_answers("shop/web1")
        lab.until_adopted(node)
        since = lab.last_event()
        for _ in range(3):
            before = newest(lab)
            lab.call(lab.lab.kill("storage"))
            at_kill = newest(lab)
            assert at_kill >= before
            lab.call(lab.lab.start_storage())
            until(lambda at_kill=at_kill: newest(lab) > at_kill + 5, "the machine writes again", seconds=10)
            assert_no_hole(lab)
        before = newest(lab)
        lab.call(lab.lab.kill("control"))
        # No control process: the disk is served on, and after a kill from the storage process's own file.
        until(lambda: newest(lab) > before + 5, "the machine writes without a control process", seconds=10)
        lab.call(lab.lab.kill("storage"))
        at_kill = newest(lab)
        lab.call(lab.lab.start_storage())
        until(lambda: newest(lab) > at_kill + 5, "it writes again without a control process", seconds=10)
        assert_no_hole(lab)
        lab.call(lab.lab.start_control())
        row = lab.until_up("shop/web1")
        assert (row["node"], row["epoch"]) == (node, 1)
        assert not lab.events("fence", after=since)
        assert lab.page()["boots"] == "1"


def test_a_fail_over_cut_off_by_kill_9_at_any_step_completes(tmp_path):
    """The server goes from machine to machine; each time the control process dies between a step and its record."""
    with running_lab(tmp_path, nodes=2, writer=True) as lab:
        lab.apply(ONE)
        node = lab.until_up("shop/web1")["node"]
        epoch = 1
        for place in (*(step.value for step in Step), "finish"):
            lab.call(lab.lab.kill("control"))
            lab.call(lab.lab.start_control(**{VARIABLE: place}))
            lab.until_up("shop/web1")
            with contextlib.suppress(UnavailableError):  # at the first step it dies before it can answer
                lab.call(lab.lab.post("servers", "shop", "web1", "failover"))
            assert lab.call(lab.lab.ended("control")) == -9, place
            lab.call(lab.lab.kill("control"))
            lab.call(lab.lab.start_control())
            row = lab.until_up("shop/web1", not_on={node})
            epoch += 1
            assert row["epoch"] == epoch, place
            node = row["node"]
        lab.until_answers("shop/web1", epoch=epoch)
        written = [known for known, _ in lab.tags().values()]
        assert max(written) == epoch


def test_cap_234_machines_switched_on_before_the_control_node_come_up_by_themselves(tmp_path):
    """Firmware that found no DHCP gives up for good; only a reset helps, and nobody has to ask for it."""
    with running_lab(tmp_path, nodes=2, start=False) as lab:
        lab.lab.directory.mkdir(exist_ok=True)
        lab.call(lab.lab.start_supervisor())
        for node in ("n1", "n2"):
            lab.power(node, "on")

        def gave_up() -> bool:
            consoles = ["\n".join(lab.lab.console_tail(node, 50)) for node in ("n1", "n2")]
            return all("No bootable device" in text or "No more network devices" in text for text in consoles)

        until(gave_up, "both machines gave up", seconds=120)
        lab.call(lab.lab.start_storage())
        lab.call(lab.lab.start_control())
        lab.call(lab.lab.declare(lab.image))
        lab.apply(pan())
        began = time.time()
        for server in ("shop/web1", "shop/web2"):
            lab.until_up(server, seconds=120)
            assert lab.until_answers(server)["boots"] == "1"
        assert [event for event in lab.events("reset") if event["at"] > began - 1]
