"""Lines of data: as wide as they are in a pipe, folded on a terminal that is too narrow."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from panloom.command import changes
from panloom.command.columns import server_state
from panloom.command.output import emit_folded, emit_table

ROWS = (("n1", "its power switch does not answer and nobody has seen it go off"), ("n2", ""))
PRINT = f"from panloom.command.output import emit_table; emit_table(('NODE', 'WHY'), {ROWS!r}, indent='  ')"


def on_a_terminal(columns):
    far, near = pty.openpty()
    fcntl.ioctl(near, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"} | {"NO_COLOR": "1"}
    with os.fdopen(far, "rb", buffering=0) as screen:
        process = subprocess.Popen([sys.executable, "-c", PRINT], stdout=near, env=environment)
        os.close(near)
        seen = b""
        try:
            while octets := screen.read(4096):
                seen += octets
        except OSError:  # the process has ended
            pass
        assert process.wait() == 0
    return seen.decode().split("\r\n")[:-1]


def test_a_table_is_as_wide_as_it_is_in_a_pipe(capsys):
    emit_table(("NODE", "WHY"), ROWS)
    assert capsys.readouterr().out.splitlines() == ["NODE  WHY", f"n1    {ROWS[0][1]}", "n2"]


def test_a_table_of_one_column_and_an_empty_one(capsys):
    emit_table(("NAME",), (("a",), ("b",)))
    emit_table((), ())
    assert capsys.readouterr().out == "NAME\na\nb\n"


def test_the_last_column_is_folded_on_a_terminal_that_is_too_narrow():
    assert on_a_terminal(40) == [
        "  NODE  WHY",
        "  n1    its power switch does not answer",
        "        and nobody has seen it go off",
        "  n2",
    ]


@pytest.mark.parametrize("columns", [200, 24])
def test_it_is_not_folded_where_it_fits_or_hardly_any_room_is_left(columns):
    assert on_a_terminal(columns) == ["  NODE  WHY", f"  n1    {ROWS[0][1]}", "  n2"]


def test_a_text_without_words_is_a_line(capsys):
    emit_folded("at 12:00  ", "")
    assert capsys.readouterr().out == "at 12:00\n"


def test_a_servers_state_says_more_where_there_is_more_to_say():
    assert server_state({"state": "up", "moves": 0}) == "up"
    assert server_state({"state": "up", "moves": 2}) == "up (moved)"
    assert server_state({"state": "dead", "detail": "silent", "moves": 2}) == "dead (silent)"


def test_a_plan_ends_with_what_will_go_wrong_later(capsys):
    changes.show({"changes": [], "warnings": ["no spare for shop/web1: no machine is free"]})
    assert capsys.readouterr().err == "warning: no spare for shop/web1: no machine is free\n"
