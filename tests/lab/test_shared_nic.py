"""A guest over iSCSI whose system does its worst to its network, a hundred times, under a write load.

    firmware ─▶ iscsistart ─▶ iscsid ─▶ gate ─▶ support/guest/worst.sh ─▶ gate ─▶ poweroff
    └──────────── hand-over ────────┘         └─ one session, no error ─┘         └─ a clean file system

Its card is in the split layout; every other machine of the lab is in the merged one.
"""

import re
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from panloom.lab.chassis import Chassis
from panloom.lab.image import SECTOR_OCTETS, WRITER_RING, build_image
from panloom.lab.running import RunningLab
from support.lab import IMAGES, ONE, PACKAGES, LabInTest, Sniffer
from support.namespaces import LoopInside, namespace
from support.waiting import until
from support.worst_guest import SECONDS, open_gate, root_sessions, said
from support.worst_guest import values as numbers_in

pytestmark = [pytest.mark.machine, pytest.mark.timeout(300)]
MAC1, MAC2 = bytes.fromhex("525400770001"), bytes.fromhex("02504c000001")
LINUX = bytes.fromhex("00023d")  # how an ISID of open-iscsi's begins
WORST = Path(__file__).parents[1] / "support" / "guest" / "worst.sh"
GAP_SECONDS = (
    30.0  # from a session's last command to the next one's login, a kernel's whole boot: 4 s on two idle cores
)
SUPERBLOCK = 133120 * SECTOR_OCTETS + 1024


@dataclass
class Login:
    """A login request on the wire."""

    at: float
    isid: bytes
    tsih: int
    port: int


@dataclass
class Wire:
    """What passes the machine's cable, by whose MAC it bears."""

    logins: list[Login] = field(default_factory=list)
    first: dict[bytes, float] = field(default_factory=dict)  # frame by MAC
    handles: dict[int, int] = field(default_factory=dict)  # port → the TSIH that the target gave
    logouts: set[int] = field(default_factory=set)  # ports
    commands: list[tuple[float, int]] = field(default_factory=list)  # when, from which port
    iscsi: dict[bytes, int] = field(default_factory=dict)  # frames to the target by source
    other: dict[bytes, int] = field(default_factory=dict)
    target: bytes = b""  # its MAC

    def take(self, frame: bytes, at: float) -> None:
        source = frame[6:12]
        self.first.setdefault(source, at)
        is_iscsi = frame[12:14] == b"\x08\x00" and frame[23] == 6 and frame[36:38] == struct.pack("!H", 3260)
        tally = self.iscsi if is_iscsi else self.other
        tally[source] = tally.get(source, 0) + 1
        is_answer = frame[12:14] == b"\x08\x00" and frame[23] == 6 and frame[34:36] == struct.pack("!H", 3260)
        if not is_iscsi and not is_answer:
            return
        pdu, port = frame[34 + (frame[46] >> 4) * 4 :], int.from_bytes(frame[34:36], "big")
        if is_answer:
            if len(pdu) >= 48 and pdu[0] & 0x3F == 0x23 and (handle := int.from_bytes(pdu[14:16], "big")):
                # RFC 7143 section 11.13.4; what begins like one later on a connection is the middle of some data.
                self.handles.setdefault(int.from_bytes(frame[36:38], "big"), handle)
            return
        if len(pdu) >= 16 and pdu[0] & 0x3F == 3 and pdu[0] & 0x40:
            self.logins.append(Login(at, pdu[8:14], int.from_bytes(pdu[14:16], "big"), port))
        elif len(pdu) == 48 and pdu[0] & 0x3F == 6 and not any(pdu[4:16]):  # RFC 7143 section 11.14
            self.logouts.add(port)
        elif len(pdu) >= 48 and pdu[0] & 0x3F == 1:
            self.commands.append((at, port))


@dataclass
class Held:
    """A session with the root disk, as the target tells."""

    session: str
    port: int  # the initiator's
    kind: str


