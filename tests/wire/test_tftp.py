import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError
from panloom.wire.tftp import Ack, Data, Error, OptionAck, Request, decode, encode

texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=12)
names = texts.map(str.lower).filter(lambda name: name == name.lower())
options = st.dictionaries(names, texts, min_size=1, max_size=3)
numbers = st.integers(0, 65535)
packets = st.one_of(
    st.builds(Request, texts, names, options, st.booleans()),
    st.builds(Data, numbers, st.binary(max_size=600)),
    st.builds(Ack, numbers),
    st.builds(Error, numbers, texts),
    st.builds(OptionAck, options),
)


def test_known_octets():
    # What OVMF's PXE sends for its boot file.
    request = Request("snponly.efi", "octet", {"tsize": "0", "blksize": "1468"})
    octets = b"\0\1snponly.efi\0octet\0tsize\x000\0blksize\x001468\0"
    assert encode(request) == octets
    assert decode(octets.replace(b"octet", b"OCTET").replace(b"tsize", b"TSize")) == request
    assert decode(b"\0\2x\0netascii\0") == Request("x", "netascii", {}, write=True)
    assert decode(b"\0\3\0\7abc") == Data(7, b"abc")
    assert decode(b"\0\4\xff\xff") == Ack(65535)
    assert encode(Error(1, "no such file")) == b"\0\5\0\1no such file\0"
    assert encode(OptionAck({"blksize": "1468"})) == b"\0\6blksize\x001468\0"


@given(packets)
def test_decode_undoes_encode(packet):
    assert decode(encode(packet)) == packet


@given(st.binary(max_size=60) | packets.map(encode), st.data())
def test_any_octets_decode_or_are_malformed(octets, data):
    at = data.draw(st.integers(0, len(octets)))
    for damaged in (octets, octets[:at], octets[:at] + b"\0" + octets[at + 1 :]):
        try:
            decode(damaged)
        except MalformedError:
            continue


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "too few"),
        (b"\0\1x", "too few"),
        (b"\0\1name", "no NUL"),
        (b"\0\1name\0octet", "no NUL"),
        (b"\0\1name\0", "mode"),
        (b"\0\1\xff\xff\0octet\0", "UTF-8"),
        (b"\0\1" + b"n" * 512 + b"\0octet\0", "521 octets"),
        (b"\0\1n\0octet\0blksize\0", "no value"),
        (b"\0\1n\0octet\0" + b"a\x001\0" * 100, "twice"),
        (b"\0\4\0\1\0", "opcode 4"),
        (b"\0\7\0\0", "opcode 7"),
    ],
)
def test_bad_packets_are_malformed(octets, why):
    with pytest.raises(MalformedError, match=why):
        decode(octets)
