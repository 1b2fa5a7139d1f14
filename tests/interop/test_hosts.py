"""Hosts that lend each other their devices, and ordinary programs that use a remote one."""

import asyncio
import contextlib
import subprocess
from pathlib import Path

import pytest

from panloom.storage.exports import Access, ExportedLun
from support.checked_use import MIB, checked, made, node, opened
from support.namespaces import LoopInside, namespace
from support.storage_process import StorageProcess
from support.target_process import TargetProcess
from support.waiting import until


@pytest.fixture
def narrow():
    """A network whose connections hold next to nothing: whoever is not read from cannot send."""
    with namespace("narrow") as inside:
        for buffer in ("rmem", "wmem"):
            inside.run("sh", "-c", f"echo 4096 8192 8192 > /proc/sys/net/ipv4/tcp_{buffer}")
        yield inside


def test_cap_209_three_hosts_each_export_a_device_and_use_those_of_the_others(tmp_path, narrow):
    """Writes are larger than what all buffers on their way hold, so each host waits for others while they do for it."""
    names = [f"iqn.2026-11.dev.panloom:host{number}" for number in range(3)]
    with contextlib.ExitStack() as stack:
        hosts = []
        for number in range(3):
            place = tmp_path / f"host{number}"
            place.mkdir()
            hosts.append(stack.enter_context(StorageProcess(place, prefix=tuple(narrow.command()))))

        def lend(number):
            async def calls(client):
                disk = ExportedLun(0, device=str(made(tmp_path / f"disk{number}")))
                await client.export(names[number], [disk], 1, Access(None))

            return calls

        def borrow(number):
            async def calls(client):
                others = [other for other in range(3) if other != number]
                luns = [
                    ExportedLun(lun, device=f"iscsi://127.0.0.1:{hosts[other].port}/{names[other]}/0")
                    for lun, other in enumerate(others)
                ]
                await client.export(f"{names[number]}.borrowed", luns, 1, Access(None))

            return calls

        for number, host in enumerate(hosts):
            host.run(lend(number))
        for number, host in enumerate(hosts):
            host.run(borrow(number))

        async def use(number, lun):
            """Write by way of this host to a device of another, to a part that nobody else has."""
            part = 2 * number + lun  # six in all
            name = f"{names[number]}.borrowed"
            async with await opened(hosts[number].port, name, initiator=node(part)) as session:
                await checked(session, lun, start=part * MIB, octets=MIB, seed=part, rounds=16)

        async def there():
            await asyncio.gather(*(use(number, lun) for number in range(3) for lun in range(2)))

        stack.enter_context(LoopInside(narrow)).call(there(), seconds=120)
        for host in hosts:  # one that waits for another in a circle would be freed by the end of a session
            assert "event=login" in host.log.read_text()
            assert "event=broken" not in host.log.read_text()


APPLICATION = """
set -e
mkfs.ext4 -q -F "$1"
mkdir "$2"
mount -o loop "$1" "$2"
python3 - "$2/shop.db" << 'END'
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as shop:
    shop.execute("CREATE TABLE sold (what TEXT, price INTEGER)")
    shop.executemany("INSERT INTO sold VALUES (?, ?)", [(f"thing {n}", n) for n in range(5000)])
with sqlite3.connect(sys.argv[1]) as shop:
    assert shop.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    print(shop.execute("SELECT count(*), sum(price) FROM sold").fetchone())
END
umount "$2"
e2fsck -f -n "$1" > /dev/null
"""


def processes_below(pid):
    """Return the process and all that any of its threads has started."""
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    children = [child for thread in threads for child in thread.read_text().split()]
    return [pid, *(below for child in children for below in processes_below(int(child)))]


def test_cap_210_an_ordinary_file_system_and_database_use_a_remote_disk_unchanged(tmp_path):
    with TargetProcess(tmp_path, "--lun", f"1={made(tmp_path / 'disk', 64 * MIB)}") as target:
        before = processes_below(target.process.pid)
        mounted = tmp_path / "block"
        mounted.touch()
        remote = f"portal=127.0.0.1:{target.ports[0]},target={target.iqn},lun=1"
        daemon = subprocess.Popen(
            [
                "qemu-storage-daemon",
                "--blockdev", f"driver=iscsi,node-name=disk,transport=tcp,{remote}",
                "--export", f"type=fuse,id=block,node-name=disk,mountpoint={mounted},writable=on",
            ]
        )  # fmt: skip
        try:
            until(lambda: daemon.poll() is not None or mounted.stat().st_size == 64 * MIB, "the disk is there")
            command = ["unshare", "--mount", "bash", "-c", APPLICATION, "bash", mounted, tmp_path / "mounted"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
            assert done.returncode == 0, done.stderr
            assert done.stdout == "(5000, 12497500)\n"
            assert processes_below(target.process.pid) == before
        finally:
            daemon.terminate()
            daemon.wait(timeout=30)
    assert before == [target.process.pid]
