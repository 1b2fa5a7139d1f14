"""Versions of images with the real processes: destroyed when nobody needs them, tagged, signed and refused."""

import json

import pytest

from panloom.control.failpoint import VARIABLE
from panloom.errors import ConfigError, ConfigErrors
from support.control_node import IMAGE, control_node, pan, run_panloom
from support.waiting import until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    """A control node with web@1, which shop/web1 is a clone of; each test brings images of its own in."""
    with control_node(tmp_path_factory.mktemp("versions"), nodes=1) as made:
        made.start()
        made.apply(pan("shop", "web1"))
        made.until_up("shop/web1")
        yield made


def bring_in(control, name, *versions):
    for version in versions:
        path = control.directory / f"{name}{version}.img"
        path.write_bytes(f"{name} {version} ".encode() * 1000)
        assert run_panloom(control, "image", "import", str(path), f"{name}@{version}")[0] == 0


def refused(control, label):
    """Return why an image is not deleted."""
    status, _, why = run_panloom(control, "image", "delete", label, "--yes")
    assert status == 1
    return why


def images(control, name):
    rows = control.client.get("resources", "image")["rows"]
    return {row["name"]: row for row in rows if row["name"].startswith(f"{name}@")}


def files(control, name):
    return sorted(path.name.partition(".")[0] for path in (control.directory / "store" / "images").glob(f"{name}@*"))


def test_a_version_goes_with_its_octets_and_one_that_is_used_says_by_whom(control):
    bring_in(control, "gone", 1)
    with pytest.raises(ConfigErrors, match="is in use by server shop/web1, volume shop/web1"):
        control.client.delete("resources", "image", "web@1", yes="true")
    status, _, why = run_panloom(control, "image", "delete", "gone@1")
    assert (status, "say so with --yes" in why) == (1, True)
    assert run_panloom(control, "image", "delete", "gone@1", "--yes")[0] == 0
    until(lambda: files(control, "gone") == [], "its octets are gone")
    bring_in(control, "gone", 1)  # the name is free for another disk
    assert files(control, "gone") == ["gone@1"]


def test_what_nobody_needs_is_pruned_and_all_else_stays_with_a_reason(control):
    bring_in(control, "old", 1, 2, 3, 4)
    assert run_panloom(control, "image", "tag", "old@2", "stable")[0] == 0
    status, said, _ = run_panloom(control, "image", "prune", "old")
    assert (status, said.splitlines()) == (
        0,
        ["old@4 stays: the newest", "old@2 stays: tagged stable", "old@1 would go", "old@3 would go"],
    )
    assert sorted(images(control, "old")) == ["old@1", "old@2", "old@3", "old@4"]
    assert run_panloom(control, "image", "prune", "old", "--yes")[0] == 0
    until(lambda: files(control, "old") == ["old@2", "old@4"], "what nobody needs is gone")
    assert sorted(images(control, "old")) == ["old@2", "old@4"]
    assert run_panloom(control, "image", "prune", "web", "--keep", "0")[1].splitlines() == [
        "web@1 stays: in use by volume shop/web1",
        "There is nothing to destroy.",
    ]


def test_what_is_read_through_an_image_by_no_document_is_told_and_how_to_end_it(control):
    """As where the state was restored from a copy: the store has a disk and its snapshot that nobody wrote down."""
    bring_in(control, "read", 1, 2)

    async def leave_behind(client):
        await client.create_volume("shop.left", "read@1", 0)
        await client.take_snapshot("shop.left@s")

    control.storage(leave_behind)
    told = "read through by snapshot shop/left@s; first: panloom delete snapshot shop/left@s --yes"
    assert f"image read@1 is {told}" in refused(control, "read@1")
    assert f"read@1 stays: {told}" in run_panloom(control, "image", "prune", "read", "--yes")[1]
    assert run_panloom(control, "delete", "snapshot", "shop/left@s", "--yes")[0] == 0
    told = "first: write its document again, then panloom delete volume shop/left --yes"
    until(lambda: told in refused(control, "read@1"), "only the volume is left")
    control.apply("apiVersion: panloom/v1\nkind: Volume\npan: shop\nname: left\nimage: read@1\n", "left.yaml")
    assert "is in use by volume shop/left" in refused(control, "read@1")
    assert run_panloom(control, "delete", "volume", "shop/left", "--yes")[0] == 0
    until(lambda: run_panloom(control, "image", "delete", "read@1", "--yes")[0] == 0, "nothing reads it any more")
    until(lambda: files(control, "read") == ["read@2"], "its octets are gone")


