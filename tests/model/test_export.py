"""What is exported loads as what it was, whatever it was."""

from pathlib import Path

import yaml
from hypothesis import given
from hypothesis import strategies as st

from panloom.model import export
from panloom.model.load import File, load
from panloom.model.resources import Node, Server, Volume
from panloom.model.sources import Findings
from panloom.values import MacAddress
from support.plain_control import CHASSIS
from support.resource_strategies import sets

EXAMPLES = Path(__file__).parents[2] / "examples"
WEB = (EXAMPLES / "web.yaml").read_text()


def read(*texts):
    findings = Findings()
    loaded = load([File(f"{number}.yaml", text) for number, text in enumerate(texts)], findings)
    assert findings.errors() == ()
    return loaded.resources


def text(documents):
    return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True)


@given(sets())
def test_load_undoes_export(resources):
    exported = export.whole(resources)
    assert exported.left_out == ()
    if exported.documents:
        assert read(text(exported.documents)) == resources


@given(sets(), st.data())
def test_load_undoes_the_export_of_one(resources, data):
    if resources:
        one = resources[data.draw(st.sampled_from(sorted(resources)))]
        (document,) = export.some([one], resources).documents
        assert read(text([document]))[one.key] == one


def test_the_examples_come_back_as_people_write_them():
    resources = read(CHASSIS, WEB)
    *_, pan = export.whole(resources).documents
    server = {
        "image": "web",
        "disk": {"size": "512MiB"},
        "nics": [{"lan": "front", "address": "10.1.0.11"}],
        "needs": {"memory": ">= 128MiB"},
    }
    assert pan == {
        "apiVersion": "panloom/v1",
        "kind": "PAN",
        "name": "shop",
        "lans": {"front": {"subnet": "10.1.0.0/24"}},
        "servers": {"web1": server, "web2": {**server, "nics": [{"lan": "front", "address": "10.1.0.12"}]}},
    }
    platform = (EXAMPLES / "platform.yaml").read_text()
    assert read(text(export.whole(read(platform)).documents)) == read(platform)


def test_a_server_stands_alone_and_a_pan_never_does():
    resources = read(CHASSIS, WEB)
    (server,) = export.some([resources["/want/server/shop/web1"]], resources).documents
    assert (server["kind"], server["pan"], server["name"]) == ("Server", "shop", "web1")
    (pan,) = export.some([resources["/want/pan/shop"]], resources).documents
    assert list(pan["servers"]) == ["web1", "web2"]


def test_a_servers_own_disk_is_said_by_the_server():
    resources = read(CHASSIS, WEB)
    disk = Volume(pan="shop", name="web1", image="web@1", size_octets=512 << 20)
    resources[disk.key] = disk
    assert export.whole(resources) == export.whole(read(CHASSIS, WEB))
    (left_out,) = export.some([disk], resources).left_out
    assert "it is the disk of server shop/web1" in left_out.why


def test_what_no_document_can_say_is_left_out_and_named():
    adopted = Node(name="n-1", mac=MacAddress(0x525400000009), address="10.0.0.9", port="", memory_octets=0)
    orphan = Volume(pan="gone", name="old", image="web@1")
    exported = export.whole({one.key: one for one in (adopted, orphan)})
    assert exported.documents == ()
    assert [(one.resource.label, one.why) for one in exported.left_out] == [
        ("n-1", "it was taken in without a port; write a document that names one"),
        ("gone/old", "PAN gone is not described any more"),
    ]


def test_web2_comes_before_web10():
    servers = [Server(pan="p", name=f"web{number}", image="web") for number in (10, 9, 1)]
    found = export.some(servers, {"/want/pan/p": servers[0]} | {server.key: server for server in servers}).documents
    assert [document["name"] for document in found] == ["web1", "web9", "web10"]
