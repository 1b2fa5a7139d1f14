"""The options of a target that stands alone: what they mean, and what is said of bad ones."""

import pytest

from panloom.errors import ConfigErrors
from panloom.protocol.chap import Credentials
from panloom.storage.exports import ExportedLun, Moved
from panloom.storage.stand_alone_options import read_options

IQN = "iqn.2026-11.dev.panloom:target"


def read(*luns, portals=("127.0.0.1:3260",), iqn=IQN, chap=None, store=None, moved=None):
    return read_options(iqn=iqn, portals=portals, luns=luns, chap=chap, store=store, moved=moved)


def complaint(*luns, **others) -> str:
    with pytest.raises(ConfigErrors) as caught:
        read(*luns, **others)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "lun"),
    [
        ("1=disk.img", ExportedLun(1, device="disk.img")),
        ("0=a b.img,ro", ExportedLun(0, device="a b.img", read_only=True)),
        ("16383=d,thick,removable", ExportedLun(16383, device="d", thick=True, removable=True)),
        ("1=a=b,ro", ExportedLun(1, device="a=b", read_only=True)),
    ],
)
def test_a_lun_is_a_number_a_file_and_words(text, lun):
    assert read(text).luns == (lun,)


def test_a_comma_may_be_part_of_a_name(tmp_path):
    path = tmp_path / "a,ro,b"
    path.touch()
    assert read(f"1={path},ro").luns == (ExportedLun(1, device=str(path), read_only=True),)


def test_a_volume_is_one_of_the_store(tmp_path):
    assert read("3=volume:shop.web1,ro", store=tmp_path).luns == (ExportedLun(3, volume="shop.web1", read_only=True),)


@pytest.mark.parametrize(
    ("text", "portal"),
    [
        ("127.0.0.1", ("127.0.0.1", 3260)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:3261", ("::1", 3261)),
        ("[::1]", ("::1", 3260)),
        ("::1", ("::1", 3260)),
    ],
)
def test_a_portal_is_an_address_and_a_port(text, portal):
    assert read("1=d", portals=(text,)).portals == (portal,)


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("192.0.2.9", Moved("192.0.2.9:3260")),
        ("[2001:db8::1]:3261,permanent", Moved("[2001:db8::1]:3261", permanent=True)),
        ("127.0.0.1:3261", Moved("127.0.0.1:3261")),
    ],
)
def test_a_target_may_be_elsewhere_and_has_no_disk_here(text, moved):
    options = read(moved=text)
    assert (options.moved, options.luns) == (moved, ())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("elsewhere", "--moved elsewhere: 'elsewhere' does not appear to be an IPv4 or IPv6 address; write an address"),
        ("192.0.2.9:0", "--moved 192.0.2.9:0: nobody can connect to 192.0.2.9:0; write the address and port of the"),
        ("192.0.2.9,forever", "--moved 192.0.2.9,forever: 'forever' is not 'permanent', and there is no other word"),
        ("127.0.0.1", "--moved 127.0.0.1: is this target itself; name the portal of the other one"),
    ],
)
def test_what_is_wrong_with_a_place_to_move_to(text, why):
    assert complaint(moved=text).startswith(why)


def test_a_target_that_is_elsewhere_serves_nothing():
    told = complaint("1=disk.img", moved="192.0.2.9")
    assert told == "--moved: nobody gets to a disk here any more; leave out --lun"


def test_the_first_line_of_a_file_is_the_secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text("twelve-octets\n")
    path.chmod(0o600)
    assert read("1=d", chap=f"web1:{path}").credentials == Credentials("web1", "twelve-octets")


def test_the_second_line_is_how_the_target_proves_itself(tmp_path):
    path = tmp_path / "secret"
    path.write_text("twelve-octets\nus twelve-others\n")
    path.chmod(0o600)
    assert read("1=d", chap=f"web1:{path}").credentials == Credentials("web1", "twelve-octets", "us", "twelve-others")


@pytest.mark.parametrize(
    ("luns", "why"),
    [
        (("disk.img",), "--lun disk.img: write a number, = and what is behind it, like 1=disk.img"),
        (("1=",), "like 1=disk.img"),
        ((), "--lun: there is none; say what to serve, like --lun 1=disk.img"),
        (("x=disk.img",), "'x' is no LUN; write a number from 0 to 16383"),
        (("-1=disk.img",), "'-1' is no LUN"),
        (("16384=disk.img",), "a LUN is 0 … 16383, not 16384"),
        (("1=a", "2=b", "1=c"), "LUN 1 is there 2 times; give each its own number"),
        (("1=disk.img,rw",), "'rw' is none of ro, removable, thick, 4k, and there is no file disk.img,rw"),
        (("1=volume:web1",), "which store is it in? Add --store DIR"),
        (("1=volume:web1,thick",), "leave out ,thick"),
    ],
)
def test_a_bad_lun_is_told(luns, why):
    assert why in complaint(*luns)


@pytest.mark.parametrize(
    "text", ["web1", "web1:3260", "1.2.3", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1", "[::1"]
)
def test_a_bad_portal_is_told(text):
    assert f"--portal {text}: " in complaint("1=d", portals=(text,))
    assert "write an address of this machine and a port, like 127.0.0.1:3260" in complaint("1=d", portals=(text,))


def test_a_portal_twice_is_told():
    assert "127.0.0.1:3260 is there 2 times" in complaint("1=d", portals=("127.0.0.1", "127.0.0.1:3260"))


@pytest.mark.parametrize("name", ["disk", "iqn.2026-11", "iqn.2026-13.dev.panloom:x", "", "iqn." + "x" * 230])
def test_a_bad_name_is_told(name):
    assert "--iqn" in complaint("1=d", iqn=name)


@pytest.mark.parametrize(
    ("mode", "content", "why"),
    [
        (0o644, b"twelve-octets", "keep it to yourself: chmod 600"),
        (0o660, b"twelve-octets", "keep it to yourself: chmod 600"),
        (0o600, b"eleven-octe", "has 11 octets; take 12 to 255"),
        (0o600, b"x" * 256, "has 256 octets"),
        (0o600, b"", "has 0 octets"),
        (0o600, "zwölf-oder-so".encode(), "is not ASCII"),
        (0o600, b"twelve-octets\nus short", "the second line of"),
        (0o600, b"twelve-octets\nus twelve-octets", "must not have the same secret"),
        (0o600, b"twelve-octets\na\nb", "has 3 lines"),
    ],
)
def test_a_bad_secret_is_told_and_never_shown(tmp_path, mode, content, why):
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    told = complaint("1=d", chap=f"web1:{path}")
    assert why in told
    assert not content or content.decode().partition("\n")[0] not in told


@pytest.mark.parametrize("text", ["web1", "web1:", ":secret", "web1:/does/not/exist", "web1:/"])
def test_a_bad_chap_option_is_told(text):
    assert f"--chap {text}: " in complaint("1=d", chap=text)


def test_all_errors_are_told_at_once():
    with pytest.raises(ConfigErrors) as caught:
        read("x=d", "99999=d", iqn="disk", portals=("nowhere",))
    assert len(caught.value.errors) == 4
