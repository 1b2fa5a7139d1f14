#!/usr/bin/python3 -IS
"""``panloom agent``: what a server runs of Panloom's own; one file, which needs nothing but Debian's python3-minimal.

    /run/panloom/personality ─▶ beacon      that this server lives, each BEACON_SECONDS       ─▶ UDP, control node
                                report      what the machine and its system are, each 60 s    ─▶ UDP, control node
                                console     who this server is, above the prompt of a login   ─▶ /run/issue.d
                                watchdog    a word with each round                            ─▶ systemd

``wire.beacon`` has the form of both datagrams.  Nothing is answered, so that nothing is waited for: where the control
node is away the next round says it again, and a machine that was paused goes on with one round.  Nothing is written but
to /run, and what does not fit there is done without.  All that a round needs is in memory after the first one.
"""

import hashlib
import itertools
import os
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

REPORT_SECONDS = 60.0
LONGEST_REPORT = 1300  # octets of lines: with its head a datagram that fits into any frame
_RUN = Path("run/panloom")
_LINE = re.compile(r"^([A-Z0-9_]+)='([^']*)'$", re.MULTILINE)
_LONGEST_LINE = 128
_MOST_UNITS = 16
_SECTOR_OCTETS = 512
_LARGEST = 10**14 - 1  # of a counter that a clock gives, whatever that shows: 15 digits are read


def settings_of(text: str) -> dict[str, str]:
    """Return KEY → value of a personality; ValueError if it is none."""
    found = dict(_LINE.findall(text))
    if found.get("PANLOOM_PERSONALITY") != "1":
        raise ValueError("this is no personality of form 1")
    return found


class Voice:
    """Says who lives, under the key of its epoch; ``last`` is the counter of an earlier run, 0 if there was none."""

    def __init__(self, settings: Mapping[str, str], last: int = 0) -> None:
        self._key = settings["BEACON_KEY"]
        self._server = f"{settings['PAN']}/{settings['SERVER']}"
        self._epoch = int(settings["EPOCH"])
        self.counter = last

    def beacon(self, wall: float) -> bytes:
        """Return the next beacon; ``wall`` is the time of day in seconds, by which a restart counts on."""
        return self._head("1", wall).encode()

    def report(self, lines: Sequence[str], wall: float) -> bytes:
        """Return a report, which is a sign of life as well; lines that do not fit are left out."""
        body = b""
        for line in lines:
            octets = _printable(line).encode() + b"\n"
            if len(body) + len(octets) <= LONGEST_REPORT:
                body += octets
        return self._head("report", wall, ":" + hashlib.sha256(body).hexdigest()).encode() + b"\n" + body

    def _head(self, form: str, wall: float, more: str = "") -> str:
        # Milliseconds: what an agent said that ended, or a system before its reset, is less.
        self.counter = max(self.counter + 1, min(int(wall * 1000), _LARGEST))
        about = f"{self._server}:{self._epoch}:{self.counter}"
        digest = hashlib.sha256(f"{self._key}:{about}{more}".encode()).hexdigest()
        return f"panloom {form} {self._server} {self._epoch} {self.counter} {digest}"


def report_of(root: Path) -> Iterator[str]:
    """Return what the machine and its system are, as lines ``WORD=VALUE`` (``decide.inventory``)."""
    yield f"arch={os.uname().machine}"
    yield f"kernel={os.uname().release}"
    release = dict(re.findall(r'^([A-Z_]+)="?([^"\n]*)', _read(root / "etc/os-release"), re.MULTILINE))
    yield f"system={release.get('PRETTY_NAME', '')}"
    processors = re.findall(r"^model name\s*: *(.*)", _read(root / "proc/cpuinfo"), re.MULTILINE)
    if processors:
        yield f"cpu={processors[0]}"
    yield f"cores={os.cpu_count() or 0}"
    yield f"memory={_memory_octets(root)}"
    for word, name in (
        ("manufacturer", "sys_vendor"),
        ("product", "product_name"),
        ("serial", "product_serial"),
        ("uuid", "product_uuid"),
    ):
        yield f"{word}={_read(root / 'sys/class/dmi/id' / name)}"
    for nic in _devices(root / "sys/class/net"):
        driver = Path(os.path.realpath(nic / "device/driver")).name
        yield f"nic={_read(nic / 'address')} {_read(nic / 'carrier') or 0} {driver}"
    for disk in _devices(root / "sys/block"):
        octets = int(_read(disk / "size") or 0) * _SECTOR_OCTETS
        yield f"disk={disk.name} {octets} {_read(disk / 'device/model')}"
    for unit in _read(root / _RUN / "failed-units").split()[:_MOST_UNITS]:  # last: what does not fit is left out
        yield f"failed={unit}"


