"""A whole lab in a network namespace of its own: supervisor, storage and control processes, machines.

    with running_lab(tmp_path, writer=True) as lab:
        lab.apply(WEB)
        lab.until_up("shop/web1")

Everything is real: firmware, kernels, processes; with ``chassis`` the machines may be emulated ones, which take a
fraction of a second where QEMU takes ten.  Whatever the lab started ends with it.
"""

import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from panloom.decide.records import initiator_of
from panloom.lab import disk_marks
from panloom.lab.chassis import Chassis, documents
from panloom.lab.disk_marks import Mark
from panloom.lab.image import SECTOR_OCTETS, WRITER_RING, build_image
from panloom.lab.running import RunningLab
from support.namespaces import LoopInside, Namespace, namespace
from support.volume_reader import read_volume
from support.waiting import until

PACKAGES = Path(os.environ.get("PANLOOM_PACKAGES", Path(__file__).parents[2] / ".cache" / "debian"))
IMAGES = Path(__file__).parents[2] / ".cache" / "tests" / "images"
BOOT_SECONDS = 60.0
PATIENT = {"interval": "0.25s", "timeout": "5s"}
"""Liveness of emulated machines where silence is not what is tested: a loaded machine may stand still for a second."""
ETH_ALL = 3
OUTGOING = 4  # linux/if_packet.h: PACKET_OUTGOING
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
LISTENING_OCTETS = 64 << 20  # a listener that others keep from running loses nothing meanwhile

Result = TypeVar("Result")
Event = Mapping[str, Any]


def pan(
    *,
    servers: str = "web[1-2]",
    address: str = "10.1.0.1[1-2]",
    name: str = "shop",
    subnet: str = "10.1.0.0/24",
    more: str = "",
) -> str:
    """Return a PAN document."""
    return f"""
apiVersion: panloom/v1
kind: PAN
name: {name}
lans:
  front: {{subnet: {subnet}}}
servers:
  {servers}:
    image: web
    nics:
      - {{lan: front, address: "{address}"}}
    {more}
"""


ONE = pan(servers="web1", address="10.1.0.11")


def image(*, writer: bool) -> Path:
    """Return a bootable image, built once; ``writer`` makes its machines write their tag without pause."""
    path = IMAGES / ("writer.img" if writer else "web.img")
    build_image(PACKAGES, path, extra_files={"/panloom-writer": b""} if writer else None)
    return path


