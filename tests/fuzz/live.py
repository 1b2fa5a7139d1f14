"""A live target under a million wrong PDUs: it answers everybody else, and loses neither files nor memory.

    make fuzz PDUS=1000000                goes on where it was stopped; the result is bench/results/fuzz_live.json
    python tests/fuzz/live.py NUMBER      the connection of this number once more, at a target of its own

Each connection logs in, mostly, says some PDUs without waiting, closes its half and reads to the end, which must come.
Another session pings the target after each of them.
"""

import random
import selectors
import socket
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from campaign.tally import Tally
from fuzz.live_pdus import BLOCKS, LivePdus
from panloom.wire import iscsi
from panloom.wire.iscsi import FINAL, LoginRequest, NopOut
from panloom.wire.iscsi_text import encode_text
from support.initiator import Initiator, connect
from support.target_process import TargetProcess
from support.waiting import until

QUESTION = "Does a target live on, and serve all others, whatever an initiator says?"
PDUS = 32  # of one connection
PATIENCE_SECONDS = 20.0
AT_A_TIME = 200  # connections between two looks at the target's files and memory
OF_ONE_PROCESS = 2000  # connections
GROWTH_KIB = 32 << 10  # of memory, from the first look to the last: 16 threads' heaps, and what is registered
INITIATOR = "iqn.2026-11.dev.panloom:node.n1"


class FindingError(AssertionError):
    """What a target must not do."""


@contextmanager
def serving():
    """Lend a target with three units: one plain, one removable, one write-protected."""
    with tempfile.TemporaryDirectory(prefix="panloom-fuzz-") as name:
        directory = Path(name)
        for number in (1, 2, 3):
            with (directory / f"{number}.img").open("wb") as file:
                file.truncate(BLOCKS * 512)
        luns = (f"1={directory}/1.img", f"2={directory}/2.img,removable", f"3={directory}/3.img,ro")
        with TargetProcess(directory, *(word for lun in luns for word in ("--lun", lun))) as target:
            yield target


class LiveTarget:
    """A target, and somebody else who uses it all the time."""

    def __init__(self, target):
        self._target = target
        self._portal = f"127.0.0.1:{target.ports[0]}"
        self._other = self._log_in()
        self.resets = 0  # TARGET COLD RESET ends everybody's session
        self._tag = 0
        self._size = self.size

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._other.sock.close()

    def _log_in(self):
        return Initiator(connect(self._portal), self._names("other")).log_in_plainly()

    def _names(self, name):
        return {"InitiatorName": f"{INITIATOR}.{name}", "TargetName": self._target.iqn, "SessionType": "Normal"}

    @property
    def size(self):
        """How many files the process has open, and its memory in KiB."""
        place = Path(f"/proc/{self._target.process.pid}")
        memory = next(line for line in (place / "status").read_text().splitlines() if line.startswith("VmRSS"))
        return len(list((place / "fd").iterdir())), int(memory.split()[1])

    def say(self, number):
        """Open the connection of this number; return how many PDUs it said, and how many came back."""
        chance = random.Random(number)
        said = [] if chance.random() < 0.1 else [self._login(chance)]
        said += LivePdus(chance, cmd_sn=1).some(PDUS)
        with connect(self._portal) as sock:
            came = _converse(sock, b"".join(said))
        return len(said), _pdus(came)

    def _login(self, chance):
        text = bytearray(encode_text([*self._names("fuzz").items(), *_KEYS[chance.randrange(len(_KEYS))]]))
        if chance.random() < 0.1:
            text[chance.randrange(len(text))] = chance.randrange(256)
        request = LoginRequest(
            flags=FINAL | 7, isid=chance.randbytes(6), initiator_task_tag=1, cmd_sn=1, data=bytes(text)
        )
        octets = bytearray(iscsi.encode(request))
        if chance.random() < 0.1:
            octets[chance.randrange(1, 48)] ^= 1 << chance.randrange(8)
        return bytes(octets)

    def ask(self):
        """Have the other session answered, a new one where a reset has ended it."""
        if not self._answers():
            self._other.sock.close()
            self.resets += 1
            try:
                self._other = self._log_in()
                answered = self._answers()
            except OSError as error:
                raise FindingError(f"nobody can log in ({error}): {self._ended()}") from error
            if not answered:
                raise FindingError(f"a session of somebody else has ended twice: {self._ended()}")

    def _answers(self):
        self._tag += 1
        try:
            self._other.send(NopOut(initiator_task_tag=self._tag, cmd_sn=self._other.cmd_sn, immediate=True, data=b"?"))
        except (BrokenPipeError, ConnectionResetError):
            return False
        while (answer := self._other.receive()) is not None:
            if isinstance(answer, iscsi.NopIn) and answer.initiator_task_tag == self._tag:
                return True
        return False

    def look(self):
        """See that it lives, has nothing open that is over, has not grown, and wrote no traceback."""
        until(lambda: self.size[0] <= self._size[0], "the target closes what is over", seconds=PATIENCE_SECONDS)
        if self.size[1] > self._size[1] + GROWTH_KIB:
            raise FindingError(f"it has grown from {self._size[1]} to {self.size[1]} KiB")
        if "Traceback" in self._target.told:
            raise FindingError(self._target.told)

    def _ended(self):
        return f"status {self._target.process.poll()}: {self._target.told[-2000:]}"


