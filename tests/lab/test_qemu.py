"""The hardware of a machine: a NIC and nothing to boot from but its cable."""

import msgspec
import pytest

from panloom.lab.qemu import Machine, command_line, kvm_is_usable

N1 = Machine(name="n1", mac="52-54-00-77-00-01", tap="n1", memory_octets=128 << 20)


@pytest.mark.parametrize("kvm", [False, True])
def test_machine_has_no_disk(kvm):
    words = command_line(N1, kvm=kvm)
    assert not {"-drive", "-hda", "-cdrom", "-blockdev", "-kernel", "-boot", "-fw_cfg", "-smbios"} & set(words)
    assert "virtio-net-pci,netdev=cable,mac=52:54:00:77:00:01,bootindex=1" in words
    assert words[words.index("-m") + 1] == "128M"
    assert ("kvm" in words) == kvm


def test_firmware_is_the_machines_own():
    kinds = (("bios", False, True), ("uefi", True, True), ("uefi-pxe", True, False), ("uefi-http", True, False))
    for firmware, ovmf, rom in kinds:
        words = command_line(msgspec.structs.replace(N1, firmware=firmware), kvm=False)
        card = next(word for word in words if word.startswith("virtio-net-pci"))
        assert ("-bios" in words) == ovmf
        assert ("romfile=" not in card.split(",")) == rom
        assert not ovmf or words[words.index("-bios") + 1].endswith("OVMF.fd")
        assert any("PXESupport,string=no" in word for word in words) == (firmware == "uefi-http")


def test_accelerator_is_chosen_by_hand(monkeypatch):
    for chosen, usable in (("kvm", True), ("tcg", False)):
        monkeypatch.setenv("PANLOOM_ACCELERATOR", chosen)
        kvm_is_usable.cache_clear()
        assert kvm_is_usable() is usable
    kvm_is_usable.cache_clear()
