"""Values with a check or two spellings: parse undoes str, awkward spellings are read, all else is told."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from panloom.values import (
    Iqn,
    Lun,
    MacAddress,
    Vni,
    exact_duration,
    exact_size,
    format_size,
    natural_key,
    parse_duration,
    parse_size,
)

macs = st.integers(0, 2**48 - 1).map(MacAddress)


class TestMacAddress:
    @pytest.mark.parametrize(
        "text",
        [
            "52:54:00:ab:cd:ef",
            "52:54:00:AB:CD:EF",
            "52-54-00-ab-CD-ef",
            "5254.00ab.cdef",
            "525400abcdef",
            "525400ABCDEF",
        ],
    )
    def test_every_spelling_is_the_same_address(self, text):
        assert MacAddress.parse(text) == MacAddress(0x525400ABCDEF)
        assert str(MacAddress.parse(text)) == "52:54:00:ab:cd:ef"

    @given(macs)
    def test_parse_undoes_str(self, mac):
        assert MacAddress.parse(str(mac)) == mac
        assert MacAddress.parse(str(mac).replace(":", "-").upper()) == mac
        digits = str(mac).replace(":", "")
        assert MacAddress.parse(f"{digits[:4]}.{digits[4:8]}.{digits[8:]}") == MacAddress.parse(digits) == mac

    @given(macs)
    def test_decode_undoes_encode(self, mac):
        assert len(mac.to_octets()) == 6
        assert MacAddress.from_octets(mac.to_octets()) == mac

    @given(st.text(max_size=20) | st.from_regex(r"[0-9a-f:.\-]{10,18}", fullmatch=True))
    def test_any_text_parses_or_is_told(self, text):
        try:
            mac = MacAddress.parse(text)
        except ValueError as error:
            assert "write six pairs of hex digits" in str(error)
        else:
            assert MacAddress.parse(str(mac)) == mac

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:ef:01",
            "52:54:0:ab:cd:ef",
            "52:54-00:ab:cd:ef",
            "52 54 00 ab cd ef",
            "0x525400abcdef",
            "525400abcde",
            "525400abcdefg",
            "5254.00ab.cdef.",
            "52.54.00.ab.cd.ef",
            "52:54:00:ab:cd:eg",
            " 52:54:00:ab:cd:ef",
            "52:54:00:ab:cd:ef\n",
            "525400abcdef\n",
            "٥٢:54:00:ab:cd:ef",
            "+1:54:00:ab:cd:ef",
        ],
    )
    def test_what_is_no_address_is_told(self, text):
        with pytest.raises(ValueError, match="is no MAC address; write six pairs"):
            MacAddress.parse(text)

    @given(st.binary(max_size=12).filter(lambda octets: len(octets) != 6))
    def test_other_than_six_octets_are_refused(self, octets):
        with pytest.raises(ValueError, match="6 octets"):
            MacAddress.from_octets(octets)

    @given(macs, macs)
    def test_addresses_sort_as_their_octets(self, one, other):
        assert (one < other) == (one.to_octets() < other.to_octets())
        assert (one >= other) == (one.to_octets() >= other.to_octets())
        assert (one == other) == (hash(one) == hash(other))

    @pytest.mark.parametrize(
        ("text", "multicast", "local"),
        [
            ("52:54:00:00:00:01", False, True),
            ("02:50:4c:00:00:01", False, True),
            ("00:1b:21:00:00:01", False, False),
            ("01:00:5e:00:00:01", True, False),
            ("33:33:00:00:00:01", True, True),
            ("ff:ff:ff:ff:ff:ff", True, True),
        ],
    )
    def test_the_group_and_local_bits(self, text, multicast, local):
        mac = MacAddress.parse(text)
        assert (mac.is_multicast, mac.is_local) == (multicast, local)


class TestIqn:
    @pytest.mark.parametrize(
        "name",
        [
            "iqn.2026-11.dev.panloom:shop.web1",
            "iqn.2026-11.dev.panloom:shop.web1.personality",
            "iqn.2001-04.com.example",
            "iqn.2001-04.com.example:storage:diskarrays-sn-a8675309",
            "eui.02004567a425678d",
            "naa.52004567ba64678d",
            "naa.62004567ba64678d0123456789abcdef",
        ],
    )
    def test_names_of_the_standard_are_read(self, name):
        assert str(Iqn.parse(name)) == name
        assert Iqn.parse(name.upper()) == Iqn(name)

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "iqn.",
            "iqn.2026-13.dev.panloom",
            "iqn.2026-00.dev.panloom",
            "iqn.26-11.dev.panloom",
            "iqn.2026-11",
            "iqn.2026-11.dev.panloom:a b",
            "iqn.2026-11.dev.panloom:a/b",
            "iqn.2026-11.dev.panloom:a\n",
            "iqn.2026-11.dev.panloom:ä",
            "eui.02004567a425678",
            "naa.52004567ba64678d0",
            "web1",
        ],
    )
    def test_what_is_no_name_is_told(self, name):
        with pytest.raises(ValueError, match="is no iSCSI name; write one like"):
            Iqn.parse(name)

    def test_a_name_has_at_most_223_octets(self):
        longest = "iqn.2026-11.dev.panloom:".ljust(223, "x")
        assert str(Iqn.parse(longest)) == longest
        with pytest.raises(ValueError, match="at most 223 octets"):
            Iqn.parse(longest + "x")

    @given(st.text(max_size=40) | st.from_regex(r"iqn\.[0-9]{4}-[01][0-9]\.[a-z:.\-]{1,20}", fullmatch=True))
    def test_any_text_parses_or_is_told(self, text):
        try:
            name = Iqn.parse(text)
        except ValueError:
            return
        assert Iqn.parse(str(name)) == name
        assert str(name).isascii()


class TestLun:
    @given(st.integers(0, 16383))
    def test_parse_undoes_str(self, number):
        assert Lun.parse(str(Lun(number))) == Lun(number)

    @pytest.mark.parametrize("text", ["", "-1", "1.0", "0x1", "१", "²", "one", " 1"])
    def test_what_is_no_number_is_told(self, text):
        with pytest.raises(ValueError, match="write a number from 0 to 16383"):
            Lun.parse(text)

    @pytest.mark.parametrize("number", [-1, 16384, 2**64])
    def test_out_of_range_is_told(self, number):
        with pytest.raises(ValueError, match="0 … 16383"):
            Lun(number)


class TestVni:
    @given(st.integers(1, 2**24 - 1))
    def test_parse_undoes_str(self, number):
        assert Vni.parse(str(Vni(number))) == Vni(number)

    @pytest.mark.parametrize("text", ["0", "16777216", "-1", "0x10", "", "12 ", "١"])
    def test_what_is_no_vni_is_told_with_the_range(self, text):
        with pytest.raises(ValueError, match=r"1 (…|to) 16777215"):
            Vni.parse(text)


class TestSize:
    @pytest.mark.parametrize(
        ("text", "octets"),
        [
            ("4096", 4096),
            ("0", 0),
            ("10GiB", 10 << 30),
            ("10 GiB", 10 << 30),
            ("10G", 10 << 30),
            ("10gb", 10 << 30),
            ("1.5G", 3 << 29),
            ("512b", 512),
            (" 1 t ", 1 << 40),
            ("0.5k", 512),
        ],
    )
    def test_every_spelling_is_read(self, text, octets):
        assert parse_size(text) == octets

    @given(st.integers(0, 2**60), st.sampled_from([1, 1 << 10, 1 << 30]))
    def test_parse_undoes_exact_size(self, number, unit):
        octets = number // unit * unit
        assert parse_size(exact_size(octets)) == octets

    @given(st.integers(0, 2**20), st.sampled_from(["", "K", "M", "G", "T"]))
    def test_whole_numbers_are_exact(self, number, unit):
        assert parse_size(f"{number}{unit}") == number << 10 * " KMGT".index(unit or " ")

    @pytest.mark.parametrize("text", ["", "-1G", "1e3", "G", "10 PiB", "10GiBs", "ten", "1,5G", "1.G", "٣G"])
    def test_what_is_no_size_is_told(self, text):
        with pytest.raises(ValueError, match="is no size; write one like 10GiB"):
            parse_size(text)

    @pytest.mark.parametrize("text", ["8388608T", "9" * 400, "9" * 400 + "G"])
    def test_what_no_file_can_have_is_told(self, text):
        with pytest.raises(ValueError, match="less than 8 EiB"):
            parse_size(text)

    def test_a_part_of_an_octet_is_told(self):
        with pytest.raises(ValueError, match="whole number of octets"):
            parse_size("1.5")

    @pytest.mark.parametrize(
        ("octets", "text"),
        [
            (0, "0 B"),
            (512, "512 B"),
            (1024, "1 KiB"),
            (10 << 30, "10 GiB"),
            (3 << 29, "1.5 GiB"),
            (1 << 50, "1024 TiB"),
        ],
    )
    def test_sizes_are_written_as_people_read_them(self, octets, text):
        assert format_size(octets) == text

    @given(st.integers(0, 2**50))
    def test_what_is_written_reads_back_within_a_thousandth(self, octets):
        assert format_size(octets).split()[1] in ("B", "KiB", "MiB", "GiB", "TiB")
        number, unit = format_size(octets).split()
        factor = 1 << 10 * ("B", "KiB", "MiB", "GiB", "TiB").index(unit)
        assert abs(float(number) * factor - octets) <= octets / 1000


class TestDuration:
    @pytest.mark.parametrize("text", ["8785h", "9" * 400, "9" * 400 + "ms"])
    def test_what_never_ends_is_told(self, text):
        with pytest.raises(ValueError, match="longer than a year"):
            parse_duration(text)

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("500ms", 0.5), ("10s", 10.0), ("10", 10.0), ("2m", 120.0), ("1h", 3600.0), ("0.5 s", 0.5), (" 1.5m ", 90.0)],
    )
    def test_every_spelling_is_read(self, text, seconds):
        assert parse_duration(text) == pytest.approx(seconds)

    @pytest.mark.parametrize("text", ["", "-1s", "1d", "s", "1e3s", "1 2s", "10S", "inf", "nan", "٣s"])
    def test_what_is_no_duration_is_told(self, text):
        with pytest.raises(ValueError, match="is no duration; write one like 500ms"):
            parse_duration(text)

    @given(st.floats(1e-9, 86400) | st.integers(1, 86_400_000).map(lambda milliseconds: milliseconds / 1000))
    def test_parse_undoes_exact_duration(self, seconds):
        assert parse_duration(exact_duration(seconds)) == seconds

    @pytest.mark.parametrize(("seconds", "text"), [(10.0, "10s"), (0.5, "500ms"), (90.5, "90.5s"), (0.001, "1ms")])
    def test_exact_durations_are_short(self, seconds, text):
        assert exact_duration(seconds) == text


class TestNaturalKey:
    def test_names_sort_as_people_count(self):
        names = ["n10", "n2", "rack2n1", "n1", "db", "rack10n1", "n01", "n", "n1a", "52:54:00:77:00:99"]
        assert sorted(names, key=natural_key) == [
            "52:54:00:77:00:99", "db", "n", "n01", "n1", "n1a", "n2", "n10", "rack2n1", "rack10n1"
        ]  # fmt: skip

    @given(st.text(), st.text())
    def test_only_equal_names_are_equal(self, one, other):
        assert (natural_key(one) == natural_key(other)) == (one == other)
        assert natural_key(one) < natural_key(other) or natural_key(other) <= natural_key(one)
