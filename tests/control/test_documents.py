"""An apply is all or nothing, changes nothing when repeated, and never mixes with another."""

import asyncio
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panloom.control.documents import Documents, Edit
from panloom.control.history import LAST_REVISION
from panloom.control.world import IMAGES
from panloom.decide.images import tagged
from panloom.decide.plan import Mark, Preview
from panloom.decide.records import ImageRecord
from panloom.errors import ConfigError, ConfigErrors, PanloomError
from panloom.model.load import File
from panloom.model.resources import WANT, Image, Node, Server
from panloom.state.contract import Snapshot, Store
from panloom.state.sqlite import SqliteStore
from panloom.values import MacAddress
from support.plain_control import CHASSIS

WEB = (Path(__file__).parents[2] / "examples" / "web.yaml").read_text()
ONE_SERVER = WEB.replace("web[1-2]:", "web1:").replace('"10.1.0.1[1-2]"', "10.1.0.11")
LAB = File("lab.yaml", CHASSIS)
SHOP = File("web.yaml", WEB)


def with_documents(scenario: Callable[[Documents, Store], Awaitable[None]]) -> None:
    async def run(directory: str) -> None:
        store = await SqliteStore.open(Path(directory) / "state.db")
        try:
            await scenario(Documents(store, clock=lambda: 1000.0), store)
        finally:
            await store.close()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(directory))


async def web_is_imported() -> set[str]:
    return {"web@1"}


async def wanted(store: Store) -> Snapshot:
    return await store.range(WANT)


async def keys(store: Store) -> set[str]:
    return {entry.key.removeprefix(WANT) for entry in (await wanted(store)).entries}


def test_applying_the_same_files_again_changes_nothing():
    async def scenario(documents: Documents, store: Store) -> None:
        await documents.apply([LAB], prune=False, who="ann")
        outcome = await documents.apply([SHOP], prune=False, who="bob")
        assert outcome.revision == 2
        before = await store.range("")
        assert (await documents.plan([SHOP])).changes == ()
        again = await documents.apply([SHOP], prune=True, who="bob")
        assert (again.plan.changes, again.revision) == ((), 0)
        assert await store.range("") == before

    with_documents(scenario)


def test_documents_are_read_and_compared_where_they_hold_nothing_up():
    """One line may stand for thousands of servers; leases and fences are not to wait until it is understood."""
    where = []

    class Files(list[File]):
        def __iter__(self) -> Iterator[File]:
            where.append(threading.current_thread())
            return super().__iter__()

    def preview(_wanted: object, _servers: object) -> dict[str, str]:
        where.append(threading.current_thread())
        return {}

    async def previewed() -> Preview:
        return preview

    async def scenario(_documents: Documents, store: Store) -> None:
        await Documents(store, preview=previewed).plan(Files([LAB, SHOP]))
        assert len(where) == 2
        assert threading.current_thread() not in where

    with_documents(scenario)


def test_an_image_that_was_copied_in_keeps_its_source():
    async def scenario(documents: Documents, store: Store) -> None:
        await documents.apply([LAB], prune=False, who="ann")
        other = File("lab.yaml", CHASSIS.replace("/web.img", "/other.img"))
        await documents.apply([other], prune=False, who="ann")  # nothing was there: a mistake may be put right
        imported = Documents(store, imported=web_is_imported)
        with pytest.raises(ConfigErrors) as refused:
            await imported.plan([LAB])
        fixed = "web@1 was copied in from /srv/other.img and stays what it is"
        mend = "write that again, or the other as a new version: 2"
        assert [str(error) for error in refused.value.errors] == [f"lab.yaml:18:9: source: {fixed}; {mend}"]
        with pytest.raises(ConfigErrors) as refused:
            await imported.plan_rollback(1)
        assert [str(error) for error in refused.value.errors] == [f"revision 1: {fixed}; {mend}"]
        assert (await imported.plan([other])).changes == ()

    with_documents(scenario)


def test_an_image_whose_document_was_left_out_comes_back_as_the_same_disk_only():
    async def scenario(documents: Documents, store: Store) -> None:
        await documents.apply([LAB], prune=False, who="ann")
        record = ImageRecord("/srv/web.img", "raw", 0.0)
        await store.commit(expect={}, put={IMAGES + "web@1": msgspec.json.encode(record)})
        imported = Documents(store, imported=web_is_imported)
        kept, _, image = CHASSIS.rpartition("---\n")
        assert "kind: Image" in image
        await imported.apply([File("lab.yaml", kept)], prune=True, who="ann")
        assert f"{WANT}image/web@1" not in {entry.key for entry in (await wanted(store)).entries}
        with pytest.raises(ConfigErrors) as refused:
            await imported.plan([File("lab.yaml", CHASSIS.replace("/web.img", "/other.img"))])
        assert "web@1 was copied in from /srv/web.img and stays what it is" in str(refused.value.errors[0])
        assert [change.mark for change in (await imported.plan([LAB])).changes] == [Mark.ADD]

    with_documents(scenario)


