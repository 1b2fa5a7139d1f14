"""What stock cloud images ask for: cloud-init's NoCloud data, on a disc that is also the personality.

    octets 0 … 4095          the personality's text, as images that know Panloom read it
    octets 4096 … 32767      authorized_keys: the server's SSH keys, one a line, padded with line feeds
    octet 32768 …            ISO 9660, label CIDATA:  meta-data  network-config  user-data  vendor-data

meta-data and network-config are JSON, which YAML's readers read.  The instance-id is that of the disk's clone: it stays
over every fail-over, and a disk that was destroyed and cloned anew is another instance.

A stock image has one card, whose MAC is the node's, and its initramfs gives that the disk's address.  cloud-init takes
the network from the initramfs then, and passes network-config over.  So vendor-data is a boothook, run at each boot: it
lays a macvlan on the card for each virtual MAC that no interface has yet, and gives it its address.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from panloom.decide.personality import SIZE_OCTETS, Personality, PersonalityNic
from panloom.wire import iso9660

LABEL = "CIDATA"
KEYS_OCTETS = iso9660.SYSTEM_AREA_OCTETS - SIZE_OCTETS
"""How much room the SSH keys have."""
MAX_USER_DATA_OCTETS = 64 << 10
_BOOTHOOK = r"""#cloud-boothook
#!/bin/sh
card=$(ip -o route get {beacon_address} | sed -n 's/.* dev \([^ ]*\) .*/\1/p')
nic() {{ # name, MAC, address or dhcp, router
    grep -qsix "$2" /sys/class/net/*/address && return
    # The card answers for its own addresses only, and by its own MAC.
    echo 1 > "/proc/sys/net/ipv4/conf/$card/arp_ignore"
    echo 2 > "/proc/sys/net/ipv4/conf/$card/arp_announce"
    ip link add link "$card" name "$1" address "$2" type macvlan && ip link set "$1" up || return
    if [ "$3" = dhcp ]; then
        dhclient -nw "$1" || dhcpcd --background "$1"
    else
        ip address add "$3" dev "$1"
        [ -z "$4" ] || ip route replace default via "$4" dev "$1"
    fi
}}
{nics}
"""


def identity_disc(personality: Personality, ssh_keys: Sequence[str], user_data: str) -> bytes:
    """Return the personality's LUN; ValueError if something does not fit into it."""
    keys = "".join(f"{key}\n" for key in ssh_keys).encode()
    if len(keys) > KEYS_OCTETS:
        raise ValueError(f"SSH keys of {len(keys)} octets do not fit into {KEYS_OCTETS}")
    if len(octets := user_data.encode()) > MAX_USER_DATA_OCTETS:
        raise ValueError(f"user data of {len(octets)} octets is more than {MAX_USER_DATA_OCTETS}")
    files = {
        "meta-data": _json(meta_data(personality, ssh_keys)),
        "network-config": _json(network_config(personality.nics)),
        "user-data": octets,
        "vendor-data": vendor_data(personality).encode(),
    }
    return iso9660.encode(LABEL, files, system_area=personality.to_octets() + keys.ljust(KEYS_OCTETS, b"\n"))


def meta_data(personality: Personality, ssh_keys: Sequence[str]) -> dict[str, Any]:
    """Return who the instance is."""
    return {
        "instance-id": personality.instance,
        "local-hostname": personality.server,
        "public-keys": list(ssh_keys),
    }


def network_config(nics: Sequence[PersonalityNic]) -> dict[str, Any]:
    """Return cloud-init's network configuration, version 2: each NIC is told by its virtual MAC."""
    return {"version": 2, "ethernets": {f"eth{number}": _ethernet(nic) for number, nic in enumerate(nics)}}


def vendor_data(personality: Personality) -> str:
    """Return the boothook that makes the virtual NICs of a system that does not know Panloom.

    Where the card leads is asked of the route to the control node.  It leaves what has the MAC already alone.
    """
    calls = (
        f"nic lan{number} {nic.mac} {f'{nic.address}/{nic.prefix}' if nic.address else 'dhcp'} {nic.router}".rstrip()
        for number, nic in enumerate(personality.nics)
    )
    return _BOOTHOOK.format(beacon_address=personality.beacon_address, nics="\n".join(calls))


def _ethernet(nic: PersonalityNic) -> dict[str, Any]:
    found: dict[str, Any] = {"match": {"macaddress": nic.mac}}
    if not nic.address:
        return {**found, "dhcp4": True}
    found["addresses"] = [f"{nic.address}/{nic.prefix}"]
    if nic.router:
        found["routes"] = [{"to": "0.0.0.0/0", "via": nic.router}]
    if nic.dns or nic.domain:
        found["nameservers"] = {"addresses": nic.dns.split(), "search": [nic.domain] if nic.domain else []}
    return found


def _json(value: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
