"""Machines played without QEMU: power, firmware, kernel and userland of a node, each step over the real network.

    off ──on──▶ DHCP ──▶ boot script ──▶ firmware's login, first read ──▶ kernel's logins ──▶ running
                 ▲  └── told to wait ◀─┘                                                        │ NOP-Ins answered,
                 └──────────────────────────── reset ─────────────────────────────── lost ──────┤ tags written
                                                                     logs in again and again ◀──┘

``PowerSupply`` is the supervisor that owns them: JSON lines over a Unix socket, as the control process expects.
"""

import http.client
import json
import queue
import re
import select
import socket
import socketserver
import threading
import time

from panloom.decide.cloud_init import KEYS_OCTETS
from panloom.decide.personality import BEACON_PORT, SIZE_OCTETS
from panloom.decide.records import initiator_of
from panloom.wire import dhcp
from panloom.wire.beacon import Beacon, digest_of
from panloom.wire.iscsi import DataIn, NopIn
from support.dhcp_client import IPXE, DhcpClient
from support.dhcp_wire import DhcpWire
from support.initiator import FIRMWARE_ISID, FIRMWARE_KEYS, Initiator, connect

PATIENCE_SECONDS = 0.2
TAG_LBA, TAG_BLOCKS = 64, 64
UNBOOTABLE = b"no system"
"""A disk that begins so boots no machine."""


class PoweredOffError(Exception):
    """The machine's power went while it did something."""


