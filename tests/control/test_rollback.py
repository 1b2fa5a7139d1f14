"""Going back with the real processes: documents only, under machines that run."""

import pytest

from panloom.errors import ConflictError
from support.control_node import control_node, pan, run_panloom

ONE = pan("shop", "web1")
TWO = pan("shop", "web[1-2]")


@pytest.fixture
def control(tmp_path):
    with control_node(tmp_path, nodes=2) as made:
        made.start()
        yield made


def numbers(control):
    return [one["number"] for one in control.client.get("revisions")["revisions"]]


def rollback(control, revision, last=None):
    return control.client.post("rollback", body={"revision": revision, "last": last})


def test_a_server_comes_back_under_a_higher_epoch_with_its_mac_and_its_disk(control):
    control.apply(ONE)
    before = control.until_up("shop/web1")
    disk = control.client.get("resources", "volume", "shop/web1")
    rollback(control, 1)
    control.until_event("removed", server="shop/web1")
    assert control.client.get("resources", "volume", "shop/web1")["disk_octets"] == disk["disk_octets"]
    rollback(control, 2)
    after = control.until_up("shop/web1")
    assert after["epoch"] > before["epoch"]
    assert after["mac"] == before["mac"]
    assert [one["what"] for one in control.client.get("revisions")["revisions"]] == [
        "apply",
        "apply",
        "rollback",
        "rollback",
    ]


def test_a_server_that_nothing_changes_for_is_left_running(control):
    control.apply(ONE)
    before = control.until_up("shop/web1")
    control.apply(TWO)
    control.until_up("shop/web2")
    rollback(control, 2)
    control.until_event("removed", server="shop/web2")
    assert control.server("shop/web1") | {"since": 0} == before | {"since": 0}
    assert control[before["node"]].runs("shop/web1", before["epoch"])


def test_a_control_process_that_is_killed_remembers_the_revisions(control):
    control.apply(ONE)
    control.until_up("shop/web1")
    status, shown, _ = run_panloom(control, "rollback", "1")
    assert (status, shown.splitlines()[-1]) == (
        2,
        "Back to revision 1: 0 to add, 0 to change, 3 to remove; 1 server stops.",
    )
    control.kill("control")
    control.start_control()
    assert numbers(control) == [1, 2]
    assert run_panloom(control, "rollback", "1", "--yes", "--expect", "2")[0] == 0
    control.until_event("removed", server="shop/web1")
    with pytest.raises(ConflictError, match="revision 3 came meanwhile"):
        rollback(control, 2, last=2)


def test_a_node_is_not_taken_from_under_its_server(control):
    control.apply(ONE)
    control.until_up("shop/web1")
    before = numbers(control)
    with pytest.raises(ConflictError, match="carries shop/web1; first: panloom failover shop/web1"):
        rollback(control, 0)
    assert numbers(control) == before


def test_what_is_exported_of_a_running_platform_applies_to_no_changes_and_holds_no_secret(control, tmp_path):
    control.apply(TWO)
    row = control.until_up("shop/web1")
    control.until_up("shop/web2")
    status, exported, _ = run_panloom(control, "export")
    assert status == 0
    (tmp_path / "all.yaml").write_text(exported)
    assert run_panloom(control, "plan", str(tmp_path / "all.yaml"))[:2] == (0, "No changes.\n")
    assert control[row["node"]].script.split("password ")[1].split()[0] not in exported
    assert "epoch" not in exported