def test_a_lan_may_not_overlap_one_that_was_applied_earlier():
    async def scenario(documents: Documents, store: Store) -> None:
        await documents.apply([LAB, SHOP], prune=False, who="ann")
        mail = "apiVersion: panloom/v1\nkind: PAN\nname: mail\nlans: {front: {subnet: 10.1.0.0/16}}\n"
        with pytest.raises(ConfigErrors) as refused:
            await documents.apply([File("mail.yaml", mail)], prune=False, who="ann")
        overlap = "10.1.0.0/16 overlaps lan shop/front (10.1.0.0/24), and LANs share one network; take another"
        assert [str(error) for error in refused.value.errors] == [f"mail.yaml:4:24: lans.front.subnet: {overlap}"]
        await documents.apply([File("mail.yaml", mail.replace("10.1.0.0/16", "10.1.1.0/24"))], prune=False, who="ann")

    with_documents(scenario)


def test_who_applied_what_and_when_is_kept():
    async def scenario(documents: Documents, store: Store) -> None:
        await documents.apply([LAB], prune=False, who="ann")
        await documents.apply([SHOP], prune=False, who="bob")
        await documents.delete("server", "shop/web2", yes=False, who="eve")
        revisions = await documents.history.revisions()
        assert [(one.number, one.who, one.at, one.what, one.files) for one in revisions] == [
            (1, "ann", 1000.0, "apply", ("lab.yaml",)),
            (2, "bob", 1000.0, "apply", ("web.yaml",)),
            (3, "eve", 1000.0, "delete", ()),
        ]
        assert "+ server shop/web1" in revisions[1].changes
        assert revisions[2].changes == ("- server shop/web2",)

    with_documents(scenario)


def test_cap_228_a_bad_file_is_refused_with_its_line_and_the_old_state_kept():
    async def scenario(documents: Documents, store: Store) -> None:
        await documents.apply([LAB, SHOP], prune=False, who="ann")
        before = await store.range("")
        bad = File("web.yaml", WEB.replace("10.1.0.1[1-2]", "10.2.0.1[1-2]"))
        good = File("more.yaml", "apiVersion: panloom/v1\nkind: PAN\nname: more\n")
        line = 1 + bad.text[: bad.text.index("10.2.0.1")].count("\n")
        for call in (documents.plan([good, bad]), documents.apply([good, bad], prune=True, who="ann")):
            with pytest.raises(ConfigErrors) as caught:
                await call
            assert [error.where.split(":")[:2] for error in caught.value.errors] == [["web.yaml", str(line)]] * 2
        assert await store.range("") == before

    with_documents(scenario)


def test_cap_228_an_edited_file_changes_what_is_wanted():
    async def scenario(documents: Documents, store: Store) -> None:
        await documents.apply([LAB, SHOP], prune=False, who="ann")
        edited = File("lab.yaml", CHASSIS.replace("address: 10.0.0.1[1-3]", "address: 10.0.0.2[1-3]"))
        outcome = await documents.apply([edited], prune=False, who="ann")
        assert [change.key for change in outcome.plan.changes] == [f"/want/node/n{number}" for number in (1, 2, 3)]
        (node, *_) = await documents.resources("node")
        assert str(node.address) == "10.0.0.21"

    with_documents(scenario)


def test_a_tag_that_a_document_has_goes_from_the_version_that_had_it():
    def image(version: int, more: str = "") -> File:
        text = f"apiVersion: panloom/v1\nkind: Image\nname: db\nversion: {version}\nsource: /srv/db{version}.img\n"
        return File(f"db{version}.yaml", text + more)

    async def tags(documents: Documents) -> dict[int, tuple[str, ...]]:
        return {one.version: one.tags for one in await documents.resources("image") if isinstance(one, Image)}

    async def scenario(documents: Documents, _store: Store) -> None:
        await documents.apply([image(1), image(2)], prune=False, who="ann")

        async def tag(label: str) -> None:
            await documents.edit(lambda stored: Edit(tagged(label, ["stable"], stored)), what="image tag", who="ann")

        claims, silent = image(1, "tags: [stable]\n"), image(2)
        for files in ([claims], [claims, silent], [silent, claims]):
            await tag("db@2")
            assert await tags(documents) == {1: (), 2: ("stable",)}
            assert {change.key for change in (await documents.plan(files)).changes} == {
                "/want/image/db@1",
                "/want/image/db@2",
            }
            await documents.apply(files, prune=False, who="ann")
            assert await tags(documents) == {1: ("stable",), 2: ()}
            assert (await documents.apply(files, prune=False, who="ann")).revision == 0

    with_documents(scenario)


