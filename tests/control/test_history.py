"""Every edit leaves a way back, in the same commit; going back touches documents only."""

import asyncio
import tempfile
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from panloom.control import history
from panloom.control.documents import Documents
from panloom.decide.plan import Mark
from panloom.errors import ConfigError, ConfigErrors, ConflictError
from panloom.model.load import File
from panloom.model.resources import WANT, Node, Server, Volume, encode
from panloom.state.sqlite import SqliteStore
from panloom.values import MacAddress
from support.plain_control import CHASSIS

WEB = (Path(__file__).parents[2] / "examples" / "web.yaml").read_text()
ONE_SERVER = WEB.replace("web[1-2]:", "web1:").replace('"10.1.0.1[1-2]"', "10.1.0.11")
LAB = File("lab.yaml", CHASSIS)
SHOP = File("web.yaml", WEB)
RECORDS = {"/record/server/shop/web1": b"epoch 7", "/record/mac": b"12", "/record/node/n1": b"shop/web1"}


def with_documents(scenario):
    async def run(directory):
        store = await SqliteStore.open(Path(directory) / "state.db")
        try:
            await scenario(Documents(store, clock=lambda: 1000.0), store)
        finally:
            await store.close()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(directory))


async def wanted(store):
    return {entry.key: entry.value for entry in (await store.range(WANT)).entries}


def marks(plan):
    return [f"{change.mark.value} {change.resource.kind} {change.resource.label}" for change in plan.changes]


def test_going_back_is_a_revision_of_its_own():
    async def scenario(documents, store):
        await documents.apply([LAB, SHOP], prune=False, who="ann")
        before = await wanted(store)
        edited = File("web.yaml", WEB.replace("within: 10s", "within: 20s"))
        await documents.apply([edited], prune=False, who="bob")
        planned = await documents.plan_rollback(None)
        assert (planned.revision, planned.last, marks(planned.plan)) == (
            1,
            2,
            ["~ server shop/web1", "~ server shop/web2"],
        )
        outcome = await documents.rollback(1, last=2, who="eve")
        assert outcome.revision == 3
        assert await wanted(store) == before
        *_, last = await documents.history.revisions()
        assert (last.number, last.who, last.what, last.to, last.change) == (3, "eve", "rollback", 1, 2)
        again = await documents.rollback(1, last=None, who="eve")
        assert (again.plan.changes, again.revision) == ((), 0)
        assert (await documents.plan([SHOP])).changes == ()

    with_documents(scenario)


def test_an_edit_and_its_way_back_are_one_commit():
    async def scenario(documents, store):
        edits = (
            lambda: documents.apply([LAB, SHOP], prune=False, who="ann"),
            lambda: documents.delete("server", "shop/web1", yes=False, who="ann"),
            lambda: documents.rollback(1, last=None, who="ann"),
        )
        for number, edit in enumerate(edits, start=1):
            await edit()
            assert (await store.range("")).revision == number
            assert (await documents.history.revision(number)).undoable

    with_documents(scenario)


def test_records_are_not_touched():
    async def scenario(documents, store):
        await documents.apply([LAB], prune=False, who="ann")
        await documents.apply([SHOP], prune=False, who="ann")
        await store.commit(put=RECORDS)
        await documents.rollback(1, last=None, who="ann")
        await documents.rollback(2, last=None, who="ann")
        for key, value in RECORDS.items():
            assert (await store.get(key)).value == value

    with_documents(scenario)


def test_a_disk_stays_and_so_does_its_image():
    async def scenario(documents, store):
        await documents.apply([File("lab.yaml", "---\n".join(CHASSIS.split("---\n")[:2]))], prune=False, who="ann")
        await documents.apply([File("image.yaml", CHASSIS.split("---\n")[2])], prune=False, who="ann")
        await documents.apply([SHOP], prune=False, who="ann")
        disks = {key: value for key, value in (await wanted(store)).items() if key.startswith("/want/volume/")}
        planned = await documents.plan_rollback(1)
        assert planned.kept == ("image web@1", "volume shop/web1", "volume shop/web2")
        await documents.rollback(1, last=None, who="ann")
        left = await wanted(store)
        assert left.items() >= disks.items()
        assert "/want/image/web@1" in left
        assert "/want/server/shop/web1" not in left
        back = await documents.rollback(3, last=None, who="ann")
        assert "+ server shop/web1" in marks(back.plan)
        assert not any("volume" in line for line in marks(back.plan))

    with_documents(scenario)


def test_a_disk_that_was_destroyed_comes_back_empty_and_that_is_said():
    async def scenario(documents, store):
        await documents.apply([LAB, SHOP], prune=False, who="ann")
        await documents.delete("server", "shop/web2", yes=False, who="ann")
        await documents.delete("volume", "shop/web2", yes=True, who="ann")
        planned = await documents.plan_rollback(1)
        assert planned.cloned_anew == ("shop/web2",)
        assert marks(planned.plan) == ["+ server shop/web2", "+ volume shop/web2"]

    with_documents(scenario)


