"""Resources of any shape that documents can describe, for hypothesis; they need not fit together."""

from ipaddress import IPv4Address, IPv4Network, IPv6Network

from hypothesis import strategies as st

from panloom.model import resources
from panloom.values import MacAddress

SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ9AfmsJSYcjLrsJvH0RJJH9fjwK7Yc2vPV3e1nZ0Yqy"

names = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
subnets = st.builds(lambda address, bits: IPv4Network((address, bits), strict=False), addresses, st.integers(0, 32))
prefixes = st.none() | st.builds(
    lambda end, bits: IPv6Network((0x2001_0DB8 << 96 | end, bits), strict=False),
    st.integers(0, 2**96 - 1),
    st.integers(16, 96),
)
ranges = st.tuples(addresses, addresses).map(lambda ends: (min(ends), max(ends)))
sizes = st.integers(0, 1 << 60) | st.integers(0, 1 << 20).map(lambda number: number << 30)
durations = st.integers(1, 86_400_000).map(lambda milliseconds: milliseconds / 1000) | st.floats(1e-6, 86400)
counts = st.integers(1, 1_000_000)
ports = st.integers(1, 65535)
interfaces = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", fullmatch=True)
paths = st.from_regex(r"/[ -Z^-~]{0,20}[!-Z^-~]", fullmatch=True)  # no brackets: they stand for several
words = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,10}", fullmatch=True)
image_names = names | st.builds(lambda name, version: f"{name}@{version}", names, counts)
snapshots = st.builds(lambda volume, name: f"{volume}@{name}", names, names)
provisionings = st.sampled_from(["thin", "thick"])
auths = st.sampled_from(["chap", "none"])

fabric_networks = st.builds(resources.FabricNetwork, interface=interfaces, subnet=subnets)
users = st.none() | st.lists(words, max_size=2).map(tuple)
platforms = st.builds(
    resources.Platform,
    name=names,
    control=st.builds(resources.ControlNode, serial=st.integers(0, 0xFFFF)),
    storage=st.builds(
        resources.StorageNetwork,
        interface=interfaces,
        address=addresses,
        subnet=subnets,
        dhcp=st.sampled_from(["server", "proxy"]),
        discovery=st.none() | ranges,
        relays=st.lists(
            st.builds(
                resources.Relay, address=addresses, subnet=subnets, router=st.none() | addresses, prefix=prefixes
            ),
            max_size=2,
        ).map(tuple),
        http_port=ports,
        iscsi_port=ports,
        prefix=prefixes,
    ),
    auth=auths,
    approve=st.sampled_from(["manual", "always"]),
    liveness=st.builds(
        resources.Liveness, interval_seconds=durations, timeout_seconds=durations, max_simultaneous=counts
    ),
    boot_timeout_seconds=durations,
    max_boot_attempts=counts,
    consoles=st.builds(resources.ConsoleUsers, type=users, read=users),
    fabrics=st.none()
    | st.builds(resources.Fabrics, a=fabric_networks, b=fabric_networks, mtu=st.integers(1280, 65535)),
    images=st.builds(
        resources.ImagePolicy,
        unsigned=st.sampled_from(["allow", "refuse"]),
        keys=st.dictionaries(words, st.just("11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="), max_size=2),
    ),
)
powers = st.one_of(
    st.builds(resources.SocketPower, path=paths, name=words),
    st.builds(resources.ScriptPower, path=paths, name=words),
    st.builds(resources.IpmiPower, address=addresses, user=words, password_file=paths),
)
nodes = st.builds(
    resources.Node,
    name=names,
    mac=st.integers(0, 2**48 - 1).map(MacAddress),
    address=addresses,
    port=interfaces,
    memory_octets=sizes,
    initiator=st.none() | names.map(lambda name: f"iqn.2026-11.example.maker:{name}"),
    power=st.none() | powers,
)
patterns = st.from_regex(r"[A-Za-z0-9*?][A-Za-z0-9 ._:+()/&*?-]{0,8}[A-Za-z0-9*?]", fullmatch=True)
disks = st.builds(resources.Disk, size_octets=sizes, snapshot=st.none() | snapshots, provisioning=provisionings)
failovers = st.builds(
    resources.Failover,
    enabled=st.booleans(),
    within_seconds=durations,
    fence=st.sampled_from(["storage+port", "power"]),
)
prompts = st.builds(resources.Prompt, images=st.lists(image_names, max_size=2).map(tuple), timeout_seconds=durations)
rules = st.builds(
    resources.Rule,
    name=names,
    match=st.builds(
        resources.Match,
        mac=st.none() | patterns,
        vendor=st.none() | patterns,
        product=st.none() | patterns,
        architecture=st.none() | st.sampled_from(["x86-64", "arm64"]),
        memory_octets=sizes,
        cores=st.integers(0, 1 << 16),
    ),
    server=st.none()
    | st.builds(
        resources.Becoming,
        pan=names,
        image=image_names,
        disk=disks,
        lans=st.lists(names, max_size=3).map(tuple),
        failover=failovers,
    ),
    approve=st.sampled_from(["manual", "always"]),
) | st.builds(
    resources.Rule, name=names, match=st.just(resources.Match()), approve=st.just("prompt"), prompt=st.none() | prompts
)
donors = st.sampled_from(["shop/web1", "shop/web1@before", "iscsi://10.0.0.5:3261/iqn.2001-01.com.example:old/1"])
notes = st.dictionaries(
    st.sampled_from(["suite", "recipe_sha256", "built-at"]), st.sampled_from(["bookworm", "2026", "yes", "a: b # c"])
)
contents = {
    "name": names,
    "version": counts,
    "sha256": st.none() | st.just("0123456789abcdef" * 4),
    "tags": st.sampled_from([(), ("stable",), ("next", "lts-1")]),
    "provenance": notes,
    "signatures": st.sampled_from([(), (f"{'0a' * 8}:{'A' * 86}==",)]),
}
images = st.builds(
    resources.Image, **contents, source=paths, format=st.sampled_from([None, "raw", "qcow2", "vmdk"])
) | st.builds(resources.Image, **contents, capture=donors)
domains = st.from_regex(r"[a-z0-9-]{1,9}(?:\.[a-z0-9-]{1,9}){0,2}", fullmatch=True)