def test_what_a_file_no_longer_names_goes_only_when_pruned_and_its_disk_never():
    async def scenario(documents: Documents, store: Store) -> None:
        await documents.apply([LAB, SHOP], prune=False, who="ann")
        smaller = File("web.yaml", ONE_SERVER)
        plan = await documents.plan([smaller])
        assert [(change.mark, change.key) for change in plan.changes] == [(Mark.REMOVE, "/want/server/shop/web2")]
        assert (await documents.apply([smaller], prune=False, who="ann")).plan.changes == ()
        assert "server/shop/web2" in await keys(store)
        await documents.apply([smaller], prune=True, who="ann")
        left = await keys(store)
        assert "server/shop/web2" not in left
        assert "volume/shop/web2" in left
        assert "node/n3" in left
        assert (await documents.plan([smaller])).changes == ()
        back = await documents.apply([SHOP], prune=False, who="ann")
        assert [change.key for change in back.plan.changes] == ["/want/server/shop/web2"]

    with_documents(scenario)


def test_a_resource_that_moved_to_another_file_is_not_lost_with_the_old_one():
    async def scenario(documents: Documents, store: Store) -> None:
        first, second, third = CHASSIS.split("---\n")
        await documents.apply([LAB], prune=False, who="ann")
        moved = await documents.apply([File("image.yaml", third)], prune=True, who="ann")
        assert moved.plan.changes == ()
        await documents.apply([File("lab.yaml", f"{first}---\n{second}")], prune=True, who="ann")
        assert "image/web@1" in await keys(store)
        await documents.apply([File("lab.yaml", first)], prune=True, who="ann")
        assert await keys(store) == {"platform", "image/web@1"}

    with_documents(scenario)


def test_what_a_rule_made_of_a_new_machine_stays_until_a_file_has_named_it_and_does_so_no_longer():
    async def scenario(documents: Documents, store: Store) -> None:
        await documents.apply([LAB, SHOP], prune=False, who="ann")
        node = Node(
            name="n-112233",
            mac=MacAddress.parse("aa:aa:aa:11:22:33"),
            address=IPv4Address("10.0.0.99"),
            port="",
            memory_octets=1 << 30,
        )
        server = Server(pan="shop", name="web-112233", image="web", node=node.name)
        await documents.take_in(node, server, who="panloom")
        taken_in = await wanted(store)
        assert (await documents.plan([SHOP])).changes == ()
        await documents.apply([LAB, SHOP], prune=True, who="ann")
        assert (await wanted(store)).entries == taken_in.entries
        named = File("web.yaml", f"{WEB}\n  web-112233: {{image: web, node: n-112233}}\n")
        await documents.apply([named], prune=False, who="ann")
        removed = [change.key for change in (await documents.plan([SHOP])).changes]
        assert removed == ["/want/server/shop/web-112233"]

    with_documents(scenario)


def test_pruning_what_others_use_is_refused_whole():
    async def scenario(documents: Documents, store: Store) -> None:
        await documents.apply([LAB, SHOP], prune=False, who="ann")
        without_image = File("lab.yaml", "---\n".join(CHASSIS.split("---\n")[:2]))
        before = await wanted(store)
        with pytest.raises(ConfigErrors, match=r"server shop/web1 \(applied earlier\): image: there is no image 'web'"):
            await documents.apply([without_image], prune=True, who="ann")
        assert await wanted(store) == before

    with_documents(scenario)


def test_a_newer_image_leaves_disks_that_exist_alone():
    async def scenario(documents: Documents, store: Store) -> None:
        await documents.apply([LAB, File("web.yaml", ONE_SERVER)], prune=False, who="ann")
        await documents.apply([File("v2.yaml", CHASSIS.split("---\n")[2] + "version: 2\n")], prune=False, who="ann")
        await documents.apply([SHOP], prune=False, who="ann")
        images = {volume.label: volume.image for volume in await documents.resources("volume")}
        assert images == {"shop/web1": "web@1", "shop/web2": "web@2"}
        with pytest.raises(ConfigErrors, match=r"web.yaml:\d+:\d+: servers.web\[1-2\].image: .* clone of web@1"):
            await documents.plan([File("web.yaml", WEB.replace("image: web ", "image: web@2"))])

    with_documents(scenario)


