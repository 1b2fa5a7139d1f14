"""What firmware, boot loaders, kernels and our own services say when a boot fails, and what that means.

Each ``Sign`` is a row: where it is seen, after which last stages it counts, what it reads like, the cause, the mend.
The rows are in order: what ends a boot for good before what follows from it, a refusal of ours before the machine's
own words for it.  In cause and mend ``{node}`` is the machine and ``{what}`` the part of the text so named.

Texts are those of SeaBIOS, OVMF, iPXE, PXE ROMs (Intel PXE 2.1 "PXE-E.." codes), SYSLINUX, GRUB, Linux, its
initramfs-tools, dracut and iscsistart, and of the lab's image (``PANLOOM failed=``).
"""

import re
from collections.abc import Collection
from enum import Enum
from typing import NamedTuple

import msgspec

from panloom.decide.records import STAGES


class Source(Enum):
    """Where something was seen."""

    CONTROL = "control node"
    EVENT = "event"
    CONSOLE = "console"


class Seen(msgspec.Struct, frozen=True):
    """Something seen of a boot, seconds after it began.

    ``text`` of an event is ``KIND: TEXT``, of the control node ``PART: WHY``, of a console a line.
    """

    source: Source
    seconds: float
    text: str


class Sign(NamedTuple):
    """A row of the table."""

    source: Source
    stages: Collection[str]
    pattern: re.Pattern[str]
    cause: str
    mend: str


class Late(NamedTuple):
    """What it means when the stage after this one is not reached within so many seconds."""

    seconds: float
    cause: str
    mend: str


_ANY = ("", *STAGES)
_NO_ADDRESS = ("", "power")
_BEFORE_DISK = ("", "power", "dhcp", "script")
_NO_DISK = ("dhcp", "script", "login", "first read")  # a machine that begins again and again may have read before
_AT_DISK = ("login", "first read", "kernel")
_SYSTEM = ("login", "first read", "kernel", "userland")
_REPLAY = "read what it said before: panloom console {node} --replay"
_NEW_SCRIPT = "let it fetch a new script: panloom node power reset {node}"
_STATUS = "see what is wrong with it: panloom status"


def _signs(source: Source, *rows: tuple[Collection[str], str, str, str]) -> tuple[Sign, ...]:
    return tuple(Sign(source, stages, re.compile(text), cause, mend) for stages, text, cause, mend in rows)


