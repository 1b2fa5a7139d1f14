"""What people write: any text is resources, or mistakes with their places."""

from fuzz.target import target
from panloom.decide import plan as planning
from panloom.errors import ConfigErrors
from panloom.model.check import check
from panloom.model.load import MAX_UNITS, File, load
from panloom.model.resources import decode, encode
from panloom.model.sources import Findings

PLATFORM = b"""apiVersion: panloom/v1
kind: Platform
name: lab
auth: chap
storage: {interface: eth0, address: 10.0.0.1, subnet: 10.0.0.0/24, discovery: 10.0.0.200-10.0.0.220}
liveness: {interval: 500ms, timeout: 3s}
---
apiVersion: panloom/v1
kind: Node
name: n[1-3]
mac: 52:54:00:00:00:[01-03]
address: 10.0.0.1[1-3]
port: port[1-3]
memory: 512MiB
power: {path: /run/power.sock, name: n1}
---
apiVersion: panloom/v1
kind: Image
name: web
version: 1
source: /srv/web.img
"""
PAN = b"""apiVersion: panloom/v1
kind: PAN
name: shop
lans:
  front: {subnet: 10.1.0.0/24, router: 10.1.0.1, range: 10.1.0.100-10.1.0.120, dns: [10.1.0.2], domain: shop.example}
servers:
  web[1-2]:
    image: web
    disk: {size: 1GiB}
    nics: [{lan: front, address: "10.1.0.1[1-2]"}]
"""
LONG = b"apiVersion: panloom/v1\nkind: Node\nname: a\nmemory: 99999999999999999999GiB\n"
ALIASES = b"a: &a [1, 2]\nb: &b [*a, *a]\nc: [*b, *b]\napiVersion: panloom/v1\nkind: PAN\nname: 'x'\n"


@target(seeds=lambda: (PLATFORM, PAN, PLATFORM + b"---\n" + PAN, LONG, ALIASES))
def text(octets):
    """Any text is resources that come back from the store and can be planned, or mistakes that each say where."""
    findings = Findings()
    loaded = load([File("a.yaml", octets.decode(errors="replace"))], findings)
    assert len(loaded.resources) <= MAX_UNITS
    check(loaded.resources, loaded, findings)
    try:
        findings.raise_if_any()
    except ConfigErrors as errors:
        for error in errors.errors:
            assert error.why
            assert error.where
        return
    volumes, _ = planning.volumes({}, loaded.resources)
    planning.changes({}, {**loaded.resources, **volumes}, absent=())
    for key, resource in loaded.resources.items():
        assert resource.key == key
        assert decode(key, encode(resource)) == resource
