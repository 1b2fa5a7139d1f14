"""The real control and storage processes in a chassis of namespaces, with played machines at its ports.

with control_node(tmp_path, nodes=2) as control:
    control.start()
    control.apply(pan("shop", "web1"))
    control.until_up("shop/web1")
"""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

from panloom.control.client import Client
from panloom.errors import PanloomError
from panloom.storage.client import StorageClient
from support.namespaces import machines
from support.played_machine import PowerSupply
from support.storage_process import run_calls
from support.waiting import until

IMAGE = b"golden" * 20_000
SECONDS = 20.0


def mac_of(number):
    return f"52:54:00:77:01:{number:02x}"


def address_of(number):
    return f"10.77.0.{10 + number}"


def pan(name, servers, *, host=11, more="", servers_more=""):
    """Return a PAN of servers ``web1`` or ``web[1-3]`` with addresses from ``host`` on; each PAN has its own subnet."""
    number = sum(map(ord, name)) % 200
    first, dash, last = servers.partition("[")[2].rstrip("]").partition("-")
    hosts = f"[{host}-{host + int(last) - int(first)}]" if dash else str(host)
    return f"""
apiVersion: panloom/v1
kind: PAN
name: {name}
lans:
  front: {{subnet: 10.{number}.0.0/24}}
servers:
  {servers}:
    image: web
    disk: {{size: 1MiB}}
    nics:
      - {{lan: front, address: "10.{number}.0.{hosts}"}}
    {more}
{servers_more}"""