_SYSTEM_SIGNS = _signs(
    Source.CONSOLE,
    (
        _SYSTEM,
        r"VFS: (?:Unable to mount root|Cannot open root device)",
        "the kernel finds no root file system: it lacks the disk's driver, or root= is wrong",
        "give the image an initramfs that logs in to the disk, and the right root=",
    ),
    (
        _SYSTEM,
        r"No working init found|Requested init \S+ failed|can't run '/sbin/init'",
        "the root disk has no init that can run",
        "make the image's /sbin/init a program of its own machine type, with its libraries",
    ),
    (
        _SYSTEM,
        r"no killable processes|System is deadlocked on memory|Out of memory: Kill",
        "it has too little memory",
        "give the server a node with more memory, or its programs less to do",
    ),
    (_SYSTEM, r"Attempted to kill init", "its first program, init, died", _REPLAY),
    (_SYSTEM, r"Kernel panic - not syncing: (?P<what>.+)", "its kernel panicked: {what}", _REPLAY),
    (_SYSTEM, r"Kernel panic", "its kernel panicked", _REPLAY),
    (
        _AT_DISK,
        r"Initramfs unpacking failed|junk (?:with)?in compressed archive|invalid magic at start of compressed archive",
        "its initramfs is damaged or of a form that the kernel cannot unpack",
        "make the image's initramfs anew",
    ),
    (
        _AT_DISK,
        r"initiator reported error \(24 |authori[sz]ation failure",
        "the system's own initiator was refused: it shows another user or secret than the target wants",
        "let the initramfs take both from the firmware's table (iBFT): iscsistart -b",
    ),
    (
        _AT_DISK,
        r"initiator reported error \(\d+ - (?P<what>[^)]*)",
        "the system's own initiator could not log in: {what}",
        _STATUS,
    ),
    (
        _AT_DISK,
        r"PANLOOM failed=\"?no iBFT",
        "the kernel was not told of its disk: it has no table (iBFT) from the firmware",
        "boot it by iPXE's sanboot; a kernel that a boot loader of UEFI starts finds the table only if iPXE left it",
    ),
    (_AT_DISK, r"PANLOOM failed=\"?(?P<what>[^\"]+)", "its initramfs gave up: {what}", _REPLAY),
    (
        _AT_DISK,
        r"ALERT!\s+(?P<what>\S+) does not exist",
        "its initramfs waits for a root disk that does not appear: {what}",
        "compare root= with the file systems of the image: blkid",
    ),
    (
        _AT_DISK,
        r"Gave up waiting for root|dracut-initqueue.*timeout|^\(initramfs\)|^dracut:/#|Dropping to a shell",
        "its initramfs found no root disk and stands at a prompt",
        "look for the disk there: panloom console {node}",
    ),
    (
        _SYSTEM,
        r"UNEXPECTED INCONSISTENCY|RUN fsck MANUALLY",
        "its root file system is damaged",
        "mend it with fsck at its console: panloom console {node}",
    ),
    (
        _SYSTEM,
        r"You are in (?:emergency|rescue) mode|Give root password for maintenance|Cannot open access to console",
        "its system stands in emergency mode: a file system or service that it needs failed",
        "see which at its console: panloom console {node}",
    ),
    (
        _SYSTEM,
        r"session recovery timed out|Buffer I/O error on dev|I/O error, dev \w+|EXT4-fs error|Remounting filesystem",
        "it lost its disk while it ran",
        _STATUS,
    ),
)

_OUR_SIGNS = (
    *_signs(
        Source.CONTROL,
        (
            _NO_ADDRESS,
            r"^boot services: ",
            "our boot services are not open",
            "end what is in their way (ss -lnptu shows who listens); they are tried again each second",
        ),
        (
            _NO_DISK,
            r"^storage: ",
            "the storage process does not answer, and it has the disk",
            "start it: panloom storage (systemctl start panloom-storage)",
        ),
    ),
    *_signs(
        Source.EVENT,
        (
            _BEFORE_DISK,
            r"^declined: ",
            "another machine uses its address: it declined it",
            "find that one, or give the node's document another `address:`",
        ),
        (
            _NO_ADDRESS,
            r"^refused: it chose another DHCP server, (?P<what>\S+)",
            "another DHCP server, {what}, gave it an address, and nothing to boot",
            "end that one on this network, or let it give the addresses: `dhcp: proxy`",
        ),
        (
            _NO_ADDRESS,
            r"^refused: (?P<what>.* in use\b.*)",
            "its address cannot be given out: {what}",
            "find who uses it, or give the node's document another `address:`",
        ),
        (
            _BEFORE_DISK,
            r"^no loader: (?P<what>.+)",
            "its firmware needs a file that we do not have: {what}",
            "see which package brings it: panloom doctor",
        ),
        (
            _BEFORE_DISK,
            r"^no file: (?P<what>.+)",
            "it asked for a file that is not there: {what}",
            "give the control process its files (--files); see which are missing: panloom doctor",
        ),
        (
            _BEFORE_DISK,
            r"^broken file: (?P<what>.+)",
            "a file did not reach it whole: {what}",
            "look for loss or a filter between the two: UDP port 69, and the ports that it answers from",
        ),
        (
            _NO_DISK,
            r"^login refused: the CHAP response is wrong",
            "it proved a secret that is not, or no longer, its own",
            _NEW_SCRIPT,
        ),
        (
            _NO_DISK,
            r"^login refused: .*(?:has proved what is over|not allowed here|may not log in|changed while)",
            "its login was refused: the disk is granted to another node, or to a later epoch",
            _NEW_SCRIPT,
        ),
        (
            _NO_DISK,
            r"^login refused: .*(?:AuthMethod|CHAP without MD5|security stage)",
            "its initiator does not offer CHAP with MD5, which the platform's `auth: chap` asks for",
            "switch CHAP on in its firmware, or the platform to `auth: none`",
        ),
        (
            _NO_DISK,
            r"^login refused: (?P<what>.*cannot be served.*)",
            "its disk cannot be opened: {what}",
            "see its state: panloom get volumes",
        ),
        (_NO_DISK, r"^login refused: (?P<what>.+)", "its login was refused: {what}", _NEW_SCRIPT),
        (_BEFORE_DISK, r"^refused: (?P<what>.+)", "what it asked for was refused: {what}", _NEW_SCRIPT),
    ),
)