class PlayedMachine:
    """One machine; ``inside`` is its namespace.  Set its faults before or while it runs.

    ``is_broken``: its firmware does nothing.  ``is_silent``: it hangs, until that is False.
    ``finds_no_disk``: its firmware begins again and again.
    ``beacons``: it sends them.  ``writes``: it tags its disk without pause.
    """

    def __init__(self, name, inside, mac, address, changed):
        self.name, self.inside, self.mac, self.address = name, inside, mac, address
        self.is_broken = self.is_silent = self.finds_no_disk = self.beacons = self.writes = False
        self.switch_is_broken = False
        self.stage = "off"
        self.personality = {}
        self.ssh_keys = []
        self.script = self.url = ""
        self.refusals = []
        """Status of every login that was refused."""
        self.boots = 0
        self.tag_lba = TAG_LBA
        self.tagged = []
        """The counter of every write that it began, in order."""
        self.fault = None
        self._changed = changed
        self._power = threading.Lock()
        self._off = threading.Event()
        self._thread = None

    # ── power ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_on(self):
        return self._thread is not None

    def act(self, action):
        """Do what a supervisor is asked; the answer's ``ok`` or ``error``."""
        if self.switch_is_broken and action in ("off", "reset"):
            return {"error": f"the power switch of {self.name} is broken"}
        with self._power:
            if action in ("off", "reset"):
                self._end()
            if action in ("on", "reset") and not self.is_on:
                self._begin()
        return {"ok": {"power": "on" if self.is_on else "off"}}

    def kill(self):
        """Take its power away behind everybody's back."""
        with self._power:
            self._end()

    def _begin(self):
        self._off.clear()
        self._thread = threading.Thread(target=self._live, name=f"machine {self.name}")
        self._thread.start()
        self.boots += 1
        self._changed(self.name, True)

    def _end(self):
        if self._thread is not None:
            self._off.set()
            self._thread.join()
            self._thread = None
            self.stage = "off"
            self._changed(self.name, False)

    def _check_power(self):
        if self._off.is_set():
            raise PoweredOffError

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _live(self):
        try:
            self.stage = "firmware"
            while self.is_broken:
                self._pause()
            with DhcpWire(self.inside) as wire:
                login = self._ask_until_told(wire, self.client())
            self.stage = "kernel"
            while True:
                try:
                    self._run(*login)
                except (ConnectionError, TimeoutError, EOFError):
                    self.stage = "lost"
                self._pause()
        except PoweredOffError:
            pass
        except Exception as error:  # noqa: BLE001 - a thread's top guard: the test that owns the machine looks at it
            self.fault = error

    def _pause(self):
        self._off.wait(PATIENCE_SECONDS)
        self._check_power()

    def _ask_until_told(self, wire, client):
        """Go through DHCP and boot scripts until one says which disk; return target, portal, user and secret."""
        while True:
            self._check_power()
            try:
                self.url = self._bind(wire, client).file.decode()
                self.script = self.fetch(self.url)
            except (OSError, http.client.HTTPException):
                self._pause()
                continue
            said = dict(re.findall(r"set (\S+) (\S+)", self.script))
            disk = re.search(r"sanboot iscsi:([0-9.]+):6:(\d+):0:(\S+)", self.script)
            if disk is not None and "username" in said:
                assert said["initiator-iqn"] == str(initiator_of(self.name))
                login = (disk[3], f"{disk[1]}:{disk[2]}", said["username"], said["password"])
                if self._firmware_reads(*login):
                    return login
            self.stage = "waiting"
            self._pause()
            self._pause()

    def _bind(self, wire, client):
        """Carry DHCP to its end, as iPXE does."""
        client.offer = client.ack = None
        while client.ack is None:
            asked = dhcp.decode(client.asks())
            before = len(wire.answers_to(asked))
            try:
                wire.send(dhcp.encode(asked), asked.chaddr)
            except OSError:  # the far end of the cable is down
                self._pause()
                continue
            end = time.monotonic() + 1.0
            while not (answers := wire.answers_to(asked)[before:]) and time.monotonic() < end:
                self._off.wait(0.01)
                self._check_power()
            for answer in answers:
                client.receive(dhcp.encode(answer))
        assert str(client.ack.yiaddr) == self.address
        return client.ack

    def client(self):
        """Return its firmware's DHCP client."""
        return DhcpClient(self.mac, IPXE)

    def fetch(self, url):
        """Return what a URL of the boot services gives, empty if that is an error."""
        host, port, path = re.fullmatch(r"http://([0-9.]+):(\d+)(/.*)", url).groups()
        connection = http.client.HTTPConnection(host, int(port))
        connection.sock = self._connect(f"{host}:{port}")
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        return text if answer.status == 200 else ""

    def _connect(self, portal):
        return self.inside.socket(lambda: connect(portal))

    def log_in(self, target, portal, user, secret, **how):
        """Return a session with the target, None when it is refused."""
        names = {"InitiatorName": str(initiator_of(self.name)), "TargetName": target, "SessionType": "Normal"}
        session = Initiator(self._connect(portal), names)
        status = session.log_in_with(user, secret, **how)
        if status == (0, 0):
            session.ready()
            return session
        self.refusals.append(status)
        session.sock.close()
        return None

    def _firmware_reads(self, target, portal, user, secret):
        if self.finds_no_disk:
            return False
        try:
            session = self.log_in(target, portal, user, secret, isid=FIRMWARE_ISID, keys=FIRMWARE_KEYS)
            if session is not None:
                with session:
                    found = session.read(0, 1)
                    return isinstance(found, DataIn) and not bytes(found.data).startswith(UNBOOTABLE)
        except (OSError, AttributeError):  # closed half-way
            pass
        return False

    def _run(self, target, portal, user, secret):
        """Be the kernel and all above it, until the disk is lost."""
        identity = self.log_in(f"{target}.personality", portal, user, secret)
        if identity is None:
            return
        with identity:
            text = bytes(identity.read(0, SIZE_OCTETS // 512).data).decode()
            self.personality = dict(re.findall(r"(\w+)='([^']*)'", text))
            self.ssh_keys = bytes(identity.read(SIZE_OCTETS // 512, KEYS_OCTETS // 512).data).decode().split("\n")
            disk = self.log_in(target, portal, user, secret)
            if disk is None:
                return
            with disk, self.inside.socket(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as ear:
                self.stage = "running"
                self._serve(identity, disk, ear)

    def _serve(self, identity, disk, ear):
        sessions = {identity.sock: identity, disk.sock: disk}
        counter, unanswered = 0, 0
        while True:
            self._check_power()
            if self.is_silent:
                self._off.wait(0.05)
                continue
            readable, _, _ = select.select(sessions, [], [], 0.05)
            for sock in readable:
                pdu = sessions[sock].receive()
                if pdu is None:
                    raise EOFError
                if isinstance(pdu, NopIn):
                    sessions[sock].answer(pdu)
                elif sock is disk.sock:
                    unanswered -= 1
            counter += 1
            if self.beacons:
                ear.sendto(self.beacon(counter), (self.personality["BEACON_ADDRESS"], BEACON_PORT))
            if self.writes and not unanswered:
                self._tag(disk, counter)
                unanswered += 1

    def beacon(self, counter):
        """Return a beacon under the personality that it has."""
        server, epoch = self.server, self.epoch
        digest = digest_of(self.personality["BEACON_KEY"], server, epoch, counter)
        return b"<13>Nov 21 11:00:00 panloom: " + Beacon(server, epoch, counter, digest).encode()

    def _tag(self, disk, counter):
        tag = f"{self.server}:{self.epoch}:{counter}".encode().ljust(512, b"\0")
        self.tagged.append(counter)
        disk.send_write(self.tag_lba + counter % TAG_BLOCKS, tag)

    @property
    def server(self):
        return f"{self.personality['PAN']}/{self.personality['SERVER']}"

    @property
    def epoch(self):
        return int(self.personality["EPOCH"])

    def runs(self, server, epoch=None):
        """Whether its userland is up as that server."""
        return self.stage == "running" and self.server == server and epoch in (None, self.epoch)


class PowerSupply:
    """Serves the machines' power on a Unix socket; ``calls`` are all requests but ``status``, in order."""

    def __init__(self, path):
        self.path = path
        self.machines = {}
        self.calls = []
        self._watchers = set()
        supply = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                supply._converse(self)

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(str(path), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="power supply")
        self._thread.start()

    def plug_in(self, name, inside, mac, address):
        machine = self.machines[name] = PlayedMachine(name, inside, mac, address, self._tell)
        return machine

    def close(self):
        for machine in self.machines.values():
            machine.kill()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for watcher in list(self._watchers):
            watcher.put(None)
        faults = [machine.fault for machine in self.machines.values() if machine.fault is not None]
        if faults:
            raise faults[0]

    def _tell(self, name, on):
        event = {"event": "power", "node": name, "power": "on" if on else "off", "at": time.monotonic()}
        for watcher in list(self._watchers):
            watcher.put(event)

    def _converse(self, handler):
        for line in handler.rfile:
            request = json.loads(line)
            if request["call"] == "watch":
                self._feed(handler)
                return
            if request["call"] != "power":
                handler.wfile.write(json.dumps({"id": request["id"], "error": "no such call"}).encode() + b"\n")
                continue
            if request["action"] != "status":
                self.calls.append((request["node"], request["action"]))
            answer = self.machines[request["node"]].act(request["action"])
            handler.wfile.write(json.dumps({"id": request["id"], **answer}).encode() + b"\n")

    def _feed(self, handler):
        events = queue.Queue()
        self._watchers.add(events)
        try:
            handler.wfile.write(b'{"id":1,"ok":{}}\n')
            while (event := events.get()) is not None:
                handler.wfile.write(json.dumps(event).encode() + b"\n")
        except OSError:
            pass
        finally:
            self._watchers.discard(events)