class LabInTest:
    """A running lab, driven from a test without a loop of its own."""

    def __init__(self, lab: RunningLab, inside: Namespace, loop: LoopInside, image: Path) -> None:
        self.lab = lab
        self.inside = inside
        self.loop = loop
        self.image = image

    def call(self, work: Coroutine[Any, Any, Result], seconds: float = 60.0) -> Result:
        """Run a coroutine inside the lab's namespace."""
        return self.loop.call(work, seconds=seconds)

    def apply(self, text: str, name: str = "test.yaml") -> Mapping[str, Any]:
        """Apply documents."""
        return self.call(self.lab.apply_text(name, text))

    def declare(self, **changes: object) -> None:
        """Apply the chassis's platform document with changes; of a part, what a mapping names is changed."""
        text = documents(self.lab.chassis, power_socket=self.lab.power_socket, image=self.image)
        document = next(iter(yaml.safe_load_all(text)))
        for name, change in changes.items():
            document[name] = {**document.get(name, {}), **change} if isinstance(change, dict) else change
        self.apply(yaml.safe_dump(document), "platform.yaml")

    def power(self, node: str, action: str) -> bool:
        """Do something to a machine behind Panloom's back."""
        return self.call(self.lab.power(node, action))

    def server(self, name: str) -> Mapping[str, Any]:
        """Return a server's row."""
        return self.call(self.lab.get("resources", "server", name))

    def node(self, name: str) -> Mapping[str, Any]:
        """Return a node's row."""
        return self.call(self.lab.get("resources", "node", name))

    def page(self, address: str = "10.1.0.11") -> Mapping[str, str] | None:
        """Return what the server at an address says of itself, None if it does not answer."""
        return self.call(self.lab.page(address))

    def events(self, kind: str | None = None, *, after: int = 0, **facts: object) -> list[Event]:
        """Return the events of a kind after a number, with these facts."""
        events = self.call(self.lab.get("events", after=after))["events"]
        return [
            event
            for event in events
            if (kind is None or event["kind"] == kind) and all(event.get(name) == fact for name, fact in facts.items())
        ]

    def last_event(self) -> int:
        """Return the number of the newest event."""
        return max((event["number"] for event in self.events()), default=0)

    def until_event(self, kind: str, *, after: int = 0, seconds: float = 30.0, **facts: object) -> Event:
        """Wait for an event and return it."""
        return until(lambda: self.events(kind, after=after, **facts), f"event {kind} {facts}", seconds=seconds)[0]

    def until_up(
        self, server: str, *, seconds: float = BOOT_SECONDS, not_on: Collection[str] = ()
    ) -> Mapping[str, Any]:
        """Wait until a server is up, on another node than ``not_on``; the consoles tell what went wrong."""

        def is_up() -> Mapping[str, Any] | None:
            row = self.server(server)
            return row if row["state"].startswith("up") and row["node"] not in not_on else None

        return self._until_or_tell(is_up, f"{server} is up", seconds)

    def until_adopted(self, node: str) -> None:
        """Wait until the node's iscsid has taken over the session to its disk: from then on it may lose its target."""
        until(
            lambda: self.disk_logins(node) >= 3, f"{node} has logged in by firmware, iscsistart and iscsid", seconds=30
        )

    def logins(self) -> list[tuple[str, str]]:
        """Return the target and the initiator of each login so far, as the storage process tells."""
        told = re.findall(
            r"event=login .*initiator=(\S+) target=(\S+) ", (self.lab.directory / "storage.log").read_text()
        )
        return [(target, initiator) for initiator, target in told]

    def disk_logins(self, node: str) -> int:
        """Return how often a node has logged in to a disk."""
        own = str(initiator_of(node))
        return sum(initiator == own and "personality" not in target for target, initiator in self.logins())

    def until_answers(self, server: str, *, epoch: int = 1, seconds: float = BOOT_SECONDS) -> Mapping[str, str]:
        """Wait until a server's page is there, under this epoch or a later one."""
        address = self.server(server)["address"][0]

        def answers() -> Mapping[str, str] | None:
            page = self.page(address)
            return page if page and page["server"] == server and int(page["epoch"]) >= epoch else None

        return self._until_or_tell(answers, f"{server} answers under epoch {epoch}", seconds)

    def _until_or_tell(self, fact: Callable[[], Result | None], what: str, seconds: float) -> Result:
        try:
            return until(fact, what, seconds=seconds)
        except AssertionError as error:
            tails = [
                f"--- {machine.name}\n" + "\n".join(self.lab.console_tail(machine.name, 8))
                for machine in self.lab.chassis.machines
            ]
            log = (self.lab.directory / "control.log").read_text().splitlines()[-15:]
            raise AssertionError("\n".join([str(error), *tails, "--- control", *log])) from error

    def tags(self, server: str = "shop.web1") -> dict[int, tuple[int, int]]:
        """Return the writer's ring as it is on the volume: sector → (epoch, counter).

        AssertionError if a sector is neither tag nor empty.
        """
        octets = self._volume(server, range(WRITER_RING.start * SECTOR_OCTETS, WRITER_RING.stop * SECTOR_OCTETS))
        found = {}
        for number, sector in enumerate(WRITER_RING):
            text = octets[number * SECTOR_OCTETS : (number + 1) * SECTOR_OCTETS]
            if any(text):
                words = text.decode("ascii").strip().split(":")
                assert len(words) == 3, f"sector {sector} is torn: {text!r}"
                found[sector] = (int(words[1]), int(words[2]))
        return found

    def marks(self, server: str) -> Mapping[int, Mark]:
        """Return the ring that an emulated machine writes, as it is on a server's volume: number → mark."""
        end = disk_marks.RING_OFFSET + disk_marks.RING_MARKS * disk_marks.MARK_OCTETS
        return disk_marks.ring(self._volume(server.replace("/", "."), range(disk_marks.RING_OFFSET, end)))

    def _volume(self, name: str, octets: range) -> bytes:
        return read_volume(self.lab.directory / "volumes", name, octets)

    def console(self, node: str) -> list[str]:
        """Return what a machine's serial line has said, without the times."""
        return [line.split(" ", 2)[-1] for line in self.lab.console_tail(node, 1 << 20)]


class Sniffer:
    """Listens at an interface of the lab for frames that a predicate picks, until it is closed."""

    def __init__(self, inside: Namespace, interface: str, wanted: Callable[[bytes, int], bool]) -> None:
        def make() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_ALL))
            made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, LISTENING_OCTETS)
            made.bind((interface, ETH_ALL))
            made.settimeout(0.1)
            return made

        self._socket = inside.socket(make)
        self._wanted = wanted
        self._ended = threading.Event()
        self.seen: list[tuple[float, bytes]] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._ended.is_set():
            try:
                frame, (_, _, direction, _, _) = self._socket.recvfrom(2048)
            except TimeoutError:
                continue
            if self._wanted(frame, direction):
                self.seen.append((time.monotonic(), frame))

    def close(self) -> list[tuple[float, bytes]]:
        """End, and return what was seen: (monotonic seconds, frame)."""
        self._ended.set()
        self._thread.join()
        self._socket.close()
        return self.seen


def is_from(frame: bytes, mac: str, address: str) -> bool:
    """Whether a frame claims a MAC as its source or ARP sender, or an IPv4 address as its sender."""
    claimed = bytes.fromhex(mac.replace(":", ""))
    packed = socket.inet_aton(address)
    (ether_type,) = struct.unpack_from("!H", frame, 12)
    if frame[6:12] == claimed:
        return True
    if ether_type == 0x0806:
        return frame[22:28] == claimed or frame[28:32] == packed
    return ether_type == 0x0800 and frame[26:30] == packed


@contextmanager
def running_lab(
    directory: Path, *, nodes: int = 3, writer: bool = False, start: bool = True, chassis: Chassis | None = None
) -> Iterator[LabInTest]:
    """Start a lab; with ``start`` False only its namespace and loop are there, and the test starts the parts.

    ``chassis``: of emulated machines, which need no system on their disk.
    """
    golden = image(writer=writer) if chassis is None else disk_marks.make_blank_image(directory / "blank.img")
    with namespace("lab") as inside, LoopInside(inside) as loop:
        lab = LabInTest(RunningLab(directory, chassis=chassis or Chassis.of(nodes=nodes)), inside, loop, golden)
        try:
            if start:
                lab.call(lab.lab.start(golden))
            yield lab
        finally:
            lab.call(lab.lab.stop())
