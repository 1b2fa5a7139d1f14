"""Kernel, Python and clock."""

import ctypes
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from panloom.doctor.check import Check, Purpose, State
from panloom.fabric import capabilities
from panloom.lab.qemu import kvm_is_usable
from panloom.storage import hot

_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
_NAMESPACES: Final = ("pid", "mnt", "net")
_OLDEST_PYTHON: Final = (3, 11)
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronised
_MADE: Final = 1735689600.0  # 2025-01-01: no clock that is right shows less
_BUILDS: Final = {"python": "pure Python", "compiled": "compiled"}
_NEEDED_BY: Final = {
    "/dev/net/tun": Purpose.DEMO,
    "network namespaces": Purpose.DEMO,
    "bridges and taps": Purpose.DEMO,
    "nftables of the bridge family": Purpose.CONTROL_NODE,
}


def checks() -> tuple[Check, ...]:
    """Look at all of it; takes some hundred milliseconds, and longer where KVM has to be tried."""
    return (_system(), _python(), _block_path(), _clock(), *_fabric(), _namespaces(), _macvlan(), _kvm())


def _system() -> Check:
    system, machine = platform.system(), platform.machine()
    fits = (system, machine) == ("Linux", "x86_64")
    state = State.OK if fits else State.MISSING
    return Check(Purpose.CONTROL_NODE, "system", state, f"{system} {platform.release()}, {machine}", "Linux on x86-64")


def _python() -> Check:
    version = platform.python_version()
    state = State.OK if sys.version_info >= _OLDEST_PYTHON else State.MISSING
    return Check(Purpose.CONTROL_NODE, "Python", state, version, "Python 3.11 or later")


def _block_path() -> Check:
    found = f"{_BUILDS[hot.build()]} build, {hot.__file__}"
    if hot.build() == "compiled":
        return Check(Purpose.CONTROL_NODE, "block path", State.OK, found)
    mend = "install a C compiler and Python's headers (gcc, python3-dev), then Panloom again: disks become quicker"
    return Check(Purpose.CONTROL_NODE, "block path", State.WITHOUT, found, mend)


def _clock() -> Check:
    if time.time() < _MADE:
        why = f"shows {time.strftime('%Y-%m-%d')}: the times of revisions and events will be wrong"
        return Check(Purpose.CONTROL_NODE, "clock", State.MISSING, why, "set it, or run an NTP client")
    libc = ctypes.CDLL(None, use_errno=True)
    # struct timex has 208 octets on x86-64; all zero asks and changes nothing.
    synchronised = libc.adjtimex(ctypes.create_string_buffer(256)) != _TIME_ERROR
    if synchronised:
        return Check(Purpose.CONTROL_NODE, "clock", State.OK, "synchronised")
    why = "not synchronised: only the times shown in history and events suffer"
    return Check(Purpose.CONTROL_NODE, "clock", State.WITHOUT, why, "run an NTP client")


def _fabric() -> tuple[Check, ...]:
    lacks = {lack.what: lack for lack in capabilities.probe()}
    blind = "network namespaces" in lacks and os.geteuid() != 0
    found = []
    for what, purpose in _NEEDED_BY.items():
        lack = lacks.get(what)
        if blind and (lack is None or what != "/dev/net/tun"):
            found.append(Check(purpose, what, State.UNKNOWN, "only root can try it"))
        elif lack is not None:
            found.append(Check(purpose, what, State.MISSING, lack.why, lack.remedy))
        elif "network namespaces" in lacks and what != "/dev/net/tun":
            found.append(Check(purpose, what, State.UNKNOWN, "tried in a network namespace, and there can be none"))
        else:
            found.append(Check(purpose, what, State.OK))
    return tuple(found)


def _namespaces() -> Check:
    missing = [name for name in _NAMESPACES if not Path(f"/proc/self/ns/{name}").exists()]
    if missing:
        return Check(Purpose.DEMO, "namespaces", State.MISSING, f"the kernel has none of: {', '.join(missing)}")
    return Check(Purpose.DEMO, "namespaces", State.OK, ", ".join(_NAMESPACES))


def _macvlan() -> Check:
    error = _in_a_network_namespace(_make_macvlan)
    if error is None:
        return Check(Purpose.DEMO, "macvlan", State.OK)
    if os.geteuid() != 0:
        return Check(Purpose.DEMO, "macvlan", State.UNKNOWN, "only root can try it")
    return Check(Purpose.DEMO, "macvlan", State.WITHOUT, f"{error.lower()}: no emulated nodes", "modprobe macvlan")


def _make_macvlan() -> None:
    with IPRoute() as route:
        route.link("add", ifname="doctor0", kind="bridge")  # needed anyhow; not every kernel has dummy links
        (index,) = route.link_lookup(ifname="doctor0")
        route.link("add", ifname="doctor1", kind="macvlan", link=index, macvlan_mode="bridge")


def _in_a_network_namespace(attempt: Callable[[], None]) -> str | None:
    """Try something in a namespace that ends with its thread; return why it fails, None if it does not."""
    failed: list[str] = []

    def run() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET):
            failed.append(os.strerror(ctypes.get_errno()))
            return
        try:
            attempt()
        except (OSError, NetlinkError) as error:
            failed.append(os.strerror(error.args[0]) if error.args and isinstance(error.args[0], int) else str(error))

    thread = threading.Thread(target=run, name="doctor")
    thread.start()
    thread.join()
    return failed[0] if failed else None


def _kvm() -> Check:
    try:
        usable = kvm_is_usable()
    except FileNotFoundError:  # no QEMU to try it with, which is said elsewhere
        return Check(Purpose.DEMO, "KVM", State.UNKNOWN, "QEMU tries it, and there is none")
    if usable:
        return Check(Purpose.DEMO, "KVM", State.OK, "/dev/kvm")
    return Check(Purpose.DEMO, "KVM", State.WITHOUT, "machines are emulated, and boot several times as slowly")