_KEYS = (
    (("InitialR2T", "No"), ("ImmediateData", "Yes")),
    (("InitialR2T", "Yes"), ("ImmediateData", "No")),
    (("InitialR2T", "No"), ("FirstBurstLength", "512"), ("MaxBurstLength", "1024")),
    (("MaxRecvDataSegmentLength", "512"),),
    (("HeaderDigest", "CRC32C,None"), ("DataDigest", "CRC32C,None")),
)


def _converse(sock, octets):
    """Say all of it, read to the end, both at once; return what came."""
    sock.setblocking(False)
    deadline, came, view = time.monotonic() + PATIENCE_SECONDS, bytearray(), memoryview(octets)
    with selectors.DefaultSelector() as selector, suppress(OSError):  # reset, whenever that is noticed
        selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while True:
            for _, events in selector.select(0.5):
                if events & selectors.EVENT_READ:
                    piece = sock.recv(1 << 18)
                    if not piece:
                        return bytes(came)
                    came += piece
                if events & selectors.EVENT_WRITE:
                    view = view[sock.send(view) :]
                    if not view:
                        sock.shutdown(socket.SHUT_WR)
                        selector.modify(sock, selectors.EVENT_READ)
            if time.monotonic() > deadline:
                raise FindingError(f"the connection is still open after {PATIENCE_SECONDS:g} s")
    return bytes(came)


def _pdus(octets):
    """Return how many PDUs these are; only whole ones, and none with digests."""
    at = count = 0
    while at + iscsi.HEADER_OCTETS <= len(octets):
        _, data = iscsi.header_lengths(octets[at : at + iscsi.HEADER_OCTETS])
        at += iscsi.HEADER_OCTETS + data + -data % 4
        count += 1
    return count


class LiveFuzz:
    """So many PDUs, connection after connection; what was found is kept with its number."""

    def __init__(self, wanted, *, fresh=False):
        self._wanted = wanted
        self._tally = Tally("fuzz_live", {"pdus_of_one_connection": PDUS}, fresh=fresh)
        for name in ("connections", "pdus", "answers", "resets"):
            self._tally.done.setdefault(name, 0)
        self._tally.done.setdefault("findings", [])

    @property
    def findings(self):
        """What was found, each with the number of its connection."""
        return self._tally.done["findings"]

    @property
    def answers(self):
        """How many PDUs came back."""
        return self._tally.done["answers"]

    def run(self, until_time):
        """Go on until all was said, or a monotonic time; return whether all was."""
        while self._tally.done["pdus"] < self._wanted:
            with serving() as process, LiveTarget(process) as live:
                if not self._with(live, until_time):
                    return False
        return True

    def _with(self, live, until_time):
        done = self._tally.done
        try:
            for _ in range(OF_ONE_PROCESS):
                if done["pdus"] >= self._wanted:
                    break
                if time.monotonic() > until_time:
                    return False
                done["connections"] += 1
                pdus, answers = live.say(done["connections"])
                done["pdus"] += pdus
                done["answers"] += answers
                live.ask()
                if done["connections"] % AT_A_TIME == 0:
                    live.look()
                    self._tally.save()
                    print(self, flush=True)
            live.look()
        except (AssertionError, OSError) as error:
            done["findings"].append({"connection": done["connections"], "what": str(error)})
            print(f"FOUND connection {done['connections']}: {error}", flush=True)
            print(f"again: scripts/run python tests/fuzz/live.py {done['connections']}", flush=True)
        done["resets"] += live.resets
        self._tally.save()
        return True

    def __str__(self):
        done = self._tally.done
        rate = done["pdus"] / max(self._tally.seconds, 1e-3)
        return (
            f"{'live':22} {done['pdus']:>10,} PDUs, {rate:,.0f}/s, {done['connections']:,} connections, "
            f"{len(self.findings)} findings"
        )

    def report(self, path):
        """Write the result down."""
        self._tally.report(path, QUESTION, {"pdus": f">= {self._wanted}", "findings": 0}, self._tally.done)


def main():
    """Open one connection again."""
    with serving() as process, LiveTarget(process) as live:
        print("{} PDUs said, {} came".format(*live.say(int(sys.argv[1]))))
        live.ask()
        live.look()


if __name__ == "__main__":
    main()
