"""The inventory: a kernel and an initramfs that a new machine boots to tell what it has; busybox and nothing else.

    DIR/inventory-x86-64.vmlinuz   a Debian kernel, the plain one before the one for clouds, which lacks most drivers
    DIR/inventory-x86-64.cpio.gz   busybox, drivers of NICs and disks, ``guest/inventory.sh`` as /init

It is made for x86-64.  The same inputs give the same octets.
"""

import gzip
import re
from importlib.resources import files
from pathlib import Path

from panloom.decide.boot_answer import inventory_files
from panloom.errors import UnavailableError
from panloom.lab.guest_files import bare_initramfs

ARCHITECTURE = "x86-64"
_MODULES = (
    *("virtio_pci", "virtio_net", "virtio_blk", "virtio_scsi", "vmxnet3", "hv_netvsc"),
    *("e1000", "e1000e", "igb", "igc", "ixgbe", "i40e", "ice", "r8169", "tg3", "bnx2", "bnx2x", "bnxt_en"),
    *("mlx4_en", "mlx5_core", "atlantic", "qede", "sfc", "enic", "be2net", "cxgb4", "ena"),
    *("sd_mod", "ahci", "ata_piix", "nvme", "megaraid_sas", "mpt3sas", "hpsa", "smartpqi", "aacraid", "usb_storage"),
)
_KERNELS = re.compile(r"vmlinuz-\d.*-amd64\Z")


def make_inventory(packages: Path, directory: Path) -> tuple[Path, Path]:
    """Make both files in ``directory`` from the packages unpacked below ``packages``.

    Raises ``UnavailableError`` when a package is missing, or the directory cannot be written.
    """
    kernels = [path for path in packages.glob("boot/vmlinuz-*") if _KERNELS.match(path.name)]
    if not kernels:
        raise UnavailableError(f"there is no kernel below {packages}/boot; run: scripts/setup demo")
    kernel = max(kernels, key=lambda path: ("cloud" not in path.name, [*map(int, re.findall(r"\d+", path.name))]))
    script = files("panloom.lab").joinpath("guest/inventory.sh").read_bytes()
    initramfs = gzip.compress(bare_initramfs(packages, kernel, script, _MODULES), mtime=0)
    made = tuple(directory / name for name in inventory_files(ARCHITECTURE))
    try:
        for path, octets in zip(made, (kernel.read_bytes(), initramfs), strict=True):
            new = path.with_name(f".{path.name}.new")
            new.write_bytes(octets)
            new.replace(path)
    except OSError as error:
        raise UnavailableError(f"{directory} cannot be written: {error.strerror}") from error
    return made[0], made[1]
