#!/bin/bash
# The disk over iSCSI, and a card of its own for the system, in an initramfs that dracut makes (dracut.modules(7)).
#
#   initqueue/settled   connect.sh   drivers are loaded: log in, so that the root file system turns up
#   pre-pivot           become.sh    the system becomes the server's own
#   switch-root         /usr/lib/panloom/init is process 1, with systemd in the initramfs and without

check() {
    require_binaries iscsistart ip || return 1
    [[ -x $dracutsysrootdir/usr/lib/panloom/connect ]]
}

depends() {
    echo base rootfs-block
}

installkernel() {
    # The card is that of whatever machine boots the image, not of the one that made it.
    hostonly='' instmods iscsi_ibft iscsi_tcp sd_mod crc32c macvlan virtio_pci =drivers/net
}

install() {
    inst_multiple iscsistart ip mount modprobe dd chmod mkdir rm mv sleep sha256sum sync reboot
    inst_multiple /usr/lib/panloom/connect /usr/lib/panloom/become /usr/lib/panloom/identity /usr/lib/panloom/shared-nic
    inst_hook initqueue/settled 50 "$moddir/connect.sh"
    inst_hook pre-pivot 50 "$moddir/become.sh"
    mkdir -p "$initdir/etc/cmdline.d"
    echo init=/usr/lib/panloom/init > "$initdir/etc/cmdline.d/95panloom.conf"
    if dracut_module_included systemd; then
        inst_simple "$moddir/switch-root.conf" /usr/lib/systemd/system/initrd-switch-root.service.d/panloom.conf
    fi
}
