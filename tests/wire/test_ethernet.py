"""Heads of frames, read from any octets: what cannot be is MalformedError, and nothing else is ever raised."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.frames import IPV4, IPV6, arp
from panloom.errors import MalformedError
from panloom.wire.ethernet import ArpHead, arp_of, packet_of, ports_of, quoted_packet
from support.mixed_frames import (
    MAC1,
    OURS,
    OURS6,
    PEER,
    TARGET,
    TARGET6,
    ipv4,
    ipv6,
    llc,
    segment,
    tcp,
    to,
    unreachable,
)


def test_ports_stand_after_the_options_of_ipv4():
    for options in (b"", b"\1\1\1\0", b"\1" * 40):
        frame = segment(options=options)
        packet = packet_of(frame)
        assert (packet.source, packet.destination, packet.protocol) == (TARGET.packed, OURS.packed, 6)
        assert ports_of(frame, packet) == (3260, 860)
        assert packet.datagram is None


def test_ports_stand_after_the_extension_headers_of_ipv6():
    payload = tcp(3260, 860)
    hop_by_hop, routing, options = b"\x2b\0" + bytes(6), b"\x3c\1" + bytes(14), b"\x06\0" + bytes(6)
    frame = to(MAC1, IPV6, ipv6(TARGET6, OURS6, 0, hop_by_hop + routing + options + payload))
    assert ports_of(frame, packet_of(frame)) == (3260, 860)
    authenticated = to(MAC1, IPV6, ipv6(TARGET6, OURS6, 51, b"\x06\4" + bytes(22) + payload))
    assert ports_of(authenticated, packet_of(authenticated)) == (3260, 860)


def test_padding_is_no_part_of_a_packet():
    frame = to(MAC1, IPV4, ipv4(TARGET, OURS, 6, b"\x0c"))
    assert len(frame) == 60
    with pytest.raises(MalformedError, match="ports"):
        ports_of(frame, packet_of(frame))


def test_a_fragment_says_so():
    first = to(MAC1, IPV4, ipv4(TARGET, OURS, 6, tcp(1, 2), datagram=9, more=True))
    later = to(MAC1, IPV6, ipv6(TARGET6, OURS6, 6, b"x" * 8, fragment=(77, 1208, False)))
    atomic = to(MAC1, IPV6, ipv6(TARGET6, OURS6, 6, tcp(1, 2), fragment=(78, 0, False)))
    assert (packet_of(first).datagram, packet_of(first).offset) == (9, 0)
    assert (packet_of(later).datagram, packet_of(later).offset) == (77, 151)
    assert (packet_of(atomic).datagram, packet_of(atomic).offset) == (None, 0)
    with pytest.raises(MalformedError):
        ports_of(later, packet_of(later))


def test_an_icmp_error_quotes_what_it_is_about():
    frame = unreachable(MAC1)
    about = quoted_packet(frame, packet_of(frame))
    assert (about.source, about.destination) == (OURS.packed, TARGET.packed)
    assert ports_of(frame, about) == (860, 3260)
    assert quoted_packet(segment(), packet_of(segment())) is None


def test_arp_is_of_ipv4_over_ethernet():
    frame = arp(PEER, PEER, TARGET, OURS)
    assert arp_of(frame) == ArpHead(1, TARGET.packed, OURS.packed)
    assert arp_of(arp(PEER, PEER, TARGET, OURS, hlen=8)) is None
    assert arp_of(llc(MAC1)) is None
    assert packet_of(llc(MAC1)) is None
    with pytest.raises(MalformedError):
        arp_of(frame[:41])


@pytest.mark.parametrize(
    "frame",
    [
        segment()[:33],
        to(MAC1, IPV4, b"\x65" + bytes(40)),
        to(MAC1, IPV4, b"\x44" + bytes(40)),
        to(MAC1, IPV4, b"\x45\0\xff\xff" + bytes(40)),
        to(MAC1, IPV6, ipv6(TARGET6, OURS6, 6, b""))[:50],
        to(MAC1, IPV6, ipv6(TARGET6, OURS6, 0, b"\0\xff")),
        to(MAC1, IPV6, ipv6(TARGET6, OURS6, 0, b"\0\xff" + bytes(6))),
        to(MAC1, IPV6, ipv6(TARGET6, OURS6, 0, bytes(8 * 9))),
    ],
)
def test_what_contradicts_itself_is_refused(frame):
    with pytest.raises(MalformedError):
        packet_of(frame)


@given(st.sampled_from([b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x12\x34"]), st.binary(max_size=100))
def test_any_octets_are_read_or_refused(kind, octets):
    frame = MAC1 + PEER + kind + octets
    try:
        arp_of(frame)
        packet = packet_of(frame)
        if packet is not None:
            assert packet.payload_at <= packet.end <= len(frame)
            quoted_packet(frame, packet)
            ports_of(frame, packet)
    except MalformedError:
        pass