def test_two_at_once_never_mix():
    async def scenario(documents: Documents, store: Store) -> None:
        await documents.apply([LAB], prune=False, who="ann")
        address = '"10.1.0.1[1-2]"'
        texts = [WEB.replace(address, f'"10.1.0.{tens}[1-2]"') for tens in (2, 3, 4)]
        edits = (documents.apply([File("web.yaml", text)], prune=False, who="x") for text in texts)
        outcomes = await asyncio.gather(*edits)
        assert sorted(outcome.revision for outcome in outcomes) == [2, 3, 4]
        addresses = {str(server.nics[0].address)[:-1] for server in await documents.resources("server")}
        assert len(addresses) == 1

    with_documents(scenario)


@pytest.mark.parametrize(
    ("kind", "label", "words"),
    [
        ("volume", "shop/web1", "server shop/web1 uses it"),
        ("volume", "shop/web9", "none of that name"),
        ("server", "shop/web3", "did you mean `shop/web2`"),
        ("image", "web@1", "image web@1: is in use by server shop/web1, server shop/web2, volume shop/web1, "),
        ("lan", "shop/front", "is in use by server shop/web1, server shop/web2; change or delete that first"),
        ("pan", "shop", "is in use by lan shop/front, "),
        ("platform", "lab", "3 nodes stand on it"),
        ("frob", "x", "none of that name"),
    ],
)
def test_what_is_in_use_or_unknown_is_not_deleted(kind, label, words):
    async def scenario(documents: Documents, store: Store) -> None:
        await documents.apply([LAB, SHOP], prune=False, who="ann")
        before = await store.range("")
        with pytest.raises(PanloomError) as caught:
            await documents.delete(kind, label, yes=True, who="ann")
        assert words in str(caught.value)
        assert await store.range("") == before

    with_documents(scenario)


def test_a_volume_goes_only_on_its_own_and_with_a_yes():
    async def scenario(documents: Documents, store: Store) -> None:
        await documents.apply([LAB, SHOP], prune=False, who="ann")
        await documents.delete("server", "shop/web2", yes=False, who="ann")
        with pytest.raises(ConfigError, match="say so with --yes"):
            await documents.delete("volume", "shop/web2", yes=False, who="ann")
        assert "volume/shop/web2" in await keys(store)
        await documents.delete("volume", "shop/web2", yes=True, who="ann")
        assert "volume/shop/web2" not in await keys(store)

    with_documents(scenario)


def test_old_revisions_are_forgotten(monkeypatch):
    monkeypatch.setattr("panloom.control.history.KEPT_REVISIONS", 2)

    async def scenario(documents: Documents, store: Store) -> None:
        for number in range(5):
            pan = f"apiVersion: panloom/v1\nkind: PAN\nname: p{number}\n"
            await documents.apply([File(f"{number}.yaml", pan)], prune=False, who="ann")
        assert [one.number for one in await documents.history.revisions()] == [4, 5]
        last = await store.get(LAST_REVISION)
        assert last is not None
        assert last.value == b"5"

    with_documents(scenario)


servers = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(10, 12), max_size=3)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(servers, st.booleans()), min_size=1, max_size=6))
def test_any_row_of_applies_ends_as_the_files_say(steps):
    async def scenario(documents: Documents, store: Store) -> None:
        await documents.apply([LAB], prune=False, who="ann")
        model: dict[str, int] = {}
        disks: set[str] = set()
        for asked, prune in steps:
            text = "apiVersion: panloom/v1\nkind: PAN\nname: p\nlans: {f: {subnet: 10.1.0.0/24}}\nservers:\n"
            for name, host in asked.items():
                text += f"  {name}: {{image: web, nics: [{{lan: f, address: 10.1.0.{host}}}]}}\n"
            after = asked if prune else {**model, **asked}
            if len(set(after.values())) < len(after):
                with pytest.raises(ConfigErrors, match="taken"):
                    await documents.apply([File("p.yaml", text)], prune=prune, who="ann")
                continue
            await documents.apply([File("p.yaml", text)], prune=prune, who="ann")
            model = after
            disks |= asked.keys()
            found = {server.name: str(server.nics[0].address) for server in await documents.resources("server")}
            assert found == {name: f"10.1.0.{host}" for name, host in model.items()}
            assert {volume.name for volume in await documents.resources("volume")} == disks

    with_documents(scenario)
