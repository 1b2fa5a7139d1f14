"""Any files load, or give findings with a place each; never another exception."""

import string
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panloom.decide.cloud_init import KEYS_OCTETS
from panloom.errors import ConfigErrors
from panloom.model.check import PING_SECONDS, check
from panloom.model.fields import MAX_SSH_KEYS_OCTETS
from panloom.model.load import File, Loaded, load
from panloom.model.resources import KINDS, Server, decode, encode
from panloom.model.sources import Findings
from panloom.storage import iscsi_connection
from panloom.values import MacAddress
from support.identities import KEY
from support.plain_control import CHASSIS

EXAMPLES = Path(__file__).parents[2] / "examples"


def read(*texts: str, names: tuple[str, ...] = ("a.yaml", "b.yaml")) -> tuple[Loaded, list[str]]:
    findings = Findings()
    loaded = load([File(name, text) for name, text in zip(names, texts, strict=False)], findings)
    check(loaded.resources, loaded, findings)
    return loaded, [str(error) for error in findings.errors()]


def clean(*texts: str) -> Loaded:
    loaded, errors = read(*texts)
    assert errors == []
    return loaded


def document(kind: str, body: str, name: str = "x") -> str:
    return f"apiVersion: panloom/v1\nkind: {kind}\nname: {name}\n{body}"


PAN = document("PAN", "lans:\n  front: {subnet: 10.1.0.0/24}\nservers:\n  web[1-2]:\n    image: web\n", "shop")


def pan(server: str) -> str:
    """Return the PAN with more lines for its servers, the first of them line 9."""
    return PAN + "".join(f"    {line}\n" for line in server.splitlines())


def test_the_example_becomes_flat_resources():
    loaded = clean(CHASSIS, (EXAMPLES / "web.yaml").read_text())
    assert set(loaded.resources) == {
        "/want/platform",
        *(f"/want/node/n{number}" for number in (1, 2, 3)),
        "/want/image/web@1",
        "/want/pan/shop",
        "/want/lan/shop/front",
        "/want/server/shop/web1",
        "/want/server/shop/web2",
    }
    web2 = loaded.resources["/want/server/shop/web2"]
    assert isinstance(web2, Server)
    assert web2.nics[0].address == IPv4Address("10.1.0.12")
    assert (web2.image, web2.needs.memory_octets, web2.disk.size_octets) == ("web", 128 << 20, 512 << 20)
    assert (web2.failover.within_seconds, web2.failover.fence) == (10.0, "storage+port")


def test_the_administrators_example_is_clean():
    loaded = clean((EXAMPLES / "platform.yaml").read_text())
    assert {resource.kind for resource in loaded.resources.values()} == set(KINDS)


def test_resources_survive_the_store():
    for key, resource in clean(CHASSIS, PAN, (EXAMPLES / "platform.yaml").read_text()).resources.items():
        assert decode(key, encode(resource)) == resource


def test_words_are_read_as_people_mean_them():
    loaded = clean(
        CHASSIS
        + "---\n"
        + document("Node", "mac: 52:54:00:12:34:56\naddress: 10.0.0.99\nport: eth9\nmemory: 1024MiB\n", "no")
        + "---\n"
        + pan("failover: no\ndisk:\n")
    )
    node = loaded.resources["/want/node/no"]
    assert (node.mac, node.memory_octets) == (MacAddress.parse("52:54:00:12:34:56"), 1 << 30)
    assert not loaded.resources["/want/server/shop/web1"].failover.enabled


def test_a_control_serial_may_be_hexadecimal_or_octal():
    for text, number in (("0x504c", 0x504C), ("0o17", 15), ("12", 12)):
        body = f"control: {{serial: {text}}}\nstorage: {{interface: e, address: 10.0.0.1, subnet: 10.0.0.0/24}}\n"
        assert clean(document("Platform", body)).resources["/want/platform"].control.serial == number


