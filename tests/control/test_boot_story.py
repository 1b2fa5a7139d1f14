"""What is told of a node's boot: stages, services, events and console in one."""

import asyncio
import time

import pytest

from panloom.control.boot_story import BootStory
from panloom.control.boots import Boots
from panloom.control.console_log import ConsoleLog
from panloom.control.consoles import Consoles
from panloom.control.edge import Edge
from panloom.control.events import EventLog
from panloom.control.observer import Observer
from panloom.decide.boot_answer import BootEvent
from panloom.decide.records import NodeRecord
from panloom.values import MacAddress
from support.dict_store import DictStore
from support.waiting_async import eventually
from support.world import node, put

CARRIES = NodeRecord(server="shop/web1")


class Told:
    """The parts that a boot is told from, and a console that has written things down."""

    def __init__(self, directory):
        self.store = DictStore()
        self.events = EventLog(DictStore())
        self.observer = Observer(None, Boots(DictStore()), self.events)
        self.consoles = Consoles(self.store, directory / "console", self.observer.heard)
        self.edge = Edge(self.store, self.events, files=None, boot_event=print, beacon=print)
        self.story = BootStory(self.observer, self.events, self.consoles, self.edge)
        self.directory = directory

    def reached(self, *stages, ago=10.0):
        began = time.monotonic() - ago
        for number, stage in enumerate(stages):
            self.observer.stage("n1", stage, began + number, server="shop/web1", epoch=1)

    def boot(self, record=CARRIES):
        return self.story.tell("n1", record)

    async def said(self, octets, *, ago=5.0):
        (self.directory / "console").mkdir()
        with ConsoleLog(self.consoles.log("n1")) as log:
            log.write(octets, time.time() - ago)
        await put(self.store, node(1, self.directory / "none.sock"))
        task = asyncio.create_task(self.consoles.run())
        await eventually(lambda: self.consoles.said("n1"), "the console is known")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def told(tmp_path):
    return Told(tmp_path)


def test_nothing_was_seen(told):
    assert told.boot() is None


def test_a_boot_under_way_waits_for_its_next_stage(told):
    told.reached("power", "dhcp", ago=3.0)
    boot = told.boot()
    assert [stage for stage, _ in boot["stages"]] == ["power", "dhcp"]
    assert (boot["state"], boot["waits_for"], boot["likely"], boot["server"]) == (
        "booting",
        "script",
        None,
        "shop/web1",
    )
    assert 3.0 <= boot["seconds"] < 60.0


def test_what_the_console_said_last_shows_what_is_wrong(told):
    told.reached("power", "dhcp", "script")
    asyncio.run(
        told.said(b"Could not open SAN device: Connection reset (http://ipxe.org/0f0a6039)\r\nasking again\r\n")
    )
    boot = told.boot()
    assert (boot["state"], boot["likely"]) == ("stopped", "nobody answers at the storage portal")
    assert boot["seen"]["source"] == "console"
    assert boot["seen"]["text"].startswith("Could not open SAN device")
    assert 4.0 < boot["seen"]["seconds"] < 7.0
    told.observer.stage("n1", "login", time.monotonic())
    assert (told.boot()["state"], told.boot()["seen"]["text"]) == ("booting", "asking again")


def test_a_refusal_of_ours_shows(told):
    told.reached("power", "dhcp", "script")
    told.events.report("login refused", "the CHAP response is wrong", node="n2")
    assert told.boot()["state"] == "booting"
    told.events.report("login refused", "the CHAP response is wrong", node="n1")
    boot = told.boot()
    assert boot["seen"]["text"] == "login refused: the CHAP response is wrong"
    assert "panloom node power reset n1" in boot["mend"]


def test_what_is_wrong_with_ourselves_shows(told):
    told.reached("power")
    told.edge.trouble = "port 8080 of 10.77.0.1 on lab0: Address already in use"
    assert "Address already in use" in told.boot()["seen"]["text"]
    told.observer._lose_storage("it is gone")
    told.reached("power", "dhcp", "script")
    assert "storage process" in told.boot()["likely"]


def test_firmware_that_needs_a_file_that_we_lack(told):
    told.reached("power")
    why = "snponly.efi is not among the files"
    told.observer.boot_event(BootEvent("dhcp", time.monotonic(), MacAddress(1), node="n1", why=why))
    assert why in told.boot()["likely"]


def test_a_machine_without_a_console_is_told_of_by_the_files_that_it_asked_for(told):
    told.reached("power", "dhcp")
    now = time.monotonic()
    told.observer.boot_event(BootEvent("file", now, MacAddress(1), node="n1", why="undionly.kpxe"))
    boot = told.boot()
    assert (boot["state"], boot["seen"]["text"]) == ("booting", "file: undionly.kpxe")
    told.observer.boot_event(BootEvent("no file", now, MacAddress(1), node="n1", why="boot/grub.cfg"))
    assert told.boot()["likely"] == "it asked for a file that is not there: boot/grub.cfg"


def test_a_machine_that_nobody_named_and_that_needs_a_file_that_we_lack_is_told_of(told):
    why = "snponly-arm64.efi is not among the files"
    told.observer.boot_event(BootEvent("discovered", time.monotonic(), MacAddress(1), why=why))
    assert why in [event.text for event in asyncio.run(told.events.after(0))]


def test_the_console_tells_of_kernel_and_userland(told):
    told.reached("power", "dhcp", "script", "login", "first read")
    for line in ("Linux version 6.1", "Linux version 6.1", "web1 login:"):
        told.observer.heard("n1", line, time.monotonic())
    boot = told.boot()
    assert [stage for stage, _ in boot["stages"]][-2:] == ["kernel", "userland"]
    assert (boot["state"], boot["seen"], boot["waits_for"]) == ("up", None, None)
    told.observer.power["n1"] = False
    assert told.boot()["state"] == "off"


def test_a_machine_in_quarantine_is_told_of_though_it_is_off_and_carries_nothing(told):
    told.reached("power", "dhcp")
    told.observer.power["n1"] = False
    assert told.boot(NodeRecord())["state"] == "off"
    assert told.boot(NodeRecord(quarantined="it did not boot"))["state"] == "stopped"
