"""A Debian that tests boot: built once for what it is made of, and kept.

Its page (``facts``) says what the system has become; so does the end of its boot on the console.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import msgspec
import yaml

from panloom.golden.build import build_image
from panloom.lab.chassis import Chassis
from panloom.lab.running import RunningLab
from support.identities import KEY
from support.lab import IMAGES, LabInTest, pan
from support.namespaces import LoopInside, namespace

BOOT_SECONDS = 600.0

RECIPE = r"""
size: 1GiB
packages: [openssh-server]
files:
  /usr/local/sbin/facts: |
    #!/bin/sh
    . /run/panloom/personality
    mkdir -p /run/page /run/cidata
    mount -t iso9660 -o ro LABEL=CIDATA /run/cidata
    {
        echo "server=$PAN/$SERVER"
        echo "epoch=$EPOCH"
        echo "instance=$INSTANCE"
        echo "hostname=$(uname -n)"
        echo "machine_id=$(cat /etc/machine-id)"
        echo "host_key=$(cut -d ' ' -f 2 /etc/ssh/ssh_host_ed25519_key.pub)"
        echo "keys_of_root=$(sshd -T -C user=root | grep -i ^authorizedkeysfile)"
        echo "authorized_keys=$(grep -c . /run/panloom/authorized_keys)"
        echo "root_octets=$(df -B1 --output=size / | tail -n 1 | tr -d ' ')"
        echo "cidata=$(ls /run/cidata | tr '\n' ' ')"
        echo "meta_data=$(tr -d '\n' < /run/cidata/meta-data)"
        echo "address=$(ip -4 -o address show dev eth0 | tr -s ' ' | cut -d ' ' -f 4)"
        echo "mac=$(cat /sys/class/net/eth0/address)"
        echo "watchdog=$(systemctl show --value -p Type -p WatchdogUSec -p NRestarts panloom-agent | tr '\n' ' ')"
        echo "issue=$(head -n 1 /run/issue.d/panloom.issue)"
        echo "initramfs=$(readlink -f /initrd.img)"
        echo "shared=$(paste -s -d ';' /run/shared-nic/events | sed 's/;/; /g')"
        echo "cards=$(ls /sys/class/net | paste -s -d ' ')"
        echo "units=$(systemctl is-active serial-getty@ttyS0 panloom-agent ssh | tr '\n' ' ')"
    } > /run/page/facts.new
    mv /run/page/facts.new /run/page/facts.txt
  /etc/systemd/system/page.service: |
    [Unit]
    After=multi-user.target
    [Service]
    ExecStartPre=/usr/local/sbin/facts
    ExecStart=/bin/busybox httpd -f -p 80 -h /run/page
    [Install]
    WantedBy=default.target
  /etc/systemd/system.conf.d/patient.conf: |
    [Manager]
    DefaultDeviceTimeoutSec=600
    DefaultTimeoutStartSec=600
  /etc/systemd/system/broken.service: |
    [Service]
    Type=oneshot
    ExecStart=/bin/false
    [Install]
    WantedBy=multi-user.target
  /etc/systemd/system/worst.service: |
    [Unit]
    After=page.service
    [Service]
    ExecStart=/usr/local/sbin/worst
    KillMode=process
    [Install]
    WantedBy=default.target
run:
  - systemctl enable broken.service page.service worst.service
  - systemctl disable apt-daily.timer apt-daily-upgrade.timer
"""


WORST = Path(__file__).parent / "guest" / "worst_networkd.sh"


def debian_image(*, packages: Sequence[str] = (), run: Sequence[str] = ()) -> Path:
    """Return the disk, of a recipe with these packages and lines as well.

    Its name says what it is made of, so what was built of anything else is not taken for it.  Of those with the same
    packages the latest alone is kept.
    """
    wanted = yaml.safe_load(RECIPE)
    wanted["packages"] += packages
    wanted["run"] += run
    wanted["files"]["/usr/local/sbin/worst"] = WORST.read_text()
    text = yaml.safe_dump(wanted)
    made_of = hashlib.sha256(text.encode())
    golden, node = Path(str(files("panloom.golden"))), Path(str(files("panloom.node")))
    for path in sorted((*golden.rglob("*"), *node.glob("guest/*"), node / "agent.py")):
        if path.is_file() and path.suffix != ".pyc":
            made_of.update(f"{path.relative_to(golden.parent)}\n".encode() + path.read_bytes())
    variant = "+".join(("debian", *packages))
    path = IMAGES / f"{variant}.{made_of.hexdigest()[:16]}.img"
    if not path.exists():
        IMAGES.mkdir(parents=True, exist_ok=True)
        recipe = path.with_suffix(".yaml")
        recipe.write_text(text)
        build_image(recipe, path, archive=IMAGES / "debian-archive")
        for older in IMAGES.glob(f"{variant}.*.img"):
            if older != path:
                older.unlink()
    return path


@contextmanager
def debian_lab(directory: Path, image: Path) -> Iterator[LabInTest]:
    """Run a lab of one machine and no server."""
    chassis = Chassis.of(nodes=1)
    large = tuple(msgspec.structs.replace(machine, memory_octets=512 << 20) for machine in chassis.machines)
    with namespace("lab") as inside, LoopInside(inside) as loop:
        running = RunningLab(directory, chassis=msgspec.structs.replace(chassis, machines=large))
        lab = LabInTest(running, inside, loop, image)
        try:
            lab.call(running.start(image), seconds=120)
            # An emulated processor may take minutes for what is seconds, and stand still meanwhile.
            lab.declare(boot_timeout="600s", liveness={"interval": "1s", "timeout": "60s"})
            yield lab
        finally:
            lab.call(running.stop())


def declare_server(lab: LabInTest, *, needs: str = "{}") -> None:
    """Make shop/web1 of the disk, larger than it; the machine boots it if it has what the server needs."""
    more = f"disk: {{size: 2GiB}}\n    ssh_keys: ['{KEY}']\n    failover: no\n    needs: {needs}"
    lab.apply(pan(servers="web1", address="10.1.0.11", more=more))