def test_members_may_be_documents_of_their_own():
    nested = clean(CHASSIS, pan("nics: [{lan: front, address: '10.1.0.1[1-2]'}]")).resources
    flat = clean(
        CHASSIS,
        "\n---\n".join(
            (
                document("PAN", "", "shop"),
                document("VirtualLan", "pan: shop\nsubnet: 10.1.0.0/24", "front"),
                document("Server", "pan: shop\nimage: web\nnics: [{lan: front, address: '10.1.0.1[1-2]'}]", "web[1-2]"),
            )
        ),
    ).resources
    assert flat == nested


def catalogue() -> Iterator[tuple[str, str, list[str]]]:
    """Yield kind, text and expected errors of each case of ``mistakes.txt``."""
    for case in (Path(__file__).parent / "mistakes.txt").read_text().split("\n== ")[1:]:
        title, _, rest = case.partition("\n")
        lines = rest.rstrip("\n").split("\n")
        text = "".join(f"{line}\n" for line in lines if not line.startswith("!! "))
        yield title, text, [line.replace("!! ", "a.yaml:", 1) for line in lines if line.startswith("!! ")]


@pytest.mark.parametrize(("title", "text", "errors"), list(catalogue()))
def test_the_catalogue_of_mistakes(title, text, errors):
    assert errors
    assert read(*((pan(text), CHASSIS) if title == "in a server" else (text,)))[1] == errors


def test_clashes_between_documents_name_both():
    node = "mac: 52:54:00:00:00:01\naddress: 10.0.0.11\nport: port1\nmemory: 1GiB\n"
    _, errors = read(CHASSIS, document("Node", node, "n9"))
    assert errors == [
        "b.yaml:4:6: mac: 52:54:00:00:00:01 is taken by node n1 (a.yaml:10:6)",
        "b.yaml:5:10: address: 10.0.0.11 is taken by node n1 (a.yaml:11:10)",
        "b.yaml:6:7: port: port1 is taken by node n1 (a.yaml:12:7)",
    ]


def test_the_same_resource_twice_names_both_places():
    _, errors = read(CHASSIS + "---\n" + PAN, document("PAN", "", "shop"))
    assert errors == ["b.yaml:3:7: name: pan shop stands here again, first at a.yaml:20:1"]


def test_platform_and_nodes_are_held_together():
    storage = "storage: {interface: e, address: 10.0.0.1, subnet: 10.0.0.0/24, discovery: 10.0.0.1-10.0.0.50}\n"
    liveness = "liveness: {interval: 2s, timeout: 1s}\n"
    node = "mac: 01:00:5e:00:00:01\naddress: 10.0.0.20\nport: p\nmemory: 1GiB\n"
    _, errors = read(document("Platform", storage + liveness) + "---\n" + document("Node", node))
    assert [error.partition(": ")[2].partition(": ")[0] for error in errors] == [
        "storage.discovery",
        "liveness.timeout",
        "mac",
        "address",
    ]


@pytest.mark.parametrize(
    ("interval", "timeout", "wrong"),
    [
        ("100ms", "400ms", "timeout"),  # sooner than a server is pinged
        ("500ms", "600ms", "timeout"),
        ("1s", "1.9s", "timeout"),
        ("10ms", "3s", "interval"),
        ("100ms", "1s", None),
        ("500ms", "3s", None),
        ("2s", "4s", None),
    ],
)
def test_a_time_out_that_would_fence_healthy_servers_is_refused(interval, timeout, wrong):
    storage = "storage: {interface: e, address: 10.0.0.1, subnet: 10.0.0.0/24}\n"
    _, errors = read(document("Platform", f"{storage}liveness: {{interval: {interval}, timeout: {timeout}}}\n"))
    assert iscsi_connection.PING_SECONDS == PING_SECONDS
    assert [error.split(": ")[1] for error in errors] == ([f"liveness.{wrong}"] if wrong else [])


