"""The image's own script: a system becomes the server's, once for each clone, wherever it was cut off before."""

import hashlib
import subprocess
from importlib.resources import files

import pytest

SCRIPT = str(files("panloom.golden").joinpath("system/usr/lib/panloom/identity"))
INSTANCE = "0b5a7a5e-0000-4000-8000-000000000001"
# bash runs this before each command of the script, and ends itself as a power cut would before the one of that number.
CUT = "set -T; steps=0; trap '[ $((steps++)) != %d ] || kill -9 $$' DEBUG; . %s"


@pytest.fixture
def clone(tmp_path):
    return donor(tmp_path / "root")


def donor(root):
    for directory in ("etc/ssh", "var/lib/systemd", "var/lib/dbus"):
        (root / directory).mkdir(parents=True)
    (root / "etc/hostname").write_text("donor\n")
    (root / "etc/machine-id").write_text("d" * 32 + "\n")
    (root / "etc/ssh/ssh_host_ed25519_key").write_text("the donor's")
    (root / "etc/ssh/ssh_host_ed25519_key.pub").write_text("the donor's")
    (root / "etc/ssh/moduli").write_text("everybody's")
    (root / "var/lib/systemd/random-seed").write_text("the donor's")
    return root


def personality(directory, server="web1", instance=INSTANCE):
    path = directory / "personality"
    path.write_text(f"PAN='shop'\nSERVER='{server}'\nINSTANCE='{instance}'\n")
    return path


def run(root, *, cut=None, **told):
    arguments = (str(root), str(personality(root.parent, **told)))
    if cut is None:
        return subprocess.run(("sh", SCRIPT, *arguments), check=True, capture_output=True, text=True).returncode
    return subprocess.run(("bash", "-c", CUT % (cut, SCRIPT), SCRIPT, *arguments), check=False).returncode


def contents(root):
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def machine_id(instance):
    return hashlib.sha256(f"machine-id:{instance}".encode()).hexdigest()[:32]


def test_a_clone_becomes_the_servers_own(clone):
    run(clone)
    assert contents(clone) == {
        "etc/hostname": "web1\n",
        "etc/machine-id": machine_id(INSTANCE) + "\n",
        "etc/ssh/moduli": "everybody's",
        "var/lib/panloom/instance": INSTANCE + "\n",
    }


def test_it_happens_once_for_each_clone(clone):
    run(clone)
    (clone / "etc/ssh/ssh_host_ed25519_key").write_text("its own")
    (clone / "etc/machine-id").write_text("a person's choice\n")
    before = contents(clone)
    run(clone)
    assert contents(clone) == before
    run(clone, instance=INSTANCE[:-1] + "2")
    assert contents(clone)["etc/machine-id"] == machine_id(INSTANCE[:-1] + "2") + "\n"
    assert "etc/ssh/ssh_host_ed25519_key" not in contents(clone)


def test_a_control_node_that_tells_no_instance_changes_the_name_alone(clone):
    before = contents(clone)
    run(clone, instance="")
    assert contents(clone) == {**before, "etc/hostname": "web1\n"}


def test_killed_before_any_step_the_next_boot_completes_it(tmp_path):
    run(donor(tmp_path / "whole"))
    whole, killed, cut = contents(tmp_path / "whole"), 0, 0
    while True:
        root = donor(tmp_path / f"cut{cut}")
        if run(root, cut=cut) == 0:
            break
        killed += 1
        run(root)
        assert contents(root) == whole, cut
        cut += 1
    assert killed > 15
