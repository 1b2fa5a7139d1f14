"""tgtd, the Linux SCSI target framework, as a foreign target: a process of the test, its socket in its directory."""

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from panloom.values import Iqn
from support.namespaces import Namespace
from support.storage_process import free_port
from support.waiting import until

TARGET = Iqn("iqn.2026-11.dev.panloom:peer")


def _start(*command: str, **options: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, **options)


class Tgtd:
    """One target with one disk as LUN 1, in a namespace if need be; ``parameters`` are keys such as HeaderDigest."""

    def __init__(self, directory: Path, octets: int, *, inside: Namespace | None = None, **parameters: str) -> None:
        self._start = inside.start if inside else _start
        self.disk = directory / "tgtd.disk"
        self.disk.touch()
        os.truncate(self.disk, octets)
        self.log = directory / "tgtd.log"
        self.port = free_port()
        self._environment = {**os.environ, "TGT_IPC_SOCKET": str(directory / "tgtd.ipc")}
        self._parameters = parameters
        self._accounts: tuple[tuple[str, str, str], ...] = ()
        self.start()

    @property
    def portal(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def start(self) -> None:
        """Start it, again after ``kill``."""
        with self.log.open("ab") as log:
            command = ["tgtd", "-f", "-C", "7", "--iscsi", f"portal=127.0.0.1:{self.port}"]
            self._process = self._start(*command, stdout=log, stderr=log, env=self._environment)
        until(self._answers, "tgtd answers")
        self._tell("--op=new", "--mode=target", "--tid=1", f"--targetname={TARGET}")
        self._tell("--op=new", "--mode=logicalunit", "--tid=1", "--lun=1", f"--backing-store={self.disk}")
        for name, value in self._parameters.items():
            self._tell("--op=update", "--mode=target", "--tid=1", f"--name={name}", f"--value={value}")
        for account in self._accounts:
            self._add_account(*account)
        self._tell("--op=bind", "--mode=target", "--tid=1", "--initiator-address=ALL")

    def want(self, user: str, secret: str, *, prove: tuple[str, str] | None = None) -> None:
        """Let nobody in without this proof, and prove itself where it is asked."""
        self._accounts = ((user, secret, ""), *(((*prove, "--outgoing"),) if prove else ()))
        for account in self._accounts:
            self._add_account(*account)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def _add_account(self, user: str, secret: str, direction: str) -> None:
        self._tell("--op=new", "--mode=account", f"--user={user}", f"--password={secret}")
        self._tell("--op=bind", "--mode=account", "--tid=1", f"--user={user}", *filter(None, [direction]))

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"tgtd has ended: {self.log.read_text()}")
        return self._tgtadm("--op=show", "--mode=sys").returncode == 0

    def _tell(self, *arguments: str) -> None:
        said = self._tgtadm(*arguments)
        if said.returncode:
            raise AssertionError(f"tgtadm {' '.join(arguments)}: {said.stderr}")

    def _tgtadm(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = ["tgtadm", "-C", "7", "--lld=iscsi", *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
