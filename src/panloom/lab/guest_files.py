"""What is in the image: the kernel, and the file trees of the initramfs and of the root file system, as values.

A tree maps a path to a node, each directory before what it holds.  The scripts lie in ``lab/guest``, and what other
images have too in ``node/guest``; kernel, modules, busybox and open-iscsi come from Debian packages that were unpacked,
their shared libraries from there or from this host.
"""

import hashlib
import lzma
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path, PurePosixPath
from stat import S_IFDIR, S_IFLNK, S_IFREG
from typing import NamedTuple

from panloom.errors import UnavailableError
from panloom.lab.shared_objects import libraries_of

_MODULES = ("virtio_pci", "virtio_net", "iscsi_ibft", "sd_mod", "iscsi_tcp", "macvlan")
_APPLETS = [
    "cat",
    "cp",
    "dd",
    "dmesg",
    "getty",
    "hostname",
    "httpd",
    "ifconfig",
    "ip",
    "kill",
    "ln",
    "logger",
    "login",
    "ls",
    "mkdir",
    "mkfifo",
    "mount",
    "mv",
    "nsenter",
    "ping",
    "poweroff",
    "printf",
    "ps",
    "reboot",
    "rm",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sync",
    "syslogd",
    "touch",
    "udhcpc",
    "unshare",
    "usleep",
]
_ISCSID = """node.session.timeo.replacement_timeout = 120
node.conn[0].timeo.login_timeout = 5
node.conn[0].timeo.noop_out_interval = 5
node.conn[0].timeo.noop_out_timeout = 5
"""
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_SCRIPT, _DATA, _DIRECTORY, _LINK = S_IFREG | 0o755, S_IFREG | 0o644, S_IFDIR | 0o755, S_IFLNK | 0o777
_NEWC = (
    "070701" + "{:08X}" * 13
)  # the header of an archive member, Documentation/driver-api/early-userspace/buffer-format.rst


class Node(NamedTuple):
    """One file, directory or symbolic link, owned by root."""

    mode: int  # type and permissions, as stat(2) has them
    content: bytes  # of a file; of a link, where it points; of a directory, nothing


Tree = Mapping[str, Node]


class Guest(NamedTuple):
    """Everything that goes into an image."""

    release: str  # of the kernel
    kernel: bytes
    initramfs: bytes  # a cpio archive
    efi_stub: bytes  # the program that UEFI starts, and that starts the kernel
    root: Tree

    def digest(self) -> str:
        """Return the sha256 of it all, in hex."""
        digest = hashlib.sha256(repr((self.release, *map(len, (self.kernel, self.initramfs, self.efi_stub)))).encode())
        digest.update(self.kernel)
        digest.update(self.initramfs)
        digest.update(self.efi_stub)
        for path, node in self.root.items():
            digest.update(repr((path, node.mode, len(node.content))).encode())
            digest.update(node.content)
        return digest.hexdigest()


def collect_guest(packages: Path, extra_files: Mapping[str, bytes]) -> Guest:
    """Read what an image is made of from the packages unpacked below ``packages``; ``extra_files`` go on the root disk.

    Raises ``UnavailableError`` when a file of a package is missing.
    """
    kernel = newest_kernel(packages)
    archive = initramfs(packages, kernel, files("panloom.lab").joinpath("guest/initramfs.sh").read_bytes())
    stub = _read(packages / "usr/lib/systemd/boot/efi/linuxx64.efi.stub")
    return Guest(_release(kernel), _read(kernel), archive, stub, _root_tree(packages, extra_files))


def newest_kernel(packages: Path) -> Path:
    """Return the file of the newest kernel below ``packages``; where there is none, the one that is missing."""
    return max(packages.glob("boot/vmlinuz-*-cloud-amd64"), key=_version, default=packages / "boot/vmlinuz")


def initramfs(packages: Path, kernel: Path, script: bytes, *, modules: Iterable[str] = ()) -> bytes:
    """Return an initramfs for a kernel: ``script`` is /init, beside busybox, the initiator and modules, these too.

    Raises ``UnavailableError`` when a file of a package is missing.
    """
    return _archive(_initramfs_tree(packages, packages / "lib/modules" / _release(kernel), script, modules))


def bare_initramfs(packages: Path, kernel: Path, script: bytes, modules: Iterable[str]) -> bytes:
    """Return an initramfs for a kernel: ``script`` is /init, beside busybox and those of the modules that there are.

    Raises ``UnavailableError`` when a file of a package is missing.
    """
    place = packages / "lib/modules" / _release(kernel)
    there = {path.name.partition(".")[0].replace("-", "_") for path in place.rglob("*.ko*")}
    tree = {"init": Node(_SCRIPT, script), "bin/sh": Node(_LINK, b"busybox")}
    for index, module in enumerate(_modules_in_order(place, [name for name in modules if name in there])):
        tree[f"modules/{index:03}-{module.name.partition('.')[0]}.ko"] = Node(_DATA, _module(module))
    return _archive(_with_directories(tree | _busybox(packages)))


def _release(kernel: Path) -> str:
    return kernel.name.removeprefix("vmlinuz-")