def test_a_server_goes_back_beside_the_disk_that_it_has():
    async def scenario(documents, store):
        await documents.apply([LAB, SHOP], prune=False, who="ann")
        small = await documents.resources("server")
        for one in ("web1", "web2"):
            await documents.delete("server", f"shop/{one}", yes=False, who="ann")
            await documents.delete("volume", f"shop/{one}", yes=True, who="ann")
        grown = File("web.yaml", WEB.replace("512MiB", "1GiB").replace("within: 10s", "within: 20s"))
        await documents.apply([grown], prune=False, who="ann")
        await documents.rollback(1, last=None, who="ann")
        server, _ = await documents.resources("server")
        assert isinstance(server, Server)
        assert server.disk.size_octets == 1 << 30
        assert server == small[0].model_copy(update={"disk": server.disk})
        disk, _ = await documents.resources("volume")
        assert isinstance(disk, Volume)
        assert disk.size_octets == 1 << 30

    with_documents(scenario)


def test_what_has_changed_since_the_plan_was_shown_is_refused():
    async def scenario(documents, store):
        await documents.apply([LAB], prune=False, who="ann")
        await documents.apply([SHOP], prune=False, who="ann")
        planned = await documents.plan_rollback(1)
        await documents.apply([File("x.yaml", "apiVersion: panloom/v1\nkind: PAN\nname: x\n")], prune=False, who="bob")
        before = await store.range("")
        with pytest.raises(ConflictError, match="revision 3 came meanwhile"):
            await documents.rollback(1, last=planned.last, who="ann")
        assert await store.range("") == before

    with_documents(scenario)


def test_what_was_removed_comes_back_as_from_its_file():
    async def scenario(documents, store):
        await documents.apply([LAB, SHOP], prune=False, who="ann")
        await documents.apply([File("web.yaml", ONE_SERVER)], prune=True, who="ann")
        await documents.rollback(1, last=None, who="ann")
        plan = await documents.plan([File("web.yaml", ONE_SERVER.replace("kind: PAN", "kind: PAN"))])
        assert [(change.mark, change.resource.label) for change in plan.changes] == [(Mark.REMOVE, "shop/web2")]
        assert (await store.get("/record/origin/server/shop/web2")).value == b"web.yaml"

    with_documents(scenario)


def test_a_machine_that_was_taken_in_is_a_revision_too():
    async def scenario(documents, store):
        await documents.apply([LAB], prune=False, who="ann")
        node = Node(name="n-9", mac=MacAddress(0x525400000009), address="10.0.0.99", port="port9", memory_octets=0)
        assert (await documents.take_in(node, None, who="bob")).revision == 2
        for same in ({}, {"name": "n-8"}, {"name": "n-8", "address": IPv4Address("10.0.0.98")}):
            with pytest.raises(ConflictError, match="a node n-9 already"):
                await documents.take_in(node.model_copy(update=same), None, who="bob")
        *_, last = await documents.history.revisions()
        assert (last.who, last.what, last.changes) == ("bob", "approve", ("+ node n-9",))
        await documents.rollback(1, last=None, who="ann")
        assert node.key not in await wanted(store)

    with_documents(scenario)


def test_what_no_longer_fits_together_is_refused_whole():
    async def scenario(documents, store):
        await documents.apply([LAB, SHOP], prune=False, who="ann")
        await documents.apply([File("two.yaml", CHASSIS.split("---\n")[2] + "version: 2\n")], prune=False, who="ann")
        server = "apiVersion: panloom/v1\nkind: Server\npan: shop\nname: new\nimage: web@2\n"
        await documents.apply([File("new.yaml", server)], prune=False, who="ann")
        await store.commit(put={"/want/server/shop/odd": encode(Server(pan="shop", name="odd", image="web@2"))})
        await documents.delete("server", "shop/new", yes=False, who="ann")
        await documents.delete("volume", "shop/new", yes=True, who="ann")
        before = await store.range("")
        with pytest.raises(ConfigErrors, match=r"revision 1: server shop/odd \(applied earlier\): image: "):
            await documents.rollback(1, last=None, who="ann")
        assert await store.range("") == before

    with_documents(scenario)


