import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import ConfigError
from panloom.storage.exports import Access, Export, ExportedLun, ExportsFile, Moved

TARGET = "iqn.2026-11.dev.panloom:shop.web1"
NODE = "iqn.2026-11.dev.panloom:node.n1"
EXPORT = Export(
    TARGET,
    3,
    (ExportedLun(0, volume="shop.web1"),),
    Access(NODE, address="10.0.0.11", user="shop.web1", secret="hidden-secret"),
)
PERSONALITY = Export(TARGET + ".personality", 3, (ExportedLun(0, content=b"PAN='shop'\n\0\xff", read_only=True),), None)

TEXT = (
    b'{"format":1,"exports":[{"target":"iqn.2026-11.dev.panloom:shop.web1","epoch":3,"luns":[{"lun":0,"volume":"shop.web1"}],'
    b'"access":{"initiator":"iqn.2026-11.dev.panloom:node.n1","address":"10.0.0.11",'
    b'"user":"shop.web1","secret":"hidden-secret"}}]}'
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "exports.json"


def test_known_octets(path):
    ExportsFile(path).save([EXPORT])
    assert path.read_bytes() == TEXT
    assert path.stat().st_mode & 0o777 == 0o600


def test_decode_undoes_encode(path):
    moved = Export(TARGET + ".moved", 1, (), Access(NODE), Moved("[2001:db8::1]:3260", permanent=True))
    ExportsFile(path).save([EXPORT, PERSONALITY, moved])
    assert ExportsFile(path).load() == {TARGET: EXPORT, PERSONALITY.target: PERSONALITY, moved.target: moved}


@given(octets=st.binary(max_size=200) | st.integers(0, len(TEXT) - 1).map(lambda cut: TEXT[:cut]))
def test_any_octets_decode_or_are_malformed(tmp_path_factory, octets):
    """A damaged file is refused with one error that names it; nothing is guessed."""
    path = tmp_path_factory.getbasetemp() / "any-exports.json"
    path.write_bytes(octets)
    with pytest.raises(ConfigError, match=str(path)):
        ExportsFile(path).load()


def test_no_file_means_no_exports(path):
    assert ExportsFile(path).load() == {}


def test_a_newer_format_is_refused(path):
    path.write_bytes(TEXT.replace(b'"format":1', b'"format":2'))
    with pytest.raises(ConfigError, match="format 2"):
        ExportsFile(path).load()


def test_a_machine_is_let_in_from_either_of_its_addresses():
    access = Access(NODE, address="10.0.0.11", other_address="2001:db8::a00:b")
    export = msgspec.structs.replace(EXPORT, access=access)
    assert [export.admits(NODE, each) for each in ("10.0.0.11", "2001:db8::a00:b")] == [True, True]
    for other in ("10.0.0.12", "2001:db8::a00:c", "2001:db8::b"):
        assert not export.admits(NODE, other)
    assert not EXPORT.admits(NODE, "2001:db8::a00:b")


def test_a_secret_is_never_shown():
    assert "hidden-secret" not in repr(EXPORT) + str(EXPORT.access)


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": "shop.web1"},
        {"target": TARGET.upper()},
        {"epoch": 0},
        {"luns": [{"lun": 0}]},
        {"luns": [{"lun": 16384, "volume": "v"}]},
        {"luns": [{"lun": 0, "volume": "v", "content": "AAAA", "read_only": True}]},
        {"luns": [{"lun": 0, "content": "AAAA"}]},
        {"luns": [{"lun": 0, "content": "", "read_only": True}]},
        {"luns": [{"lun": 0, "volume": "v"}, {"lun": 0, "volume": "w"}]},
        {"access": {"initiator": NODE, "user": "alone"}},
        {"access": {"initiator": NODE, "address": "10.0.0.256"}},
        {"access": {"initiator": NODE, "address": "10.0.0.11", "other_address": "2001:db8::g"}},
        {"access": {"initiator": NODE, "other_address": "2001:db8::b"}},
        {"accesses": None},
        {"moved": {"portal": "nowhere"}},
        {"moved": {"portal": "192.0.2.9"}},
        {"moved": {"portal": "192.0.2.9:0"}},
        {"moved": {"portal": "0.0.0.0:3260"}},
        {"moved": {"portal": "[::]:3260"}},
        {"moved": {"portal": "224.0.0.1:3260"}},
        {"moved": {"portal": "192.0.2.9:3260", "for": "ever"}},
    ],
)
def test_what_no_export_says(wrong):
    right = {"target": TARGET, "epoch": 1, "luns": [{"lun": 0, "volume": "v"}], "access": None}
    assert msgspec.convert(right, Export)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**right, **wrong}, Export)


def test_content_is_remembered_packed_and_served_whole():
    disc = b"PAN='shop'\n" + bytes(50_000)
    unit = ExportedLun.packed(0, disc)
    assert len(msgspec.json.encode(unit)) < 300
    assert msgspec.json.decode(msgspec.json.encode(unit), type=ExportedLun).octets() == disc
    for damaged in (unit.content[:-1], b"y" + unit.content[1:], zlib.compress(bytes((1 << 20) + 1))):
        with pytest.raises(ValueError, match=r"unpacked|cut off"):
            ExportedLun(0, content=damaged, read_only=True, deflated=True)
    with pytest.raises(ValueError, match="only content"):
        ExportedLun(0, volume="shop.web1", deflated=True)
