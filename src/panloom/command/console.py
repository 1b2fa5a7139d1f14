"""``panloom console``: a node's serial line at one's own terminal, now or as it was.

keyboard ──▶ POST …/console ──▶ serial line ──▶ GET …/console ──▶ screen            ^] leaves
"""

import contextlib
import http.client
import os
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator

import click

from panloom.command.output import say
from panloom.control.client import Client
from panloom.control.console_log import time_of
from panloom.errors import PanloomError

LEAVE = b"\x1d"  # ^]
MAX_GAP_SECONDS = 2.0


@click.command("console", short_help="Look at a node's serial line, and type there.")
@click.argument("node", metavar="NODE")
@click.option("--replay", is_flag=True, help="Show what was written down of it, line by line in its own time.")
@click.option("--speed", type=click.FloatRange(min=0), default=1.0, help="Replay so many times as fast; 0: at once.")
@click.option("--read-only", is_flag=True, help="Leave the keyboard to others.")
@click.pass_obj
def command(client: Client, node: str, speed: float, *, replay: bool, read_only: bool) -> int:
    """Look at the serial line of NODE, from firmware to login, whether or not a system runs there. ^] leaves.

    Who comes first types; who comes later reads.  From another machine: ssh -t CONTROLNODE panloom console NODE.  The
    platform's document says who may do that: consoles: {type: [ada, group:operators], read: [group:staff]}
    """
    if replay:
        _replay(client.get("nodes", node, "console", "log")["log"], speed)
        return 0
    with client.stream("nodes", node, "console", types=not read_only) as line:
        keyboard = line.headers.get("panloom-keyboard", "")
        reads = "" if keyboard else f" You read; {line.headers.get('panloom-reads', '')}."
        ended = threading.Event()
        with _raw_terminal() as end_of_line:
            say(f"{node}: its console. Leave with ^].{reads}{end_of_line}")
            threading.Thread(target=_show, args=(line, ended), daemon=True).start()
            _type(client, node, keyboard, ended)
        is_lost = ended.is_set()
    if is_lost:
        say(f"\n{node}: the control process has gone, and its console with it. See: panloom status")
        return 1
    say(f"\n{node}: you have left its console.")
    return 0


def _show(line: http.client.HTTPResponse, ended: threading.Event) -> None:
    """Copy the line to the screen until it ends: the control process went, or the connection is closed as we leave."""
    with contextlib.suppress(OSError, ValueError, AttributeError, http.client.HTTPException):
        while octets := line.read1(4096):
            sys.stdout.buffer.write(octets)
            sys.stdout.buffer.flush()
    ended.set()


def _type(client: Client, node: str, keyboard: str, ended: threading.Event) -> None:
    """Send what is typed until ^], the end of the input or of the line."""
    import select

    while not ended.is_set():
        if not select.select([sys.stdin], [], [], 0.2)[0]:
            continue
        octets, leave, _ = os.read(sys.stdin.fileno(), 1024).partition(LEAVE)
        if octets and keyboard:
            try:
                client.post("nodes", node, "console", body={"keyboard": keyboard, "octets": octets.decode("latin-1")})
            except PanloomError as error:
                sys.stderr.write(f"\r\npanloom: {error}\r\n")
        if leave or not octets:
            return


@contextlib.contextmanager
def _raw_terminal() -> Iterator[str]:
    """Hand every key over as it is pressed; the terminal is as before afterwards, however this ends.

    Yields what a line of ours must end with meanwhile, before its newline.
    """
    if not sys.stdin.isatty():
        yield ""
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin, termios.TCSADRAIN)  # what was typed already counts
        yield "\r"
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _replay(log: str, speed: float) -> None:
    last: float | None = None
    for text in log.splitlines():
        at = time_of(text)
        if speed and at is not None and last is not None:
            time.sleep(min(max(0.0, at - last), MAX_GAP_SECONDS) / speed)
        last = at or last
        click.echo(text)
