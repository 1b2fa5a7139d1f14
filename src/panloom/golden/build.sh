#!/bin/bash
# Make a tree of Debian below ./root: run by golden/debian.py in mount and PID namespaces of its own, as root.
#
#   SUITE MIRROR          what, and where from              sources.list   of the system
#   packages              one a line                        run.sh         the recipe's own lines
#   system/ files/        trees that are copied into it     archives/      packages that were downloaded before, or nothing
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C
# By way of the root all that is mounted goes with this namespace.
inside() { chroot root /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C \
    DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true ${http_proxy:+http_proxy="$http_proxy"} "$@"; }
unsynced=(-o Dpkg::Options::=--force-unsafe-io) # what a power cut leaves of this tree is never used

debootstrap --variant=minbase --cache-dir="$PWD/archives" "$SUITE" root "$MIRROR"
cp sources.list root/etc/apt/sources.list
printf '#!/bin/sh\nexit 101\n' > root/usr/sbin/policy-rc.d # no service starts here
chmod 755 root/usr/sbin/policy-rc.d
cp --dereference /etc/resolv.conf root/etc/resolv.conf
mount -t proc proc root/proc
mount -t sysfs -o ro sys root/sys
mount --bind archives root/var/cache/apt/archives
inside apt-get -q update
inside apt-get "${unsynced[@]}" -qy dist-upgrade
cp -a system/. root/
chmod 755 root/etc/initramfs-tools/hooks/panloom root/etc/initramfs-tools/scripts/*/panloom root/usr/lib/panloom/*
mapfile -t packages < packages
inside apt-get "${unsynced[@]}" -qy --no-install-recommends install "${packages[@]}"
cp -a files/. root/
inside sh -e < run.sh
inside systemctl -q enable panloom-personality.service panloom-agent.service panloom-host-keys.service \
    panloom-failed-units.timer systemd-networkd.service iscsid.service
inside systemctl -q disable open-iscsi.service # the initramfs has logged in
inside systemctl -q mask e2scrub_reap.service
inside update-initramfs -u -k all

# Two boot loaders of one kind.  The one for BIOS stands in a partition without a file system, both read one file.
mkdir -p root/boot/grub
echo "search.fs_uuid $ROOT_UUID root" > root/boot/grub/early.cfg
echo 'set prefix=($root)/boot/grub' >> root/boot/grub/early.cfg
inside grub-mkimage -O i386-pc -p /boot/grub -c /boot/grub/early.cfg -o /boot/grub/core.img \
    biosdisk part_gpt ext2 search search_fs_uuid normal configfile linux echo serial terminal test gzio sleep reboot
cp -a root/usr/lib/grub/i386-pc root/usr/lib/grub/x86_64-efi root/boot/grub/
mkdir -p efi/EFI/BOOT efi/EFI/debian
cp root/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi efi/EFI/BOOT/BOOTX64.EFI
{ cat root/boot/grub/early.cfg; echo 'configfile $prefix/grub.cfg'; } > efi/EFI/debian/grub.cfg
cp grub.cfg root/boot/grub/grub.cfg

inside dpkg-query -W > versions
umount root/var/cache/apt/archives root/sys root/proc
rm -rf root/usr/sbin/policy-rc.d root/var/lib/apt/lists/* root/var/cache/apt/*.bin root/etc/resolv.conf root/var/log/*.log \
    root/var/cache/debconf/*-old root/var/lib/dpkg/*-old root/boot/grub/early.cfg root/etc/hostname root/etc/ssh/ssh_host_*
: > root/etc/machine-id
