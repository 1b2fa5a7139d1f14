"""Why a boot does not come up: every boot is judged, and what real machines say means what it should."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.decide.boot_diagnosis import ROUND_SECONDS, BootFacts, BootState, judge, next_stage
from panloom.decide.boot_signs import LATE, SIGNS, Seen, Source, stage_of
from panloom.decide.records import STAGES

TEXTS = (  # last stage, where, what was seen, a part of the cause, a part of the mend
    # SeaBIOS and iPXE, as our own machines said it
    ("power", "console", "Configuring (net0 52:54:00:77:00:01).................. No configuration methods",
     "nobody answered its request", "`mac:`"),
    ("power", "console", "No more network devices", "did not boot from the network", "power reset n1"),
    ("power", "console", "No bootable device.", "nothing else to boot from", "boot order"),
    ("script", "console", "Could not open SAN device: Connection reset (http://ipxe.org/0f0a6039)",
     "nobody answers at the storage portal", "panloom storage"),
    ("script", "console", "Could not open SAN device: Operation not permitted (http://ipxe.org/410d613c)",
     "the target refused it", "power reset n1"),
    ("script", "console", "Could not open SAN device: Connection timed out (http://ipxe.org/4c0a6035)",
     "cannot be reached from the node: Connection timed out", "3260"),
    ("script", "console", "Could not open SAN device: Input/output error (http://ipxe.org/1d704539)",
     "cannot be opened: Input/output error", "panloom events"),
    ("first read", "console", "Boot from SAN device 0x80 failed: Input/output error (http://ipxe.org/1d852039)",
     "no boot loader", "make an image"),
    ("dhcp", "console", "http://10.77.0.1:8080/boot/rPXJsbHNn... Connection timed out (http://ipxe.org/4c0a6092)",
     "boot script could not be fetched: Connection timed out", "HTTP"),
    ("dhcp", "console", "Nothing to boot: No such file or directory (http://ipxe.org/2d03e13b)",
     "no file to boot", "panloom events"),
    ("dhcp", "console", "tftp://10.77.0.1/snponly.efi... No such file or directory (http://ipxe.org/2d12603b)",
     "TFTP is not there", "--files"),
    ("power", "console", "Waiting for link-up on net0.... Down (http://ipxe.org/38086193)", "no signal", "cable"),
    ("power", "console", "iPXE>", "at the prompt of iPXE", "autoboot"),
    ("dhcp", "console", "iPXE> show net0/mac", "at the prompt of iPXE", "autoboot"),
    ("first read", "console", "No bootable device.", "gave the network up", "power reset n1"),
    # PXE ROMs and OVMF
    ("power", "console", "PXE-E61: Media test failure, check cable", "no signal", "cable"),
    ("power", "console", "PXE-E51: No DHCP or proxyDHCP offers were received.", "nobody answered", "`mac:`"),
    ("power", "console", ">>Start PXE over IPv4.PXE-E16: No valid offer received.", "nobody answered", "`mac:`"),
    ("dhcp", "console", "PXE-E32: TFTP open timeout", "no answer by TFTP", "port 69"),
    ("dhcp", "console", "PXE-E18: Server response timeout.", "no answer by TFTP", "port 69"),
    ("dhcp", "console", "PXE-T01: File not found", "TFTP is not there", "panloom doctor"),
    ("dhcp", "console", "PXE-E23: Client received TFTP error from server.", "TFTP is not there", "panloom doctor"),
    ("dhcp", "console", "PXE-E53: No boot filename received", "no file to boot", "panloom events"),
    ("power", "console", "BdsDxe: No bootable option or device was found.", "not boot from the network", "boot order"),
    ("first read", "console", 'BdsDxe: failed to load Boot0001 "UEFI iSCSI" from PciRoot(0x0): Access Denied',
     "Secure Boot", "switch Secure Boot off"),
    ("power", "console", "Press F1 to continue, DEL to enter SETUP", "waits for a key", "console n1"),
    # boot loaders
    ("first read", "console", "Missing operating system.", "finds no boot loader", "active"),
    ("first read", "console", "Could not find kernel image: vmlinuz", "no kernel: vmlinuz", "boot loader looks for it"),
    ("first read", "console", "No DEFAULT or UI configuration directive found!", "has no conf", "syslinux.cfg"),
    ("first read", "console", "Failed to load ldlinux.c32", "lacks a part of itself: ldlinux.c32", "same version"),
    ("first read", "console", "error: no such device: 3f1b-22c1.", "GRUB does not find", "install GRUB"),
    ("first read", "console", "grub rescue>", "GRUB does not find", "install GRUB"),
    ("first read", "console", "grub>", "GRUB has no configuration", "grub.cfg"),
    # Linux, initramfs, systemd, iscsistart, the lab's image
    ("first read", "console", "[    1.93] Kernel panic - not syncing: VFS: Unable to mount root fs on block(0,0)",
     "no root file system", "root="),
    ("kernel", "console", "Kernel panic - not syncing: Attempted to kill init!", "init, died", "--replay"),
    ("kernel", "console", "Kernel panic - not syncing: Fatal exception in interrupt", "Fatal exc", "--replay"),
    ("userland", "console", "Kernel panic - not syncing: hung_task: blocked tasks", "hung_task", "--replay"),
    ("kernel", "console", "Kernel panic - not syncing: System is deadlocked on memory", "too little", "more memory"),
    ("kernel", "console", "Kernel panic - not syncing: No working init found.  Try passing init=", "no init", "init"),
    ("first read", "console", "Initramfs unpacking failed: invalid magic at start of compressed archive",
     "initramfs is damaged", "anew"),
    ("first read", "console", "ALERT!  UUID=0a1b-2c3d does not exist.  Dropping to a shell!",
     "does not appear: UUID=0a1b-2c3d", "blkid"),
    ("first read", "console", "(initramfs)", "stands at a prompt", "console n1"),
    ("first read", "console", "dracut-initqueue[312]: Warning: dracut-initqueue: timeout", "no root", "console n1"),
    ("kernel", "console", "You are in emergency mode. After logging in, type journalctl", "emergency", "console n1"),
    ("kernel", "console", "/dev/sda2: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.", "is damaged", "fsck"),
    ("kernel", "console", "iscsistart: initiator reported error (24 - iSCSI login failed due to authorization failure)",
     "was refused", "iBFT"),
    ("kernel", "console", "iscsistart: initiator reported error (8 - connection timed out)",
     "could not log in: connection timed out", "panloom status"),
    ("kernel", "console", "[  130.2] session1: session recovery timed out after 120 secs", "lost its disk", "status"),
    ("first read", "console", 'PANLOOM failed="no iBFT: this machine was not booted from iSCSI"', "iBFT", "sanboot"),
    ("kernel", "console", 'PANLOOM failed="the root disk cannot be mounted"', "gave up: the root disk", "--replay"),
    # what we know ourselves
    ("power", "control node", "boot services: port 8080 of 10.77.0.1 on lab0: Address already in use",
     "boot services are not open", "end what is in their way"),
    ("script", "control node", "storage: it does not answer", "storage process does not answer", "start it"),
    ("script", "event", "login refused: the CHAP response is wrong", "proved a secret", "power reset n1"),
    ("script", "event", "login refused: iqn.x:node.n1 has proved what is over", "or to a later epoch", "reset"),
    ("script", "event", "login refused: not allowed here", "another node, or to a later epoch", "reset"),
    ("script", "event", "login refused: AuthMethod 'None' will not do", "does not offer CHAP", "auth: none"),
    ("script", "event", "login refused: iqn.x:shop.web1 cannot be served: no such file", "no such file", "volumes"),
    ("script", "event", "login refused: a login without end", "a login without end", "reset"),
    ("dhcp", "event", "declined: ", "another machine uses its address", "`address:`"),
    ("power", "event", "refused: 10.77.0.11 is in use", "10.77.0.11 is in use", "`address:`"),
    ("power", "event", "refused: 10.77.0.11 is in use by 52:54:00:77:00:99, not by lease",
     "10.77.0.11 is in use by 52:54:00:77:00:99", "`address:`"),
    ("power", "event", "refused: it chose another DHCP server, 10.77.0.9", "server, 10.77.0.9, gave it", "dhcp: proxy"),
    ("dhcp", "event", "refused: this word is not, or no longer, good", "was refused: this word", "reset"),
    ("dhcp", "event", "no file: snponly.efi", "not there: snponly.efi", "--files"),
    ("dhcp", "event", "broken file: snponly.efi: the client fell silent", "snponly.efi: the client fell silent",
     "port 69"),
    ("dhcp", "event", "no loader: snponly.efi is not among the files", "snponly.efi", "panloom doctor"),
)  # fmt: skip

stages = st.lists(st.tuples(st.sampled_from([*STAGES, "unheard of"]), st.floats(0, 1e6)), max_size=8)
texts = st.one_of(
    st.text(max_size=60),
    st.sampled_from([text for _, _, text, _, _ in TEXTS]),
    st.builds("{}{{node}}{}".format, st.text(max_size=9), st.sampled_from([text for _, _, text, _, _ in TEXTS])),
)
sightings = st.lists(st.builds(Seen, st.sampled_from(Source), st.floats(-100, 1e6), texts), max_size=6)


def facts(stage, *seen, now=5.0, **more):
    reached = [(name, float(at)) for at, name in enumerate(STAGES[: STAGES.index(stage) + 1])]
    return BootFacts(node="n1", stages=reached, now=now, **{"server": "shop/web1", "power": True, **more, "seen": seen})


def said(text, seconds=7.0, source=Source.CONSOLE):
    return Seen(source, seconds, text)


@given(
    st.builds(
        BootFacts, node=st.text(max_size=5), stages=stages, now=st.floats(0, 1e7), tries=st.integers(0, 99),
        server=st.none() | st.just("a/b"), power=st.none() | st.booleans(), given_up=st.booleans(), seen=sightings,
    )
)  # fmt: skip
def test_every_boot_is_judged_and_one_that_has_stopped_has_a_cause_and_a_mend(boot):
    judgement = judge(boot)
    assert (judgement.state is BootState.STOPPED) == bool(judgement.cause) == bool(judgement.mend)
    assert judgement.seen is None or judgement.seen in boot.seen
    assert next_stage(boot.stages) in (*STAGES, None)


@pytest.mark.parametrize(("stage", "source", "text", "cause", "mend"), TEXTS)
def test_known_texts(stage, source, text, cause, mend):
    seen = said(text, source=Source(source))
    judgement = judge(facts(stage, said("earlier"), seen, said("later")))
    assert judgement.state is BootState.STOPPED
    assert judgement.seen == seen
    assert cause in judgement.cause
    assert mend in judgement.mend


def test_every_sign_has_a_text_that_shows_it():
    shown = {judge(facts(stage, said(text, source=Source(source)))).cause for stage, source, text, _, _ in TEXTS}
    for sign in SIGNS:
        fixed = [part for part, *_ in string.Formatter().parse(sign.cause)]
        if sign.cause != "its kernel panicked":
            assert any(all(part in cause for part in fixed) for cause in shown), sign.cause


@pytest.mark.parametrize("stage", STAGES[:-1])
def test_a_stage_that_is_late_is_told_of_and_not_before(stage):
    last = float(STAGES.index(stage))
    assert judge(facts(stage, now=last + LATE[stage].seconds)).state is BootState.BOOTING
    late = judge(facts(stage, now=last + LATE[stage].seconds + 0.1))
    assert (late.state, late.cause) == (BootState.STOPPED, LATE[stage].cause)
    assert judge(facts(stage, power=False, given_up=True)).cause == LATE[stage].cause


def test_what_was_overcome_stopped_nothing():
    refused = said("Could not open SAN device: Connection reset", 1.5)
    assert judge(facts("script", refused)).state is BootState.STOPPED
    assert judge(facts("kernel", refused)).state is BootState.BOOTING
    assert judge(facts("userland", said("No bootable device.", 9.0))).state is BootState.UP


def test_a_machine_that_begins_again_and_again_is_known_by_what_was_last():
    failed = said("Boot from SAN device 0x80 failed: Input/output error", -2.0)
    assert judge(facts("dhcp", failed)).state is BootState.BOOTING
    assert "no boot loader" in judge(facts("dhcp", failed, tries=3)).cause
    old = said("Kernel panic", 5.0 - ROUND_SECONDS - 2.0)
    assert judge(facts("dhcp", old, said("iPXE initialising devices...ok", 5.0), tries=3)).state is BootState.BOOTING


def test_a_machine_without_power():
    assert judge(facts("userland", power=False)).state is BootState.OFF
    assert judge(facts("kernel", power=False, server=None)).state is BootState.OFF
    went_off = judge(facts("kernel", power=False))
    assert (went_off.state, went_off.mend.split(": ")[-1]) == (BootState.STOPPED, "panloom node power on n1")


def test_a_spare_that_was_told_to_wait_waits():
    assert judge(facts("dhcp", server=None, now=1e6)).state is BootState.WAITING
    assert judge(facts("power", server=None, now=1e6)).state is BootState.STOPPED


def test_what_comes_next():
    assert [next_stage([(stage, 0.0)]) for stage in STAGES] == [*STAGES[1:], None]
    assert next_stage([]) == "power"


@pytest.mark.parametrize(
    ("line", "stage"),
    [
        ("PANLOOM stage=kernel t=2.25", "kernel"),
        ("[    0.000000] Linux version 6.1.0-56-cloud-amd64", "kernel"),
        ("Linux version 6.12.1", "kernel"),
        ("[    1.234567] scsi host0: iSCSI Initiator over TCP/IP", "kernel"),
        ("PANLOOM stage=userland t=4.15", "userland"),
        ("web1 login:", "userland"),
        ("[    9.9] systemd[1]: Startup finished in 2.1s", "userland"),
        ("PANLOOM stage=login t=3.79", None),
        ("Booting from SAN device 0x80", None),
        ("iPXE> login", None),
        ("", None),
    ],
)
def test_stages_that_the_console_tells_of(line, stage):
    assert stage_of(line) == stage


@given(st.text(max_size=200))
def test_any_line_tells_of_a_stage_or_none(line):
    assert stage_of(line) in (None, "kernel", "userland")