class ControlNode:
    """A control node's processes, API, power supply and machines."""

    def __init__(self, directory, chassis):
        self.directory = directory
        self.inside = chassis.control
        self.nodes = list(chassis.nodes)
        self.supply = PowerSupply(directory / "power.sock")
        self.socket = directory / "panloom.sock"
        self.storage_socket = directory / "storage.sock"
        self.client = Client(str(self.socket))
        self.processes = {}
        self.image = directory / "golden"
        self.image.write_bytes(IMAGE)
        for number, (name, inside) in enumerate(chassis.nodes.items(), start=1):
            inside.ip(f"address add {address_of(number)}/24 dev eth0")
            self.supply.plug_in(name, inside, mac_of(number), address_of(number))

    def __getitem__(self, node):
        return self.supply.machines[node]

    # ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, **platform):
        """Start both processes and declare platform, nodes and image."""
        self.start_storage()
        self.start_control()
        self.declare(**platform)
        self.until_event("boot services")

    def declare(self, **platform):
        self.apply(self.platform(**platform), "lab.yaml")

    def start_storage(self, module="panloom.storage"):
        portal = ("--portal", "10.77.0.1:3260")
        options = ("--directory", self.directory / "store", "--socket", self.storage_socket, *portal)
        self._spawn("storage", module, options, b"listening=yes")

    def start_control(self, **environment):
        options = ("--directory", self.directory / "state", "--socket", self.socket, "--storage", self.storage_socket)
        self._spawn("control", "panloom.control", options, b"control=ready", environment)

    def _spawn(self, name, module, options, ready, environment=None):
        path = self.directory / f"{name}.log"
        with path.open("ab") as log:
            before = log.tell()
            process = self.processes[name] = self.inside.start(
                *(sys.executable, "-W", "error", "-m", module, *options),
                stderr=log, stdout=log, env={**os.environ, **(environment or {})},
            )  # fmt: skip
        until(
            lambda: ready in path.read_bytes()[before:] or process.poll() is not None,
            f"{name} is ready",
            seconds=SECONDS,
        )
        assert ready in path.read_bytes()[before:], path.read_text()[-2000:]

    def kill(self, name):
        self.processes[name].kill()
        self.processes[name].wait()

    def signal(self, name, number):
        self.processes[name].send_signal(number)

    def died_by_itself(self, name):
        """Wait for the end of a process at its failpoint."""
        assert self.processes[name].wait(SECONDS) == -signal.SIGKILL

    def stop(self):
        """End everything; the processes' own ends must be clean."""
        self.supply.close()
        for name in ("control", "storage"):
            process = self.processes.get(name)
            if process is not None and process.poll() is None:
                process.terminate()
                assert process.wait(SECONDS) == 0, self.log(name)
        for name in self.processes:
            assert "Traceback" not in self.log(name), self.log(name)

    def log(self, name="control"):
        return (self.directory / f"{name}.log").read_text()

    # ── documents ────────────────────────────────────────────────────────────────────────────────────────────────────

    def platform(
        self,
        *,
        boot_timeout="20s",
        max_boot_attempts=3,
        interval="0.1s",
        timeout="1s",
        discovery="",
        nodes=None,
        auth="chap",
    ):
        lab = (
            f"kind: Platform\nname: lab\nauth: {auth}\n"
            f"boot_timeout: {boot_timeout}\nmax_boot_attempts: {max_boot_attempts}\n"
            f"storage: {{interface: br0, address: 10.77.0.1, subnet: 10.77.0.0/24{discovery}}}\n"
            f"liveness: {{interval: {interval}, timeout: {timeout}}}"
        )
        documents = [lab, f"kind: Image\nname: web\nversion: 1\nsource: {self.image}"]
        for name in self.nodes if nodes is None else nodes:
            number = self.nodes.index(name) + 1
            documents.append(
                f"kind: Node\nname: {name}\nmac: {mac_of(number)}\naddress: {address_of(number)}\nport: port-{name}\n"
                f"memory: 1GiB\npower: {{path: {self.supply.path}, name: {name}}}"
            )
        return "---\n".join(f"apiVersion: panloom/v1\n{document}\n" for document in documents)

    def apply(self, text, name="web.yaml", *, prune=False):
        files = [{"name": name, "text": text, "origin": f"/test/{name}"}]
        return self.client.post("apply", body={"files": files, "prune": prune})

    # ── what is ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def server(self, name):
        return self.client.get("resources", "server", name)

    def node(self, name):
        return self.client.get("resources", "node", name)

    def events(self, kind=None, *, after=0, **facts):
        events = self.client.get("events", after=after)["events"]
        return [
            event for event in events
            if kind in (None, event["kind"]) and all(event.get(name) == fact for name, fact in facts.items())
        ]  # fmt: skip

    def numbers_have_no_gap(self):
        events = self.events()
        return [event["number"] for event in events] == list(range(1, len(events) + 1))

    def numbers_rise(self):
        """Whether no number was told of twice; where the control process was killed some may be left out."""
        numbers = [event["number"] for event in self.events()]
        return numbers == sorted(set(numbers))

    def last(self):
        """Return the number of the newest event."""
        return max((event["number"] for event in self.events()), default=0)

    def until_event(self, kind, *, after=0, seconds=SECONDS, **facts):
        return self._until(lambda: self.events(kind, after=after, **facts), f"event {kind} {facts}", seconds)[0]

    def until_up(self, server, *, not_on=(), epoch=None, seconds=SECONDS):
        """Wait until a server is up and its machine agrees; return the row."""

        def is_up():
            row = self.server(server)
            up = row["state"].startswith("up") and row["node"] not in not_on and epoch in (None, row["epoch"])
            return row if up and self[row["node"]].runs(server, row["epoch"]) else None

        return self._until(is_up, f"{server} is up", seconds)

    def _until(self, fact, what, seconds):
        try:
            return until(fact, what, seconds=seconds)
        except (AssertionError, PanloomError) as error:
            tail = "\n".join(self.log().splitlines()[-40:])
            stages = {name: machine.stage for name, machine in self.supply.machines.items()}
            raise AssertionError(f"{error}\n{stages}\n{tail}") from error

    def storage(self, calls):
        """Run calls of a storage client."""
        return run_calls(self.storage_socket, calls)

    def sessions_of(self, node):
        status = self.storage(StorageClient.status)
        return [session for session in status.sessions if session.initiator.endswith(f":node.{node}")]


@contextmanager
def control_node(directory, *, nodes=2):
    """Make a chassis of ``nodes`` machines, all off; nothing is started."""
    macs = {f"n{number}": mac_of(number) for number in range(1, nodes + 1)}
    with machines(macs) as chassis:
        control = ControlNode(directory, chassis)
        try:
            yield control
        finally:
            control.stop()


def run_panloom(control, *arguments):
    """Run the command line; return exit status, output and what it said beside it."""
    done = subprocess.run(
        (sys.executable, "-W", "error", "-c", "from panloom.command import main; main()", *arguments),
        env={**os.environ, "PANLOOM_SOCKET": str(control.socket)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr
