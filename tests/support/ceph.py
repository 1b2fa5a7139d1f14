"""A Ceph cluster of one machine, of the test: a monitor and an OSD in memory, on the loopback address, without keys.

    with Ceph(directory) as ceph:            a pool named rbd, and ``ceph.conf`` for clients
        ceph.run("rbd", "create", …)         Ceph's own programs

Both are children of the test; it asks the monitor by librados, as ``ceph`` does, which is a program of another Python.
"""

import ctypes
import json
import os
import re
import shutil
import subprocess
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.storage_process import free_port
from support.waiting import until

_CONF = """\
[global]
fsid = {fsid}
mon initial members = a
mon host = [v2:127.0.0.1:{port},v1:127.0.0.1:{other_port}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail crit = 0
osd objectstore = memstore
memstore device bytes = 268435456
osd class dir = {libraries}/rados-classes
erasure code dir = {libraries}/ceph/erasure-code
plugin dir = {libraries}/ceph
osd class load list = *
run dir = {root}/run
admin socket = $run_dir/$name.asok
log file = {root}/$name.log
mon data = {root}/mon
osd data = {root}/osd
mon cluster log file = {root}/cluster.log
"""


class Ceph:
    """See above; the cluster is healthy enough for images when this returns."""

    def __init__(self, directory: Path) -> None:
        self.conf = directory / "ceph.conf"
        self._root = directory / "ceph"
        (self._root / "run").mkdir(parents=True)
        self._processes: list[subprocess.Popen[bytes]] = []
        program = shutil.which("ceph-osd")
        if program is None:
            raise AssertionError("there is no ceph-osd; scripts/setup test unpacks it")
        fsid, libraries = uuid.uuid4(), Path(program).resolve().parents[1] / "lib"
        triplet = libraries / "x86_64-linux-gnu"
        if (triplet / "rados-classes").exists():
            libraries = triplet
        self.conf.write_text(
            _CONF.format(fsid=fsid, port=free_port(), other_port=free_port(), libraries=libraries, root=self._root)
        )
        self._environment = {**os.environ, "CEPH_CONF": str(self.conf)}
        try:
            self._start(str(fsid))
        except BaseException:
            self.end()
            raise

    def run(self, *command: str) -> str:
        """Run one of Ceph's programs and return what it prints."""
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def end(self) -> None:
        """End both, the OSD first."""
        for process in reversed(self._processes):
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def _start(self, fsid: str) -> None:
        conf, monmap = str(self.conf), str(self._root / "monmap")
        ports = re.search(r"\[v2:.*\]", self.conf.read_text())
        self.run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", ports[0] if ports else "", monmap)
        self.run("ceph-mon", "-c", conf, "--mkfs", "-i", "a", "--monmap", monmap)
        self._spawn("ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        self.ask(prefix="osd new", uuid=osd)
        (self._root / "osd").mkdir()
        self.run("ceph-osd", "-c", conf, "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._spawn("ceph-osd", "-i", "0")
        self.ask(prefix="osd pool create", pool="rbd", pg_num=4, size=1, yes_i_really_mean_it=True)
        self.ask(prefix="osd pool application enable", pool="rbd", app="rbd")
        until(self._up, "the OSD is up")

    def _spawn(self, *command: str) -> None:
        with (self._root / f"{command[0]}.out").open("wb") as log:
            self._processes.append(
                subprocess.Popen([*command, "-f", "-c", str(self.conf)], env=self._environment, stdout=log, stderr=log)
            )

    def _up(self) -> bool:
        """Whether the OSD takes requests; what is sent to a group that is not active yet waits for it."""
        (osd,) = json.loads(self.ask(prefix="osd dump", format="json"))["osds"]
        return bool(osd["up"])

    def ask(self, **command: Any) -> str:
        """Have the monitor do a command, and return its answer."""
        rados = ctypes.CDLL("librados.so.2")
        cluster = ctypes.c_void_p()
        rados.rados_create(ctypes.byref(cluster), None)
        rados.rados_conf_read_file(cluster, str(self.conf).encode())
        rados.rados_conf_set(cluster, b"client_mount_timeout", b"30")
        if result := rados.rados_connect(cluster):
            raise AssertionError(f"no cluster to be reached: {result}")
        try:
            text = (ctypes.c_char_p * 1)(json.dumps(command).encode())
            answer, status = ctypes.c_char_p(), ctypes.c_char_p()
            octets, status_octets = ctypes.c_size_t(), ctypes.c_size_t()
            result = rados.rados_mon_command(
                cluster, text, ctypes.c_size_t(1), b"", ctypes.c_size_t(0), ctypes.byref(answer),
                ctypes.byref(octets), ctypes.byref(status), ctypes.byref(status_octets),
            )  # fmt: skip
            if result:
                raise AssertionError(f"{command}: {result} {status.value!r}")
            return ctypes.string_at(answer, octets.value).decode() if octets.value else ""
        finally:
            rados.rados_shutdown(cluster)