@dataclass
class Seen:
    """All that was seen of one life."""

    said: list[str]
    wire: Wire
    held: list[Held]  # one after the other
    sessions: list[list[str]]  # of the root disk: before the worst, and after it
    page_frames: tuple[int, int]  # to the target under MAC 1, and others under MAC 2, while a page was fetched
    tags: dict[int, tuple[int, int]]
    superblock: bytes
    logins_before: int

    def root_logins(self) -> list[Login]:
        """Return the first request of each login to the root disk."""
        first = {login.port: login for login in reversed(self.wire.logins)}
        return [first[held.port] for held in self.held]


def is_on(lab):
    return lab.power("n1", "status")


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shared")
    image = IMAGES / "worst.img"
    files = {"/etc/rc.local": WORST.read_bytes(), "/panloom-writer": b""}
    build_image(PACKAGES, image, extra_files=files, layout="split")
    with namespace("lab") as inside, LoopInside(inside) as loop:
        chassis = Chassis.of(nodes=1)
        lab = LabInTest(RunningLab(directory, chassis=chassis), inside, loop, image)
        try:
            lab.call(lab.lab.start(image))
            return live(lab, chassis.machines[0].tap)
        finally:
            lab.call(lab.lab.stop())


def live(lab, cable):
    wire = Wire(target=bytes.fromhex(lab.inside.mac("lab0").replace(":", "")))
    sniffer = Sniffer(lab.inside, cable, lambda frame, _: wire.take(frame, time.monotonic()))
    try:
        lab.apply(ONE)
        lab.until_up("shop/web1")
        lab.until_adopted("n1")
        until(lambda: "ready" in said(lab), "the guest is ready", seconds=SECONDS)
        before, logins_before = root_sessions(lab), len(wire.logins)
        counted = wire.iscsi[MAC1], wire.other[MAC2]
        lab.until_answers("shop/web1")
        frames = wire.iscsi[MAC1] - counted[0], wire.other[MAC2] - counted[1]
        lab.call(lab.lab.kill("control"))  # nobody fences the machine, nor switches it on again, when it goes off
        open_gate(lab)
        until(lambda: "done" in said(lab), "the worst is over", seconds=SECONDS)
        after = root_sessions(lab)
        open_gate(lab)
        until(lambda: not is_on(lab), "the machine is off", seconds=60)
    finally:
        sniffer.close()
    log = (lab.lab.directory / "storage.log").read_text()
    logins = re.findall(r"event=login session=(\S+) peer=\S+:(\d+) .*target=\S*shop\.web1 .*kind=(\w+)", log)
    held = [Held(session, int(port), kind) for session, port, kind in logins]
    return Seen(
        said=said(lab),
        wire=wire,
        held=held,
        sessions=[before, after],
        page_frames=frames,
        tags=lab.tags(),
        superblock=lab._volume("shop.web1", range(SUPERBLOCK, SUPERBLOCK + 1024)),
        logins_before=logins_before,
    )


def value(seen, word):
    """Return what the guest has said after a word, as text."""
    (found,) = [line.removeprefix(f"{word} ") for line in seen.said if line.startswith(f"{word} ")]
    return found


def values(seen, word):
    return numbers_in(value(seen, word))


def test_no_fault_is_told(seen):
    assert [line for line in seen.said if line.startswith("fault")] == []
    assert seen.said[-1] == "done"


def test_cap_001_one_card_carries_the_guests_disk_and_its_pages_at_the_same_time(seen):
    disk_frames, page_frames = seen.page_frames
    assert disk_frames > 0
    assert page_frames > 0
    assert {mac for mac in seen.wire.iscsi if mac != MAC1} <= {seen.wire.target}
    assert set(seen.wire.first) == {MAC1, MAC2, seen.wire.target}  # and no third, the card's own included


def test_cap_002_the_disk_needs_no_address_of_the_systems(seen):
    """The system flushes its addresses in every fifth round, and once more at the end, and reads its file then."""
    assert value(seen, "rounds") == "100"
    assert seen.sessions[0] == seen.sessions[1] != []


