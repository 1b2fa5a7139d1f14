"""The published schema accepts whatever the loader accepts, and refuses what one document alone can get wrong."""

import json
import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from jsonschema import Draft7Validator

from panloom.model import export
from panloom.model.load import File, load
from panloom.model.schema import schema
from panloom.model.sources import Findings
from support.plain_control import CHASSIS
from support.resource_strategies import sets
from support.yaml_core import documents

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "docs" / "schema" / "v1.json"
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@cache
def validator():
    Draft7Validator.check_schema(schema())
    return Draft7Validator(schema())


def mistakes(text):
    return [error.message for document in documents(text) for error in validator().iter_errors(document)]


def loads(text):
    findings = Findings()
    load([File("a.yaml", text)], findings)
    return findings.errors() == ()


def test_the_published_copy_is_what_the_code_says():
    assert json.loads(PUBLISHED.read_text()) == schema(), "write it anew: panloom schema > docs/schema/v1.json"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_name_the_published_copy_and_hold_to_it(path):
    text = path.read_text()
    (named,) = re.findall(r"\A# yaml-language-server: \$schema=(\S+)\n", text)
    assert (path.parent / named).resolve() == PUBLISHED
    assert mistakes(text) == []


def test_a_chassis_is_accepted():
    assert mistakes(CHASSIS) == []


@given(sets())
def test_whatever_can_be_stored_is_accepted(resources):
    written = export.whole(resources).documents
    assert mistakes(yaml.safe_dump_all(written)) == []
    assert [error.message for one in written for error in validator().iter_errors(one)] == []


NODE = "apiVersion: panloom/v1\nkind: Node\nname: {}\nmac: {}\naddress: {}\nport: {}\nmemory: {}\n"
SERVER = "apiVersion: panloom/v1\nkind: Server\npan: p\nname: s\nimage: web\n{}\n"
PAN = "apiVersion: panloom/v1\nkind: PAN\nname: p\n{}\n"
PLATFORM = (
    "apiVersion: panloom/v1\nkind: Platform\nname: lab\n"
    "storage: {{interface: eth0, address: 10.0.0.1, subnet: 10.0.0.0/24}}\n{}\n"
)


@pytest.mark.parametrize(
    "text",
    [
        NODE.format("n[1-3]", "52:54:00:00:00:[01-03]", "10.0.0.[1-3]", "port[1-3]", "'[1-3]GiB'"),
        NODE.format("no", "52-54-00-12-34-56", "10.0.0.1", "eth0", 1073741824),
        NODE.format("true", "5254.0012.3456", "' 10.0.0.1 '", "0", "1.5g"),
        NODE.format("1e5", "525400123456", "10.0.0.1", "a", "'4096'"),
        SERVER.format("failover: no\ndisk:\nnics:\nneeds: {memory: 128MiB}"),
        SERVER.format("failover: {enabled: OFF, within: 5, fence: power}\nneeds: {memory: '>=128MiB'}"),
        SERVER.format("failover: false\nnics: [{lan: front}]\ndisk: {size: 0.5GiB}\nauth: none"),
        SERVER.format("disk: {size: }\nneeds: {memory: 4096}\nfailover: {within: 500ms}"),
        PAN.format(""),
        PAN.format("lans:\nservers:"),
        PAN.format("servers: {'web[1-2,7]': {image: web@3}, 1: {image: '2'}}"),
        PAN.format("lans: {f: {subnet: 10.1.0.0/255.255.255.0, range: 10.1.0.1 - 10.1.0.9, dns: [10.1.0.2]}}"),
        PLATFORM.format("control: {serial: 0x504c}\nboot_timeout: 1h\nmax_boot_attempts: '3'"),
        PLATFORM.format("control: {serial: 0o17}\nliveness: {interval: 0.5, timeout: 3}\napprove:"),
    ],
)
def test_every_way_to_write_it_is_accepted(text):
    assert loads(text)
    assert mistakes(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: panloom/v2\nkind: PAN\nname: p\n",
        "apiVersion: panloom/v1\nkind: Pan\nname: p\n",
        "apiVersion: panloom/v1\nkind: PAN\n",
        "apiVersion: panloom/v1\nkind: PAN\nname: Upper\n",
        "apiVersion: panloom/v1\nkind: PAN\nname: p[1-2]\n",
        "apiVersion: panloom/v1\nkind: Volume\nname: v\nimage: web\n",
        NODE.format("n1", "52:54:00:12:34", "10.0.0.1", "eth0", "1GiB"),
        NODE.format("n1", "52:54:00:12:34:56", "10.0.0.256", "eth0", "1GiB"),
        NODE.format("n1", "52:54:00:12:34:56", "10.0.0.1", "eth0:1", "1GiB"),
        NODE.format("n1", "52:54:00:12:34:56", "10.0.0.1", "eth0", "much"),
        NODE.format("n1", "52:54:00:12:34:56", "10.0.0.1", "eth0", ""),
        NODE.format("n1", "52:54:00:12:34:56", "[10.0.0.1]", "eth0", "1GiB"),
        SERVER.format("needz: 1GiB"),
        SERVER.format("failover: maybe"),
        SERVER.format("failover: {fence: prayer}"),
        SERVER.format("failover: {within: -1}"),
        SERVER.format("nics: {lan: front}"),
        SERVER.format("nics: [{address: 10.0.0.1}]"),
        PAN.format("lans: [front]"),
        PAN.format("lans: {front: }"),
        PAN.format("servers: {web_1: {image: web}}"),
        PAN.format("pan: p"),
        PLATFORM.format("storage_port: 1"),
        PLATFORM.format("max_boot_attempts: 0"),
        PLATFORM.format("auth: kerberos"),
        "- apiVersion: panloom/v1\n",
    ],
)
def test_what_one_document_can_get_wrong_is_refused(text):
    assert not loads(text)
    assert mistakes(text)