def test_a_tag_moves_in_one_commit(control):
    bring_in(control, "moved", 1, 2)
    for label in ("moved@2", "moved@1"):
        before = control.client.get("status")
        assert run_panloom(control, "image", "tag", label, "stable")[0] == 0
        assert [name for name, row in images(control, "moved").items() if row["tags"] == ["stable"]] == [label]
        assert before["state"] == control.client.get("status")["state"]
    revision = control.client.get("revisions")["revisions"][-1]
    assert (revision["what"], revision["change"]) == ("image tag", 2)
    status, _, why = run_panloom(control, "image", "tag", "moved@1", "1st")
    assert status == 1
    assert "tag" in why


def test_a_removal_that_a_kill_interrupts_is_done_by_the_next_start(control):
    bring_in(control, "killed", 1)
    for place in ("destroy image", "forget image"):
        control.kill("control")
        control.start_control(**{VARIABLE: place})
        if place == "destroy image":
            run_panloom(control, "image", "delete", "killed@1", "--yes")
        control.died_by_itself("control")
    control.start_control()
    control.until_event("destroyed", text="image killed@1 is gone")
    assert files(control, "killed") == []
    bring_in(control, "killed", 1)


@pytest.fixture
def keys(control, tmp_path):
    """Two keys: release, which the platform trusts, and other."""
    made = {}
    for name in ("release", "other"):
        status, said, _ = run_panloom(control, "image", "key", str(tmp_path / f"{name}.key"))
        assert status == 0
        made[name] = said.splitlines()[0]
        assert (tmp_path / f"{name}.key").stat().st_mode & 0o777 == 0o600
    trust(control, made["release"], "allow")
    yield {name: (str(tmp_path / f"{name}.key"), public) for name, public in made.items()}
    trust(control, made["release"], "allow")


def trust(control, public, unsigned):
    policy = f"\nimages: {{unsigned: {unsigned}, keys: {{release: {public}}}}}"
    control.apply(control.platform().replace("liveness: {", f"approve: manual{policy}\nliveness: {{"), "lab.yaml")


def test_only_signed_images_become_disks_where_the_platform_says_so(control, keys):
    bring_in(control, "signed", 1)
    assert run_panloom(control, "image", "verify", "signed@1")[0] == 1
    assert run_panloom(control, "image", "sign", "signed@1", "--key", keys["other"][0])[0] == 0
    assert images(control, "signed")["signed@1"]["signed"] == "no"  # by a key that nobody trusts
    trust(control, keys["release"][1], "refuse")
    control.apply(
        "apiVersion: panloom/v1\nkind: Volume\npan: shop\nname: data\nimage: signed@1\nsize: 1MiB\n", "data.yaml"
    )
    why = until(lambda: control.client.get("resources", "volume", "shop/data")["why"], "the volume says why not")
    assert "no trusted key signed signed@1; sign it: panloom image sign signed@1 --key FILE" in why
    assert control.client.get("resources", "volume", "shop/data")["state"] == "to be made"
    status, said, _ = run_panloom(control, "image", "sign", "signed@1", "--key", keys["release"][0])
    assert (status, said.splitlines()[-1]) == (0, "signed@1 is signed by release.")
    until(lambda: control.client.get("resources", "volume", "shop/data")["state"] == "ready", "the volume is made")
    status, said, _ = run_panloom(control, "image", "verify", "signed@1")
    assert (status, said.strip().endswith("is signed by release.")) == (0, True)
    row = json.loads(run_panloom(control, "get", "images", "-o", "json")[1])
    assert {one["name"]: one["signed"] for one in row if one["name"] == "signed@1"} == {"signed@1": "release"}
    assert control.server("shop/web1")["state"].startswith("up")  # what runs goes on, whatever it is a clone of


