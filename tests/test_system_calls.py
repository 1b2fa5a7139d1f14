"""Everything that is kept goes to the disk through one table."""

import ast
from pathlib import Path

import panloom

SOURCE = Path(panloom.__file__).parent
KEEPERS = ("storage", "state", "control", "decide", "boot", "fabric")
"""The packages of the two processes; the lab's files are for one afternoon, and the commands keep none."""

FILE_CALLS = {
    "chmod", "copy_file_range", "fallocate", "fchmod", "fdatasync", "fdopen", "fsync", "ftruncate", "link", "listdir",
    "lseek", "makedirs", "mkdir", "mkfifo", "mknod", "open", "posix_fallocate", "pread", "preadv", "pwrite", "pwritev",
    "read", "readv", "remove", "removedirs", "rename", "renames", "replace", "rmdir", "scandir", "sendfile", "splice",
    "stat", "symlink", "sync", "truncate", "unlink", "write", "writev",
}  # fmt: skip
PATH_CALLS = {
    "exists", "glob", "hardlink_to", "is_file", "iterdir", "mkdir", "open", "read_bytes", "read_text", "rename",
    "rglob", "rmdir", "stat", "symlink_to", "touch", "unlink", "write_bytes", "write_text",
}  # fmt: skip
MODULES = {"mmap", "shutil", "tempfile"}

NOT_KEPT = {
    "boot": "serves what others put there",
    "control/console_log.py": "what consoles said; nothing relies on it",
    "control/consoles.py": "what consoles said; nothing relies on it",
    "control/door.py": "a socket",
    "control/image_capture.py": "a copy on its way, which the storage process takes in and keeps",
    "control/image_sources.py": "a copy on its way, which the storage process takes in and keeps",
    "control/power_program.py": "somebody else's program",
    "control/site_check.py .read_text": "/sys",
    "fabric": "devices and namespaces",
    "storage/__main__.py": "the control channel's socket",
    "storage/channel.py": "the control channel's socket",
    "storage/output.py import": "mmap of memory, not of a file",
    "storage/output.py os.preadv": "what the medium named; nothing is written",
    "storage/output.py os.sendfile": "what the medium named; nothing is written",
    "storage/overlay.py .read_text": "/proc",
    "storage/stand_alone_options.py": "what a person wrote",
    "storage/stores/file.py .stat": "what a name leads to, before it is opened",
    "storage/stores/file.py .read_text": "the machine's name",
    "storage/stores/file.py .exists": "the machine's name",
    "storage/stores/file.py fcntl.ioctl": "whether a block device may be written",
}


def calls_on_files(path):
    """Return what a module calls that reaches a file without ``system_calls``, as line and name."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names) if MODULES & {name.name for name in names}:
                yield node.lineno, "import"
            case ast.ImportFrom(module="os" | "mmap" | "shutil" | "tempfile" | "fcntl"):
                yield node.lineno, "from … import"
            case ast.Call(func=ast.Name(id="open")):
                yield node.lineno, "open"
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in FILE_CALLS:
                yield node.lineno, f"os.{name}"
            case ast.Attribute(value=ast.Name(id="fcntl"), attr=name):
                yield node.lineno, f"fcntl.{name}"
            case ast.Attribute(value=value, attr=name) if name in PATH_CALLS and looks_like_a_path(value):
                yield node.lineno, f".{name}"


def looks_like_a_path(value):
    """Return whether an expression is named as paths are named here."""
    return any(word in ast.unparse(value).lower() for word in ("path", "directory", "file", "/"))


def test_nothing_else_touches_what_is_kept():
    """A new call belongs in ``system_calls``; or, if what it reaches is not kept, into the list above."""
    found = set()
    for path in sorted(each for package in KEEPERS for each in (SOURCE / package).rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        for line, call in calls_on_files(path):
            if not {name, name.partition("/")[0], f"{name} {call}"} & NOT_KEPT.keys():
                found.add(f"{name}:{line}: {call}")
    assert found == set()
