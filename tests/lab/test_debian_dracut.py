"""The Debian of ``image build`` with an initramfs of dracut's, systemd in it, in the place of initramfs-tools'."""

import pytest

from support.debian_image import BOOT_SECONDS, debian_image, debian_lab, declare_server

pytestmark = [pytest.mark.machine, pytest.mark.long, pytest.mark.timeout(3000)]
MAKE = (
    'dracut --quiet --no-hostonly --no-early-microcode /boot/initrd.dracut "$(ls /lib/modules)"',
    "ln -sf boot/initrd.dracut /initrd.img",  # where GRUB looks
)


def test_cap_015_dracuts_initramfs_shares_the_card_before_the_system_has_its_own(tmp_path):
    image = debian_image(packages=["dracut-core"], run=MAKE)
    with debian_lab(tmp_path, image) as lab:
        declare_server(lab)
        lab.until_up("shop/web1", seconds=BOOT_SECONDS)
        facts = lab.until_answers("shop/web1", seconds=BOOT_SECONDS)
        assert any("dracut-initqueue" in line for line in lab.console("n1"))
    assert facts["initramfs"] == "/boot/initrd.dracut"
    assert facts["shared"] == "card eth0; storage eth0; nic eth0"
    assert facts["cards"] == "eth0 lo"
    assert (facts["address"], facts["hostname"]) == ("10.1.0.11/24", "web1")
    assert facts["units"].split() == ["active", "active", "active"]
