"""A Linux machine mounts a disc of ours: its own initiator, SCSI layer, CD-ROM driver and file system.

QEMU ── kernel, initramfs ──▶ iscsistart ──▶ /dev/sr0 ──▶ mount -t iso9660 ──▶ sha256sum, on the console
"""

import hashlib
import random
import subprocess

import pytest

from panloom.lab.guest_files import initramfs, newest_kernel
from support.foreign import PACKAGES
from support.optical_image import optical_image
from support.target_process import TargetProcess
from support.waiting import until

pytestmark = pytest.mark.machine

CONTENT = random.Random(211).randbytes(3_000_000)
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /disc
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
export PATH=/bin:/sbin
for module in /modules/*; do insmod "$module" || echo "DISC no module $module"; done
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
echo InitiatorName=iqn.2026-11.dev.panloom:node.n1 > /etc/iscsi/initiatorname.iscsi
{login} || {login}
tries=0
while [ ! -b /dev/sr0 ] && [ $tries -lt 200 ]; do usleep 50000; tries=$((tries + 1)); done
echo "DISC type=$(cat /sys/block/sr0/device/type) sectors=$(cat /sys/block/sr0/size)"
mount -t iso9660 -o ro /dev/sr0 /disc && echo "DISC mounted $(cat /sys/block/sr0/ro)"
echo "DISC sum=$(sha256sum /disc/facts.bin)"
dd if=/dev/zero of=/dev/sr0 bs=2048 count=1 2> /dev/null && echo "DISC written"
umount /disc && echo "DISC unmounted"
echo "DISC end"
poweroff -f
"""
KERNEL_WORDS = "console=ttyS0,115200 panic=-1 quiet mitigations=off tsc=reliable no_timer_check cryptomgr.notests"


def test_cap_211_a_linux_guest_mounts_it(tmp_path):
    (tmp_path / "disc.iso").write_bytes(optical_image("PANLOOM", "FACTS.BIN", CONTENT))
    with TargetProcess(tmp_path, "--lun", f"1={tmp_path / 'disc.iso'}") as target:
        login = f"iscsistart -i iqn.2026-11.dev.panloom:node.n1 -t {target.iqn} -g 1 -a 10.0.2.2 -p {target.ports[0]}"
        kernel = newest_kernel(PACKAGES)
        script = INIT.format(login=login).encode()
        (tmp_path / "initrd").write_bytes(initramfs(PACKAGES, kernel, script, modules=("isofs", "sr_mod")))
        said = console_of(tmp_path, kernel)
    blocks = (tmp_path / "disc.iso").stat().st_size // 2048
    assert f"DISC type=5 sectors={4 * blocks}" in said
    assert f"DISC sum={hashlib.sha256(CONTENT).hexdigest()}  /disc/facts.bin" in said
    assert [line for line in said if line.startswith(("DISC mounted", "DISC written", "DISC unmounted"))] == [
        "DISC mounted 1", "DISC unmounted",
    ]  # fmt: skip


def console_of(directory, kernel):
    """Boot the kernel and the initramfs, and return what the console has said when the machine is off."""
    console = directory / "console"
    with console.open("wb") as output:
        machine = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"),
                *("-M", "pc,usb=off", "-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-m", "256", "-no-reboot"),
                *("-kernel", str(kernel), "-initrd", str(directory / "initrd"), "-append", KERNEL_WORDS),
                *("-netdev", "user,id=n0,ipv6=off", "-device", "virtio-net-pci,netdev=n0,romfile="),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            until(lambda: machine.poll() is not None, "the guest has done its work", seconds=120)
        finally:
            machine.kill()
            machine.wait()
    said = console.read_text(errors="replace").splitlines()
    assert "DISC end" in said, "\n".join(said[-40:])
    return said