_LOADER_SIGNS = _signs(
    Source.CONSOLE,
    (
        _AT_DISK,
        r"(?:failed to load|Failed to load).*(?:Access Denied|Security Violation)|Secure Boot (?:violation|forbids)",
        "Secure Boot refuses its boot loader",
        "sign the boot loader, or switch Secure Boot off in the firmware",
    ),
    (
        _AT_DISK,
        r"grub rescue>|error: unknown filesystem|error: no such (?:device|partition)",
        "GRUB does not find its own files on the disk",
        "install GRUB in the image anew, by the identifiers of its file systems",
    ),
    (_AT_DISK, r"^grub>", "GRUB has no configuration and stands at its prompt", "make the image's grub.cfg"),
    (
        _AT_DISK,
        r"Could not find kernel image: (?P<what>\S+)",
        "its boot loader finds no kernel: {what}",
        "put the kernel where the image's boot loader looks for it",
    ),
    (
        _AT_DISK,
        r"[Ff]ailed to load (?:COM32 file )?(?P<what>\S+\.c32)",
        "SYSLINUX lacks a part of itself: {what}",
        "copy it into the image, of the same version as SYSLINUX",
    ),
    (
        _AT_DISK,
        r"No DEFAULT or UI configuration directive found|^boot: ?$",
        "SYSLINUX has no configuration and stands at its prompt",
        "make the image's syslinux.cfg",
    ),
    (
        _AT_DISK,
        r"(?i)missing operating system|error loading operating system|invalid partition table|no active partition",
        "the disk's boot record finds no boot loader",
        "mark the image's boot partition active, and install a boot loader there",
    ),
    (
        (*_AT_DISK, "script", "dhcp"),
        r"Boot from SAN device \S+ failed: (?P<what>[^(]+)|Boot failed: not a bootable disk",
        "the disk is there and nothing on it boots: its image has no boot loader for this firmware",
        "make an image that boots, apply it under a new version, and delete and apply the server anew",
    ),
)

_DISK_SIGNS = _signs(
    Source.CONSOLE,
    (
        _NO_DISK,
        r"Could not open SAN device: (?:Operation not permitted|Permission denied)",
        "the target refused it: user or secret are not those of this epoch",
        _NEW_SCRIPT,
    ),
    (
        _NO_DISK,
        r"Could not open SAN device: Connection re(?:set|fused)",
        "nobody answers at the storage portal",
        "start the storage process: panloom storage (see: panloom status)",
    ),
    (
        _NO_DISK,
        r"Could not open SAN device: (?P<what>Connection timed out|Network unreachable|No route to host)",
        "the storage portal cannot be reached from the node: {what}",
        "look for a filter or a wrong address between the two: TCP port 3260",
    ),
    (
        _NO_DISK,
        r"Could not open SAN device: (?P<what>[^(]+)|^iPXE: no disk \S+ (?P<why>.+)",
        "the disk cannot be opened: {what}{why}",
        "see who refused it: panloom events",
    ),
)

