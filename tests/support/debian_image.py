"""A Debian that tests boot: built once for what it is made of, and kept.

Its page (``facts``) says what the system has become; so does the end of its boot on the console.
"""

import hashlib
from importlib.resources import files
from pathlib import Path

from panloom.golden.build import build_image
from support.lab import IMAGES

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
run:
  - systemctl enable broken.service
  - systemctl enable page.service
  - systemctl disable apt-daily.timer apt-daily-upgrade.timer
"""


def debian_image() -> Path:
    """Return the disk; its name says what it is made of, so what was built of anything else is not taken for it."""
    made_of = hashlib.sha256(RECIPE.encode())
    golden, node = Path(str(files("panloom.golden"))), Path(str(files("panloom.node")))
    for path in sorted((*golden.rglob("*"), *node.glob("guest/*"), node / "agent.py")):
        if path.is_file() and path.suffix != ".pyc":
            made_of.update(f"{path.relative_to(golden.parent)}\n".encode() + path.read_bytes())
    path = IMAGES / f"debian-{made_of.hexdigest()[:16]}.img"
    if not path.exists():
        IMAGES.mkdir(parents=True, exist_ok=True)
        recipe = path.with_suffix(".yaml")
        recipe.write_text(RECIPE)
        build_image(recipe, path, archive=IMAGES / "debian-archive")
        for older in IMAGES.glob("debian-*.img"):
            if older != path:
                older.unlink()
    return path
