"""The sequence of virtual MACs: durable before use, so that no crash and no rival repeats an address."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from panloom.control.mac_counter import PREFIX, MacCounter
from panloom.decide.mac_address import LAST_COUNTER, VirtualMac
from panloom.state.sqlite import SqliteStore
from panloom.values import MacAddress
from support.dict_store import DictStore

ALLOCATOR = Path(__file__).with_name("mac_allocator.py")
SERIAL = 0x504C


def run(main):
    return asyncio.run(asyncio.wait_for(main, 30))


def test_cap_105_the_address_decodes_to_local_bit_serial_and_count():
    async def main():
        counter = MacCounter(DictStore())
        macs = [await counter.allocate(SERIAL) for _ in range(3)]
        assert all(mac.is_local and not mac.is_multicast for mac in macs)
        assert [VirtualMac.from_mac(mac) for mac in macs] == [VirtualMac(SERIAL, n) for n in (1, 2, 3)]

    run(main())


@pytest.mark.parametrize("before_kill", [1, 2, 25, 100])
def test_cap_105_a_counter_killed_between_store_and_use_never_repeats(tmp_path, before_kill):
    given = []
    for _ in range(3):
        process = subprocess.Popen([sys.executable, ALLOCATOR, tmp_path / "state.sqlite"], stdout=subprocess.PIPE)
        given += [process.stdout.readline() for _ in range(before_kill)]
        process.send_signal(signal.SIGKILL)
        given += [line for line in process.stdout if line.endswith(b"\n")]
        process.wait()
        process.stdout.close()
    macs = [MacAddress.parse(line.decode().strip()) for line in given]
    assert len(set(macs)) == len(macs) >= 3 * before_kill

    async def main():
        store = await SqliteStore.open(tmp_path / "state.sqlite")
        mac = await MacCounter(store).allocate(SERIAL)
        await store.close()
        assert mac > max(macs)

    run(main())


@pytest.mark.parametrize(("moment", "next_count"), [("--die-before-commit", 3), ("--die-before-use", 4)])
def test_cap_105_a_count_made_durable_but_never_used_is_a_gap(tmp_path, moment, next_count):
    command = [sys.executable, ALLOCATOR, tmp_path / "state.sqlite", moment, "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == [str(VirtualMac(SERIAL, n).to_mac()) for n in (1, 2)]

    async def main():
        store = await SqliteStore.open(tmp_path / "state.sqlite")
        mac = await MacCounter(store).allocate(SERIAL)
        await store.close()
        assert VirtualMac.from_mac(mac).counter == next_count

    run(main())


def test_cap_105_two_control_nodes_with_one_store_never_collide():
    async def main():
        store = DictStore()
        rivals = [MacCounter(store), MacCounter(store)]
        macs = await asyncio.gather(*(rivals[n % 2].allocate(SERIAL) for n in range(100)))
        assert len(set(macs)) == 100
        other = await asyncio.gather(*(rivals[n % 2].allocate(SERIAL + 1) for n in range(100)))
        assert not set(macs) & set(other)

    run(main())


def test_cap_105_two_control_nodes_with_stores_of_their_own_never_collide():
    async def main():
        nodes = [(MacCounter(DictStore()), serial) for serial in (1, 2)]
        macs = [await counter.allocate(serial) for counter, serial in nodes for _ in range(50)]
        assert len(set(macs)) == 100

    run(main())


def test_a_sequence_that_is_used_up_says_so_and_does_not_begin_again():
    async def main():
        store = DictStore()
        await store.commit(put={f"{PREFIX}{SERIAL}": str(LAST_COUNTER - 1).encode()})
        counter = MacCounter(store)
        assert VirtualMac.from_mac(await counter.allocate(SERIAL)).counter == LAST_COUNTER
        for _ in range(2):
            with pytest.raises(ValueError, match="new serial"):
                await counter.allocate(SERIAL)

    run(main())
