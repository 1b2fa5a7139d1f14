#!/bin/bash
# Make a tree of Debian below ./root as its cloud images are, with nothing of Panloom's in it: run by support/cloud_image.py
# in mount and PID namespaces of its own, as root.
#
#   SUITE MIRROR ROOT_UUID   what, where from, and its file system        sources.list, archives/   as of golden/build.sh
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C
packages=(systemd-sysv udev kmod dbus iproute2 initramfs-tools busybox zstd e2fsprogs linux-image-cloud-amd64 grub-pc-bin
    grub-efi-amd64-bin grub2-common cloud-init cloud-guest-utils sudo openssh-server open-iscsi)
inside() { chroot root /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C \
    DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true ${http_proxy:+http_proxy="$http_proxy"} "$@"; }
unsynced=(-o Dpkg::Options::=--force-unsafe-io)

debootstrap --variant=minbase --cache-dir="$PWD/archives" "$SUITE" root "$MIRROR"
cp sources.list root/etc/apt/sources.list
printf '#!/bin/sh\nexit 101\n' > root/usr/sbin/policy-rc.d
chmod 755 root/usr/sbin/policy-rc.d
cp --dereference /etc/resolv.conf root/etc/resolv.conf
mount -t proc proc root/proc
mount -t sysfs -o ro sys root/sys
mount --bind archives root/var/cache/apt/archives
inside apt-get -q update
echo "UUID=$ROOT_UUID / ext4 errors=remount-ro 0 1" > root/etc/fstab
inside apt-get "${unsynced[@]}" -qy --no-install-recommends install "${packages[@]}"

# What its user adds, so that it boots from iSCSI: the one setting of open-iscsi's own part of the initramfs; and a file
# before cloud-init's own, 10-cloud-init-*.network, lest networkd take the card's address away, and with it the disk.
echo ISCSI_AUTO=true > root/etc/iscsi/iscsi.initramfs
printf '[Match]\nName=en* eth*\n\n[Network]\nKeepConfiguration=yes\n' > root/etc/systemd/network/05-disk.network
inside update-initramfs -u -k all
inside systemctl -q enable systemd-networkd.service

mkdir -p root/boot/grub efi/EFI/BOOT efi/EFI/debian
echo "search.fs_uuid $ROOT_UUID root" > early.cfg
echo 'set prefix=($root)/boot/grub' >> early.cfg
cp early.cfg root/boot/grub/
inside grub-mkimage -O i386-pc -p /boot/grub -c /boot/grub/early.cfg -o /boot/grub/core.img \
    biosdisk part_gpt ext2 search search_fs_uuid normal configfile linux echo serial terminal test gzio sleep reboot
cp -a root/usr/lib/grub/i386-pc root/usr/lib/grub/x86_64-efi root/boot/grub/
cp root/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi efi/EFI/BOOT/BOOTX64.EFI
{ cat early.cfg; echo 'configfile $prefix/grub.cfg'; } > efi/EFI/debian/grub.cfg
cat > root/boot/grub/grub.cfg << END
set timeout=0
menuentry 'Debian' {
    search --no-floppy --fs-uuid --set=root $ROOT_UUID
    linux /vmlinuz root=UUID=$ROOT_UUID ro console=tty0 console=ttyS0,115200 consoleblank=0
    initrd /initrd.img
}
END

inside dpkg-query -W > versions
umount root/var/cache/apt/archives root/sys root/proc
rm -rf root/usr/sbin/policy-rc.d root/var/lib/apt/lists/* root/var/cache/apt/*.bin root/etc/resolv.conf \
    root/var/log/*.log root/boot/grub/early.cfg root/etc/hostname root/etc/ssh/ssh_host_*
: > root/etc/machine-id
