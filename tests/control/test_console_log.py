"""What a machine says on its serial line, whole lines with the time of each."""

import re

from hypothesis import given
from hypothesis import strategies as st

from panloom.control import console_log as console
from panloom.control.console_log import ConsoleLog, readable

AT = 1_700_000_000.25


def written(path, *pieces):
    path.unlink(missing_ok=True)
    with ConsoleLog(path) as log:
        for piece in pieces:
            log.write(piece, AT)
    return path.read_bytes()


def texts(octets):
    lines = octets.splitlines()
    assert all(re.match(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} ", line) for line in lines)
    return [line[24:] for line in lines]


def test_known_octets(tmp_path):
    said = b"iPXE> \x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS\r\n\r\nBooting from ROM...\rok\r\nPANLOOM stage=kernel t=1.89\n"
    assert texts(written(tmp_path / "log", said)) == [
        b"iPXE>",
        b"SeaBIOS",
        b"Booting from ROM...",
        b"ok",
        b"PANLOOM stage=kernel t=1.89",
    ]


def test_what_is_taken_back_stays_and_a_line_can_do_nothing_to_a_terminal(tmp_path):
    said = b"Press Ctrl-B...\x08 \x08\x08 \x08net0: up\x07\r\n\x1b]0;title\x07login: na\x08me\x9b31m\n"
    assert texts(written(tmp_path / "log", said)) == [b"Press Ctrl-B...", b"net0: up", b"login: na", b"me\x9b31m"]
    assert readable(b"me\x9b31m \xc2\x9b31m \xe2\x9c\x93") == "me\ufffd31m 31m \u2713"


def test_last_line_needs_no_end(tmp_path):
    assert texts(written(tmp_path / "log", b"Kernel panic", b" - not syncing")) == [b"Kernel panic - not syncing"]


def test_line_without_end_is_cut(tmp_path):
    lines = texts(written(tmp_path / "log", *[b"x" * 1000] * 9))
    assert b"".join(lines) == b"x" * 9000
    assert len(lines) == 2


def test_cap_199_a_full_log_becomes_the_one_before(tmp_path, monkeypatch):
    monkeypatch.setattr(console, "MAX_OCTETS", 160)
    log = tmp_path / "log"
    written(log, *[b"%03d\n" % number for number in range(10)])
    assert texts(log.with_name("log.1").read_bytes())[-1] == b"005"
    assert texts(log.read_bytes()) == [b"006", b"007", b"008", b"009"]


@given(st.lists(st.binary(max_size=40).filter(lambda line: b"\r" not in line and b"\n" not in line)), st.data())
def test_cut_anywhere_same_lines(tmp_path_factory, lines, data):
    path = tmp_path_factory.getbasetemp() / "console"
    said = b"".join(line + b"\r\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(said)), max_size=5)))
    pieces = [said[start:end] for start, end in zip([0, *cuts], [*cuts, len(said)], strict=True)]
    assert texts(written(path, *pieces)) == texts(written(path, said))