def test_all_mistakes_come_at_once_in_the_order_of_the_text():
    broken = pan("nics: [{lan: front, address: '10.2.0.1[1-2]'}]\nmemoryy: 1\n")
    _, errors = read(broken + "---\n" + CHASSIS.replace("memory: 512MiB", "memory: some"))
    assert [error.split(":")[1:3] for error in errors] == [["9", "34"], ["9", "34"], ["10", "5"], ["24", "9"]]


def test_a_reference_to_what_is_described_wrongly_is_not_blamed_too():
    _, errors = read(PAN, document("Image", "source: relative\n", "web"))
    assert [error.split(":")[0] for error in errors] == ["b.yaml"]


def test_findings_are_raised_together():
    findings = Findings()
    load([File("a.yaml", "kind: PAM")], findings)
    with pytest.raises(ConfigErrors) as caught:
        findings.raise_if_any()
    assert len(caught.value.errors) == len(findings) == 1


keys = "apiVersion kind name lans servers nics lan address subnet range pan storage image disk size mac memory failover"
values = "panloom/v1 PAN Server Node x no ~ 10.1.0.0/24 10.1.0.1[1-2] web[1-2] web@1 10GiB 52:54:00:12:34:56 0o17 [ é"
words = st.sampled_from([*keys.split(), *values.split(), "", "9" * 5000])
trees = st.recursive(
    words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=6),
    max_leaves=12,
)


def to_flow(tree: object) -> str:
    match tree:
        case dict():
            return "{" + ", ".join(f"{to_flow(key)}: {to_flow(value)}" for key, value in tree.items()) + "}"
        case list():
            return "[" + ", ".join(map(to_flow, tree)) + "]"
    return f'"{tree}"'


def assert_loads_or_is_found_wrong(text: str) -> None:
    findings = Findings()
    loaded = load([File("a.yaml", text)], findings)
    check(loaded.resources, loaded, findings)
    for error in findings.errors():
        assert error.where.startswith("a.yaml:")
        line, column = error.where.split(":")[1:3]
        assert int(line) >= 1
        assert int(column) >= 1
        assert error.why


@given(st.text() | st.text(alphabet=string.printable))
def test_any_text_loads_or_is_found_wrong(text):
    assert_loads_or_is_found_wrong(text)


@settings(max_examples=300)
@given(
    st.sampled_from(["PAN", "Platform", "Node", "Image", "VirtualLan", "Server", "Volume"]),
    st.dictionaries(words, trees),
)
def test_any_document_loads_or_is_found_wrong(kind, body):
    head = {"apiVersion": "panloom/v1", "kind": kind, "name": "x", "pan": "p"}
    assert_loads_or_is_found_wrong(to_flow({**head, **body}))


def test_subnets_of_lans_stay_clear_of_the_storage_network():
    _, errors = read(CHASSIS, document("PAN", "lans: {f: {subnet: 10.0.0.0/16}}\n"))
    assert errors == [
        "b.yaml:4:20: lans.f.subnet: 10.0.0.0/16 overlaps the platform's storage network 10.0.0.0/24; take another"
    ]


def test_keys_are_no_more_than_a_machine_can_be_told():
    assert MAX_SSH_KEYS_OCTETS == KEYS_OCTETS
    most = MAX_SSH_KEYS_OCTETS // len(f"{KEY}\n")
    images = CHASSIS
    clean(images, pan(f"ssh_keys: [{', '.join([KEY] * most)}]"))
    _, errors = read(images, pan(f"ssh_keys: [{', '.join([KEY] * (most + 1))}]"))
    octets = len(f"{KEY}\n") * (most + 1)
    told = f"{octets} octets of keys are more than the {MAX_SSH_KEYS_OCTETS} that a machine is told"
    mend = "leave some out, or have its user_data fetch them"
    assert errors == [f"b.yaml:9:15: servers.web[1-2].ssh_keys: {told}; {mend}"]
