"""A clone that is larger than its image becomes a server's own disk: one name, one layout, wherever it was cut off."""

from uuid import UUID

import pytest

from panloom.control.failpoint import VARIABLE
from panloom.decide.records import personality_target_of, target_of
from panloom.storage.client import StorageClient
from panloom.wire import gpt
from support.control_node import control_node, run_panloom
from support.identities import KEY
from support.volume_reader import read_volume
from support.waiting import until

pytestmark = pytest.mark.timeout(240)

MIB = 1 << 20
ROOT = gpt.Partition(gpt.LINUX_ROOT_X86_64, UUID(int=2), 2048, 2048, "root")
PLACES = ("name clone", "clone", "grow")


def golden():
    """Return a disk of 4 MiB with one partition of 1 MiB."""
    begin, end = gpt.encode((ROOT,), disk=UUID(int=1), sectors=8192, boot_code=b"")
    return begin.ljust(4 * MIB - len(end), b"\0") + end


def server(name, more=""):
    host = 10 + int(name[3:])
    return f"""
apiVersion: panloom/v1
kind: PAN
name: shop
lans:
  front: {{subnet: 10.1.0.0/24}}
servers:
  {name}:
    image: web
    disk: {{size: 16MiB}}
    nics: [{{lan: front, address: 10.1.0.{host}}}]
    {more}
"""


@pytest.fixture
def control(tmp_path):
    with control_node(tmp_path, nodes=2) as made:
        made.image.write_bytes(golden())
        yield made


def layout(control, name):
    """Return where the last partition of a server's disk ends, and where the two tables are, in MiB or sectors."""
    end = 16 * MIB // 512
    octets = read_volume(control.directory / "store", f"shop.{name}", range(16 * MIB))
    begin, tail = octets[: 34 * 512], octets[-33 * 512 :]
    assert gpt.grown(begin, tail, end) is None  # both tables are whole and say the same
    return int.from_bytes(begin[2 * 512 + 40 : 2 * 512 + 48], "little") + 1


def instance(control, name):
    row = control.until_up(f"shop/{name}")
    return control[row["node"]].personality["INSTANCE"]


def test_killed_at_any_step_a_clone_is_made_once_and_as_large_inside_as_outside(control):
    control.start()
    for number, place in enumerate(PLACES, start=1):
        control.kill("control")
        control.start_control(**{VARIABLE: place})
        control.apply(server(f"web{number}"), f"{number}.yaml")
        control.died_by_itself("control")
        control.start_control()
        assert UUID(instance(control, f"web{number}")).version == 4
        assert layout(control, f"web{number}") == 15 * 2048
        control.client.delete("resources", "server", f"shop/web{number}")
        control.until_event("removed", server=f"shop/web{number}")


def test_a_clone_keeps_its_name_over_a_fail_over_and_another_clone_has_another(control):
    control.start()
    control.apply(server("web1"))
    first, node = instance(control, "web1"), control.server("shop/web1")["node"]
    control[node].is_silent = True
    moved = control.until_up("shop/web1", not_on=(node,))
    assert control[moved["node"]].personality["INSTANCE"] == first
    control[node].is_silent = False
    control.client.delete("resources", "server", "shop/web1")
    control.until_event("removed", server="shop/web1")
    again = control.last()
    control.apply(server("web1"))
    control.until_event("up", after=again, server="shop/web1")
    assert instance(control, "web1") == first  # the same disk
    control.client.delete("resources", "server", "shop/web1")
    control.until_event("removed", after=again, server="shop/web1")
    assert run_panloom(control, "delete", "volume", "shop/web1", "--yes")[0] == 0
    again = control.last()
    control.apply(server("web1"))
    control.until_event("up", after=again, server="shop/web1")
    assert instance(control, "web1") != first
    assert layout(control, "web1") == 15 * 2048


def test_the_disc_stands_beside_the_disk_too_for_systems_that_log_in_to_that_alone(control):
    control.start()
    with_keys = server("web1", f"ssh_keys: ['{KEY}']\n    user_data: |\n      #cloud-config\n      packages: [a, b]")
    control.apply(with_keys)
    control.until_up("shop/web1")
    exports = {export.target: export.luns for export in control.storage(StorageClient.status).exports}
    (alone,) = exports[str(personality_target_of("shop/web1"))]
    disk, beside = exports[str(target_of("shop/web1"))]
    assert (disk.lun, disk.volume) == (0, "shop.web1")
    assert (beside.lun, beside.read_only, beside.content_sha256) == (1, True, alone.content_sha256)
    assert not control.client.post(
        "plan", body={"files": [{"name": "a", "text": with_keys, "origin": "/test/web.yaml"}]}
    )["changes"]


def test_keys_and_user_data_that_change_are_there_at_the_next_boot_and_cost_none(control):
    control.start()
    control.apply(server("web1", "failover: no"))
    row = control.until_up("shop/web1")
    machine = control[row["node"]]
    machine.beacons = True
    assert set(machine.ssh_keys) == {""}
    before = {session.id for session in control.sessions_of(row["node"])}
    contents = identities(control)
    control.apply(server("web1", f"failover: no\n    ssh_keys: ['{KEY}']\n    user_data: '#cloud-config'"))
    until(lambda: not identities(control) & contents and len(identities(control)) == 1, "both targets tell the news")
    assert {session.id for session in control.sessions_of(row["node"])} == before
    row = control.server("shop/web1")
    assert (row["state"], row["epoch"]) == ("up", 1)
    control.client.post("nodes", row["node"], "power", body={"action": "reset"})
    until(lambda: machine.ssh_keys[0] == KEY, "it reads the key when it boots again")


def identities(control):
    """Return the digests of what web1's targets tell it of itself."""
    targets = {str(target_of("shop/web1")), str(personality_target_of("shop/web1"))}
    exports = [export for export in control.storage(StorageClient.status).exports if export.target in targets]
    return {lun.content_sha256 for export in exports for lun in export.luns} - {None}