def test_revisions_that_are_not_remembered(monkeypatch):
    monkeypatch.setattr("panloom.control.history.KEPT_REVISIONS", 3)

    async def scenario(documents, store):
        with pytest.raises(ConfigError, match="nothing was applied yet"):
            await documents.plan_rollback(None)
        for number in range(6):
            pan = f"apiVersion: panloom/v1\nkind: PAN\nname: p{number}\n"
            await documents.apply([File(f"{number}.yaml", pan)], prune=False, who="ann")
        kept = {entry.key.split("/")[3] for entry in (await store.range(history.REPLACED)).entries}
        assert kept == {"00000004", "00000005", "00000006"}
        await documents.plan_rollback(3)
        for number, why in ((2, "revision 2: is too long ago"), (7, "the last is 6"), (-1, "the last is 6")):
            with pytest.raises(ConfigError, match=why):
                await documents.plan_rollback(number)
        with pytest.raises(ConfigError, match="is not remembered"):
            await documents.history.revision(3)
        assert (await documents.history.revision(4)).changes == ("+ pan p3",)

    with_documents(scenario)


def test_a_revision_of_an_older_panloom_is_shown_and_no_way_back():
    async def scenario(documents, store):
        await documents.apply([LAB], prune=False, who="ann")
        old = b'{"number":1,"who":"ann","at":1.0,"what":"apply","files":["lab.yaml"],"changes":["+ platform lab"]}'
        await store.commit(put={"/record/revision/00000001": old})
        await documents.apply([SHOP], prune=False, who="ann")
        assert [one.number for one in await documents.history.revisions()] == [1, 2]
        await documents.plan_rollback(1)
        with pytest.raises(ConfigError, match="what revision 1 replaced is forgotten"):
            await documents.plan_rollback(0)

    with_documents(scenario)


def test_what_lies_between_two_revisions():
    async def scenario(documents, store):
        await documents.apply([LAB], prune=False, who="ann")
        await documents.apply([SHOP], prune=False, who="ann")
        await documents.apply([File("web.yaml", WEB.replace("within: 10s", "within: 20s"))], prune=False, who="ann")
        assert marks(await documents.between(1, 2))[:2] == ["+ pan shop", "+ lan shop/front"]
        (field,) = (await documents.between(2, None)).changes[0].fields
        assert (field.path, field.old, field.new) == ("failover.within", "10 s", "20 s")
        assert [mark[0] for mark in marks(await documents.between(2, 1))] == ["-"] * 6
        assert (await documents.between(3, None)).changes == ()

    with_documents(scenario)


def test_what_is_exported_applies_to_no_changes():
    async def scenario(documents, store):
        examples = Path(__file__).parents[2] / "examples"
        await documents.apply([File("p.yaml", (examples / "platform.yaml").read_text()), SHOP], prune=False, who="ann")
        exported = await documents.export("", "", None)
        text = yaml.safe_dump_all(exported.documents, sort_keys=False)
        plan = await documents.plan([File("all.yaml", text)])
        assert plan.changes == ()
        for kind in ("server", "node", "image", "pan", "lan", "platform"):
            exported = await documents.export(kind, "", None)
            assert exported.documents
            assert exported.left_out == ()
            plan = await documents.plan([File("some.yaml", yaml.safe_dump_all(exported.documents))])
            assert plan.changes == ()
        with pytest.raises(ConfigError, match="did you mean `shop/web2`"):
            await documents.export("server", "shop/web3", None)
        with pytest.raises(ConfigError, match="the last is 1"):
            await documents.export("", "", 9)

    with_documents(scenario)


servers = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(["5s", "10s"]), max_size=3)
steps = st.tuples(st.sampled_from(["apply", "prune", "delete", "rollback"]), servers, st.integers(0, 5))


@settings(max_examples=25, deadline=None)
@given(st.lists(steps, min_size=1, max_size=6))
def test_after_any_row_of_edits_each_revision_is_as_it_was(rows):
    async def scenario(documents, store):
        await documents.apply([LAB], prune=False, who="ann")
        seen = {0: {}, 1: await wanted(store)}
        for what, asked, number in rows:
            last = max(seen)
            if what == "rollback":
                await documents.rollback(min(number, last), last=last, who="ann")
            elif what == "delete" and (found := await documents.resources("server")):
                await documents.delete("server", found[number % len(found)].label, yes=False, who="ann")
            else:
                text = "apiVersion: panloom/v1\nkind: PAN\nname: p\nservers:\n"
                text += "".join(f"  {name}: {{image: web, failover: {{within: {s}}}}}\n" for name, s in asked.items())
                await documents.apply([LAB, File("p.yaml", text)], prune=what == "prune", who="ann")
            revisions = await documents.history.revisions()
            if revisions[-1].number > last:
                seen[last + 1] = await wanted(store)
        assert [one.number for one in await documents.history.revisions()] == list(range(1, max(seen) + 1))
        stored = await history.Stored.read(store)
        for number, then in seen.items():
            found = (await documents.history.after(number, stored)).resources
            assert {key: encode(resource) for key, resource in found.items()} == then

    with_documents(scenario)