def _memory_octets(root: Path) -> int:
    """Return how much there is, by the blocks that the kernel can take out; else what the kernel has to itself."""
    place = root / "sys/devices/system/memory"
    block = int(_read(place / "block_size_bytes") or "0", 16)
    blocks = len(list(place.glob("memory[0-9]*"))) if block else 0
    if blocks:
        return blocks * block
    total = re.search(r"^MemTotal: *([0-9]+) kB", _read(root / "proc/meminfo"), re.MULTILINE)
    return int(total[1]) * 1024 if total else 0


def _devices(place: Path) -> Sequence[Path]:
    """Return what has hardware, or an emulator's, below it."""
    try:
        return sorted(one for one in place.iterdir() if (one / "device").exists())
    except OSError:
        return ()


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:  # another machine, or an older kernel, has no such thing
        return ""


def _printable(line: str) -> str:
    return re.sub(r"[^ -~]", "", line)[:_LONGEST_LINE]


def banner(settings: Mapping[str, str]) -> str:
    """Return what stands above the prompt of a login (issue(5)): which server this is, where, and at what address."""
    nics = range(int(settings.get("NICS", "0")))
    addresses = [address for nic in nics if (address := settings.get(f"NIC{nic}_ADDRESS"))]
    at = f" at {', '.join(addresses)}" if addresses else ""
    return f"{settings['PAN']}/{settings['SERVER']}{at}, on node {settings['NODE']} (epoch {settings['EPOCH']})\n\n"


class Agent:
    """The rounds of one run; ``root`` is where the system's /run, /proc and /sys are."""

    def __init__(self, settings: Mapping[str, str], root: Path) -> None:
        self._root = root
        self._notebook = root / _RUN / "agent-counter"
        self._to = (settings.get("BEACON_ADDRESS", ""), int(settings.get("BEACON_PORT", "0")))
        last = re.fullmatch("[0-9]{1,14}", _read(self._notebook))
        self._voice = Voice(settings, int(last[0]) if last else 0)
        self._banner = banner(settings)
        self._report_at = float("-inf")
        self._failed = ""
        self._mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._mouth.setblocking(False)

    def begin(self) -> None:
        """Do what is done once."""
        self._write(self._root / "run/issue.d/panloom.issue", self._banner)

    def round(self, now: float, wall: float) -> None:
        """Say that this server lives; ``now`` are monotonic seconds."""
        failed = _read(self._root / _RUN / "failed-units")
        if failed != self._failed:
            self._failed, self._report_at = failed, float("-inf")
            self._tell_console(
                f"PANLOOM units failed: {' '.join(failed.split())}" if failed else "PANLOOM units mended"
            )
        if now >= self._report_at:
            self._report_at = now + REPORT_SECONDS
            self._say(self._voice.report(tuple(report_of(self._root)), wall))
        else:
            self._say(self._voice.beacon(wall))
        self._write(self._notebook, str(self._voice.counter))

    def _say(self, datagram: bytes) -> None:
        try:
            self._mouth.sendto(datagram, self._to)
        except OSError:  # no way there just now, or nobody: the next round says it again
            pass

    def _tell_console(self, line: str) -> None:
        """Write a line to the serial line, unless that takes none."""
        try:
            place = os.open(self._root / "dev/console", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            return
        try:
            os.write(place, f"\n{_printable(line)}\n".encode())
        except OSError:
            pass
        finally:
            os.close(place)

    def _write(self, path: Path, text: str) -> None:
        """Have a file hold a text, whole or as before; where there is no room, as before."""
        new = path.with_name(f"{path.name}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(text)
            new.replace(path)
        except OSError:
            new.unlink(missing_ok=True)


def _tell_systemd(word: str) -> None:
    """Send a word of sd_notify(3); nothing where nobody waits for it."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mouth:
        mouth.setblocking(False)
        try:
            mouth.sendto(word.encode(), "\0" + place[1:] if place.startswith("@") else place)
        except OSError:  # systemd is busy, or restarts itself
            pass


def main(root: Path = Path("/")) -> int:
    """Be the agent of the system below ``root`` until killed; return 1 where there is no personality."""
    place = root / _RUN / "personality"
    try:
        settings = settings_of(place.read_text(errors="replace"))
        agent, seconds = Agent(settings, root), float(settings.get("BEACON_SECONDS", "1"))
    except (OSError, ValueError, KeyError) as error:
        print(f"panloom agent: {place}: {error}; the initramfs of the image writes it", file=sys.stderr)
        return 1
    agent.begin()
    for said in itertools.count():
        agent.round(time.monotonic(), time.time())
        _tell_systemd("WATCHDOG=1" if said else "READY=1\nWATCHDOG=1")
        time.sleep(seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))