def _version(kernel: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", kernel.name)))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UnavailableError(f"{path} is missing; run: make setup-demo") from error


def _initramfs_tree(packages: Path, modules: Path, script: bytes, more: Iterable[str]) -> Tree:
    tree = {
        "init": Node(_SCRIPT, script),
        "bin/sh": Node(_LINK, b"busybox"),
        "etc/iscsi": Node(_DIRECTORY, b""),  # where iscsistart 2.1.8 insists on a place for its records …
        "var/lib/iscsi": Node(_DIRECTORY, b""),  # … and 2.1.11
    }
    for index, module in enumerate(_modules_in_order(modules, (*_MODULES, *more))):
        tree[f"modules/{index:02}-{module.name.partition('.')[0]}.ko"] = Node(_DATA, _module(module))
    tree["etc/iscsi/iscsid.conf"] = Node(_DATA, _ISCSID.encode())
    tree["etc/passwd"] = Node(_DATA, b"root:x:0:0:root:/:/bin/sh\n")  # iscsid asks for root by name
    tree["etc/group"] = Node(_DATA, b"root:x:0:\n")
    tree["etc/nsswitch.conf"] = Node(_DATA, b"passwd: files\ngroup: files\n")
    tree["sbin/install"] = Node(_SCRIPT, files("panloom.lab").joinpath("guest/install.sh").read_bytes())
    return _with_directories(tree | _busybox(packages) | _shared_nic() | _programs(packages, ("iscsistart", "iscsid")))


def _root_tree(packages: Path, extra_files: Mapping[str, bytes]) -> Tree:
    scripts = {"sbin/init": "init.sh", "sbin/os": "os.sh", "sbin/lease": "lease.sh"}
    tree = {
        path: Node(_SCRIPT, files("panloom.lab").joinpath("guest", name).read_bytes()) for path, name in scripts.items()
    }
    tree |= {f"bin/{applet}": Node(_LINK, b"busybox") for applet in _APPLETS}
    tree |= {path: Node(_DIRECTORY, b"") for path in ("dev", "proc", "sys", "run", "tmp")}
    tree["etc/resolv.conf"] = Node(_LINK, b"/run/resolv.conf")
    tree["etc/passwd"] = Node(_DATA, b"root::0:0:root:/:/bin/sh\n")  # no password: only the console asks for a login
    tree["etc/group"] = Node(_DATA, b"root:x:0:\n")
    tree |= {path.lstrip("/"): Node(_DATA, content) for path, content in extra_files.items()}
    return _with_directories(tree | _busybox(packages) | _shared_nic())


def _shared_nic() -> dict[str, Node]:
    return {"sbin/shared-nic": Node(_SCRIPT, files("panloom.node").joinpath("guest/shared-nic.sh").read_bytes())}


def _busybox(packages: Path) -> dict[str, Node]:
    return {"bin/busybox": Node(_SCRIPT, _read(packages / "bin/busybox"))}


def _programs(packages: Path, names: Iterable[str]) -> dict[str, Node]:
    """Return programs from ``sbin`` with the libraries that they need."""
    programs = {f"sbin/{name}": packages / "sbin" / name for name in names}
    tree = {path: Node(_SCRIPT, _read(program)) for path, program in programs.items()}
    places = (packages / "lib/x86_64-linux-gnu", packages / "lib64", Path("/lib/x86_64-linux-gnu"), Path("/lib64"))
    for guest_path, path in libraries_of(programs.values(), places).items():
        tree[guest_path.lstrip("/")] = Node(_SCRIPT, path.read_bytes())
    return tree


def _with_directories(tree: Mapping[str, Node]) -> Tree:
    """Return the tree in order of path, with the directories that it takes for granted."""
    parents = {str(parent) for path in tree for parent in PurePosixPath(path).parents} - {"."}
    implied = {path: Node(_DIRECTORY, b"") for path in parents}
    return dict(sorted((implied | dict(tree)).items()))


def _modules_in_order(modules: Path, names: Iterable[str]) -> Iterable[Path]:
    """Return the modules' files, each after those it depends on; what the kernel has built in is left out."""
    by_name = {path.name.partition(".")[0].replace("-", "_"): path for path in modules.rglob("*.ko*")}
    built_in = {
        PurePosixPath(line).stem.replace("-", "_") for line in _read(modules / "modules.builtin").decode().split()
    }
    order: dict[str, Path] = {}

    def add(name: str) -> None:
        if name in order or name in built_in:
            return
        if name not in by_name:
            raise UnavailableError(f"kernel module {name} is not below {modules}")
        depends = _DEPENDS.search(_module(by_name[name]))
        for needed in depends[1].decode().split(",") if depends and depends[1] else ():
            add(needed.replace("-", "_"))
        order[name] = by_name[name]

    for name in names:
        add(name)
    return tuple(order.values())


def _module(path: Path) -> bytes:
    octets = path.read_bytes()
    return lzma.decompress(octets) if path.suffix == ".xz" else octets


def _archive(tree: Tree) -> bytes:
    """Return the tree as an archive in cpio's newc form."""
    members = bytearray()
    for number, (path, (mode, content)) in enumerate([*tree.items(), ("TRAILER!!!", Node(0, b""))], start=1):
        name = path.encode() + b"\0"
        header = _NEWC.format(number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0).encode() + name
        for part in (header, content):
            members += part + bytes(-len(part) % 4)
    return bytes(members)