_NETWORK_SIGNS = _signs(
    Source.CONSOLE,
    (
        _ANY[:-1],
        r"^iPXE>",
        "somebody stopped it at the prompt of iPXE",
        "go on with: autoboot, typed at panloom console {node}",
    ),
    (
        _BEFORE_DISK,
        r"PXE-T01|PXE-E2[13]|(?i:tftp.*(?:not found|no such file))",
        "the file that it asked for by TFTP is not there",
        "give the control process its files (--files); see which are missing: panloom doctor",
    ),
    (
        _BEFORE_DISK,
        r"PXE-E(?:11|18|32|35|36)",
        "it has an address and gets no answer by TFTP",
        "look for a filter between the two: UDP port 69, and the ports that it answers from",
    ),
    (
        _BEFORE_DISK,
        r"https?://\S+\.\.\. (?P<what>[A-Z][^(]+)",
        "its boot script could not be fetched: {what}",
        "look for a filter between the two, or another service at the platform's HTTP port",
    ),
    (
        _BEFORE_DISK,
        r"PXE-E53|No boot filename received|Nothing to boot",
        "it has an address and was given no file to boot",
        "see whether another DHCP server answers it: panloom events",
    ),
    (
        _NO_ADDRESS,
        r"PXE-E61|[Mm]edia test failure|link-up on \w+\.+ (?:Down|Unknown)",
        "its network cable carries no signal",
        "check cable and port; see that the switch forwards at once (spanning tree: edge port)",
    ),
    (
        _NO_ADDRESS,
        r"PXE-E(?:51|16)|No configuration methods|DHCP.*offers were received",
        "nobody answered its request for an address",
        "see that the node's `mac:` is this machine's, and its port in the boot network",
    ),
    (
        ("", "power", "dhcp"),
        r"(?i)press (?:F1|any key) to|strike the F1|keyboard error|CMOS (?:checksum|battery)",
        "its firmware waits for a key",
        "press it at its console, and mend what it complains of: panloom console {node}",
    ),
    (
        _NO_ADDRESS,
        r"(?i)no bootable (?:device|option)|no more network devices|^Shell>|boot device missing|proper boot device",
        "its firmware did not boot from the network, and there is nothing else to boot from",
        "put the network first in its firmware's boot order, then: panloom node power reset {node}",
    ),
    (
        _NO_DISK,
        r"(?i)no bootable (?:device|option)|^Shell>|boot device missing",
        "its firmware gave the network up and finds nothing else to boot from",
        "start it again: panloom node power reset {node}",
    ),
)

SIGNS = (*_SYSTEM_SIGNS, *_OUR_SIGNS, *_LOADER_SIGNS, *_DISK_SIGNS, *_NETWORK_SIGNS)

_CONSOLE = "see where it stands: panloom console {node}"
LATE = {
    "": Late(60.0, "nothing was seen of it", _CONSOLE),
    "power": Late(
        60.0,
        "it has not asked for an address: its firmware is busy, or does not boot from this network card",
        _CONSOLE + "; the network must come first in its boot order",
    ),
    "dhcp": Late(
        20.0,
        "it has an address and did not fetch its boot script: its firmware is no iPXE, or HTTP does not reach us",
        _CONSOLE,
    ),
    "script": Late(
        20.0,
        "it has its script and did not log in to its disk: TCP port 3260 is filtered, or it stands still",
        _CONSOLE,
    ),
    "login": Late(20.0, "it has logged in to its disk and does not read", _CONSOLE),
    "first read": Late(
        60.0,
        "its boot loader was read and no kernel logged in: one of the two stands still, or says nothing on this line",
        _CONSOLE + "; the kernel speaks there with console=ttyS0",
    ),
    "kernel": Late(
        60.0,
        "its kernel runs, and nothing came up that tells us so",
        _CONSOLE + "; its system must send the beacon of its personality",
    ),
}
"""Last stage → what it means when the next one is late; the empty one is for no stage at all."""

_PASSED = (
    ("userland", re.compile(r"^PANLOOM stage=userland\b|systemd\[1\]: Startup finished|^\S+ login: ?$")),
    ("kernel", re.compile(r"^PANLOOM stage=kernel\b|^(?:\[ *[0-9.]+\] )?Linux version [0-9]|^\[ *\d+\.\d{6}\] \S")),
)


def stage_of(line: str) -> str | None:
    """Return the stage that a line on the console shows to be reached, None if it shows none."""
    return next((stage for stage, pattern in _PASSED if pattern.search(line)), None)