def members(pans):
    """Return LANs, servers and volumes of those PANs."""
    lans = st.builds(
        resources.VirtualLan,
        pan=pans,
        name=names,
        subnet=subnets,
        range=st.none() | ranges,
        router=st.none() | addresses,
        dns=st.lists(addresses, max_size=3).map(tuple),
        domain=st.none() | domains,
        prefix=prefixes,
        network=st.sampled_from(["flat", "fabrics"]),
    )
    nics = st.builds(resources.Nic, lan=names, address=st.none() | addresses)
    servers = st.builds(
        resources.Server,
        pan=pans,
        name=names,
        image=image_names,
        disk=disks,
        nics=st.lists(nics, max_size=3).map(tuple),
        node=st.none() | names,
        needs=st.builds(resources.Needs, memory_octets=sizes),
        failover=failovers,
        health=st.builds(
            resources.Health,
            tcp=st.none() | ports,
            command=st.none() | paths,
            within_seconds=durations,
            settle_seconds=durations,
        ),
        auth=st.none() | auths,
        ssh_keys=st.sampled_from([(), (SSH_KEY,), (SSH_KEY, f"{SSH_KEY} ada@example")]),
        user_data=st.sampled_from(["", "#!/bin/sh\n", "#cloud-config\npackages: [a, b]\n"]),
    )
    shape = {"pan": pans, "name": names, "size_octets": sizes, "provisioning": provisionings}
    volumes = st.builds(resources.Volume, image=image_names, **shape)
    volumes |= st.builds(resources.Volume, image=st.just(""), snapshot=snapshots, **shape)
    return lans | servers | volumes


@st.composite
def sets(draw):
    """Return resources by key: at most one platform, members only of PANs there are, no volume of a server's name."""
    pans = draw(st.lists(names, max_size=3, unique=True))
    one = nodes | images | rules | (members(st.sampled_from(pans)) if pans else st.nothing())
    found = [resources.Pan(name=name) for name in pans]
    found += draw(st.lists(platforms, max_size=1)) + draw(st.lists(one, max_size=8))
    by_key = {resource.key: resource for resource in found}
    servers = {resource.label for resource in by_key.values() if isinstance(resource, resources.Server)}
    return {
        key: resource
        for key, resource in by_key.items()
        if not (isinstance(resource, resources.Volume) and resource.label in servers)
    }