def test_a_document_takes_nothing_back_that_it_does_not_speak_of(control, keys):
    bring_in(control, "noted", 1)
    assert run_panloom(control, "image", "tag", "noted@1", "stable")[0] == 0
    assert run_panloom(control, "image", "sign", "noted@1", "--key", keys["release"][0])[0] == 0
    source = control.directory / "noted1.img"
    silent = f"apiVersion: panloom/v1\nkind: Image\nname: noted\nversion: 1\nsource: {source}\n"

    def noted(more):
        revision = control.apply(silent + more, "noted.yaml")["revision"]
        row = images(control, "noted")["noted@1"]
        return revision > 0, row["tags"], row["signed"]

    assert noted("") == (False, ["stable"], "release")
    assert noted("tags: [tried]\n") == (True, ["tried"], "release")
    assert noted("tags: []\nsignatures: []\n") == (True, [], "no")


def test_a_signature_of_another_disk_is_one_clear_error_and_makes_no_disk(control, keys):
    bring_in(control, "forged", 1, 2)
    assert run_panloom(control, "image", "sign", "forged@1", "--key", keys["release"][0])[0] == 0
    signature = run_panloom(control, "export", "image", "forged@1")[1].split("signatures:")[1].split("- ")[1].strip()
    path = control.directory / "forged2.img"
    text = f"kind: Image\nname: forged\nversion: 2\nsource: {path}\nsignatures: ['{signature}']"
    control.apply(f"apiVersion: panloom/v1\n{text}\n", "forged.yaml")
    status, said, why = run_panloom(control, "image", "verify", "forged@2")
    assert (status, said) == (1, "")
    assert "the signature of forged@2 by key release is not of this disk (SHA-256" in why
    assert "sign it anew, or import the disk that was signed" in why
    volume = "kind: Volume\npan: shop\nname: forged\nimage: forged@2\nsize: 1MiB"
    control.apply(f"apiVersion: panloom/v1\n{volume}\n", "volume.yaml")  # unsigned ones are allowed, forged ones never
    why = until(lambda: control.client.get("resources", "volume", "shop/forged")["why"], "the volume says why not")
    assert "is not of this disk" in why
    with pytest.raises((ConfigError, ConfigErrors), match="is not of this disk"):
        body = {"signature": signature, "public_key": keys["release"][1]}
        control.client.post("images", "forged@2", "signatures", body=body)


def test_an_update_to_an_image_that_may_not_be_used_is_refused_before_it_begins(control, keys):
    path = control.directory / "web2.img"
    path.write_bytes(IMAGE + b"2")
    assert run_panloom(control, "image", "import", str(path), "web@2")[0] == 0
    trust(control, keys["release"][1], "refuse")
    status, _, why = run_panloom(control, "image", "update", "web@2")
    assert (status, "no trusted key signed web@2" in why) == (1, True)
    assert control.until_up("shop/web1", epoch=1)["image"] == "web@1"


def test_what_is_deleted_while_the_storage_process_is_away_goes_when_it_is_back_unless_it_is_read(control):
    bring_in(control, "away", 1, 2, 3, 4)

    async def leave_behind(client):
        await client.create_volume("shop.behind", "away@2", 0)

    control.storage(leave_behind)
    control.kill("storage")
    status, _, why = run_panloom(control, "image", "delete", "away@1")
    assert (status, "say so with --yes" in why) == (1, True)
    status, said, _ = run_panloom(control, "image", "prune", "away", "--keep", "3")
    assert (status, said.splitlines()[-1]) == (0, "away@1 would go")
    for label in ("away@1", "away@2"):
        assert run_panloom(control, "image", "delete", label, "--yes")[0] == 0
    assert run_panloom(control, "image", "prune", "away", "--yes")[0] == 0
    assert files(control, "away") == ["away@1", "away@2", "away@3", "away@4"]
    control.start_storage()
    until(lambda: files(control, "away") == ["away@2", "away@4"], "what nothing is read through is gone")
    why = "image away@2 is read by shop.behind; delete or flatten these first"
    control.until_event("held up", text=f"image away@2 is not destroyed yet: {why}")