def test_cap_003_the_disk_is_a_local_scsi_disk_with_partitions_and_a_file_system(seen):
    inquiry, sectors = value(seen, "inquiry").split(" sectors ")
    octets = bytes.fromhex(inquiry)
    assert octets[0] == 0  # SPC-4 r37 6.6.2: a disk that is there
    assert octets[8:16] == b"PANLOOM "
    assert int(sectors) * SECTOR_OCTETS == (IMAGES / "worst.img").stat().st_size


def test_cap_005_a_hundred_times_down_and_up_and_twenty_times_made_anew_cost_no_write(seen):
    """Each sector of the ring holds the last tag that was written there: none failed, and none is torn."""
    numbers = sorted(number for _, number in seen.tags.values())
    newest = numbers[-1]
    assert newest > 100
    assert numbers == list(range(max(0, newest - len(WRITER_RING) + 1), newest + 1))
    assert seen.sessions[0] == seen.sessions[1]
    assert len(seen.wire.logins) == seen.logins_before  # ISID and TSIH are of a login, and there was none
    assert values(seen, "errors") == {"disk": 0, "connection": 0}


def test_cap_006_a_nic_that_is_down_passes_nothing_while_the_disk_is_read(seen):
    passed = values(seen, "down")
    assert passed["system"] == 0
    assert passed["storage"] > 0


def test_cap_011_in_the_split_layout_disk_and_system_are_two_objects_over_the_card(seen):
    shown = [line.removeprefix("show ") for line in seen.said if line.startswith("show ")]
    assert shown[0] == "layout: split; the disk's address is on storage0"
    divide = shown.index("the system's:")
    assert any(re.search(r"storage0@eth0: .*UP", line) for line in shown[1:divide])
    assert any(re.search(r"eth0@if\d+: .*UP", line) for line in shown[divide:])
    assert any(MAC2.hex(":") in line for line in shown[divide:])


def test_cap_015_the_disk_is_connected_before_the_system_has_a_network(seen):
    kernel = next(login for login in seen.root_logins() if login.isid[:3] == LINUX)
    assert kernel.at < seen.wire.first[MAC2]


def test_cap_016_firmware_and_system_hand_the_disk_over_without_a_failed_read(seen, record_property):
    """By another ISID, from firmware to iscsistart, and by the same one, which is reinstatement, to iscsid.

    RFC 7143 section 6.3.5: with the same ISID and TSIH 0 a login takes the place of a session that nobody ended.
    """
    requests = seen.root_logins()
    assert [held.kind for held in seen.held] == ["firmware", "kernel", "kernel"]
    assert [request.isid[:3] == LINUX for request in requests] == [False, True, True]
    assert requests[1].isid == requests[2].isid
    assert [request.tsih for request in requests] == [0, 0, 0]
    assert len({seen.wire.handles[held.port] for held in seen.held}) == 3  # each is a new session …
    assert not {held.port for held in seen.held} & seen.wire.logouts
    assert seen.sessions[0] == [seen.held[-1].session]  # … and the last one is all that there is
    assert values(seen, "card") == {"starts": 1, "up": 1}
    assert values(seen, "errors")["disk"] == 0
    for held, newer in zip(seen.held, requests[1:], strict=False):
        gap_seconds = newer.at - max(at for at, port in seen.wire.commands if port == held.port)
        record_property(f"gap_seconds_after_{held.session}", round(gap_seconds, 3))
        assert 0 < gap_seconds < GAP_SECONDS


def test_cap_018_misuse_of_the_network_is_no_fatal_error(seen):
    """Its peer's address as its own, a route to nowhere, no address, another MTU: the file is read all the same."""
    assert value(seen, "rounds") == "100"
    assert values(seen, "errors") == {"disk": 0, "connection": 0}
    assert seen.sessions[0] == seen.sessions[1]


def test_cap_019_the_guest_powers_off_by_itself_and_leaves_a_clean_file_system(seen):
    magic, state = struct.unpack_from("<HH", seen.superblock, 0x38)
    (incompatible,) = struct.unpack_from("<I", seen.superblock, 0x60)
    assert magic == 0xEF53
    assert state == 1  # EXT4_VALID_FS, and no EXT4_ERROR_FS
    assert not incompatible & 4  # EXT4_FEATURE_INCOMPAT_RECOVER: a journal to be replayed
