#!/bin/busybox sh
# /init of the initramfs: from the firmware's boot table (iBFT) to the system on the root disk.
#
#   kernel     modules are loaded
#   network    the storage NIC gets the address that firmware had, of IPv4 or IPv6, and stays in this namespace for ever;
#              panloom.nic=split on the command line parts it from the card (shared-nic.sh)
#   login      two targets: the root disk (by the iBFT) and NAME.personality, with the same portal and CHAP secret;
#              iscsid keeps both sessions from here on
#   install    with panloom.install=URL on the command line the disk is empty, and install.sh fills it
#   root       the root disk is mounted; the personality lies in /run; the disk's own /sbin/init takes over
#
# Forks are what costs under emulation, so loops are made of the shell's own words.

mark() {
    read -r up _ < /proc/uptime
    echo "PANLOOM stage=$1 t=$up"
}

fail() { # the control node sees the console; firmware may have better luck the next time
    echo "PANLOOM failed=\"$1\""
    sleep 5
    reboot -f
}

# $disk = name of the disk that target $1 shows.  Waits for it, since the scan runs apart from the login, and until it can
# be opened, since the kernel names a disk before that.
disk_of() {
    tries=0
    while [ $tries -lt 200 ]; do
        for session in /sys/class/iscsi_session/session*; do
            read -r name < "$session/targetname"
            [ "$name" = "$1" ] || continue
            for block in "$session"/device/target*/*/block/*; do
                disk=${block##*/}
                [ -b "/dev/$disk$2" ] && { true < "/dev/$disk$2"; } 2> /dev/null && return
            done
        done
        usleep 50000
        tries=$((tries + 1))
    done
    fail "target $1 shows no disk"
}

/bin/busybox mkdir -p /proc /sys /dev /run /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs -o mode=755 run /run
/bin/busybox --install -s /bin
export PATH=/bin:/sbin
for module in /modules/*; do insmod "$module" || fail "module $module"; done
mark kernel

ibft=/sys/firmware/ibft
[ -d $ibft/target0 ] || fail "no iBFT: this machine was not booted from iSCSI"
read -r initiator < $ibft/initiator/initiator-name
read -r target < $ibft/target0/target-name
read -r portal < $ibft/target0/ip-addr
read -r port < $ibft/target0/port
[ -e $ibft/target0/chap-name ] && read -r user < $ibft/target0/chap-name
[ -e $ibft/target0/chap-secret ] && read -r secret < $ibft/target0/chap-secret
read -r mac < $ibft/ethernet0/mac
ipv6=''
[ -e $ibft/ethernet0/hostname ] && read -r ipv6 < $ibft/ethernet0/hostname
case $ipv6 in
    *:*/*,*:*) # ADDRESS/PREFIX,PORTAL: iPXE of 2019 has no other room for IPv6, and of the portal the first four octets
        address=${ipv6%,*}
        portal=${ipv6#*,}
        ;;
    *)
        ipv6=''
        read -r address < $ibft/ethernet0/ip-addr
        read -r mask < $ibft/ethernet0/subnet-mask
        ;;
esac
for device in /sys/class/net/*; do
    read -r found < "$device/address"
    [ "$found" = "$mac" ] && nic=${device##*/}
done
[ "$nic" ] || fail "no NIC has the iBFT's address $mac"
read -r line < /proc/cmdline
case " $line " in *" panloom.nic=split "*) layout=split ;; *) layout=merged ;; esac
shared-nic storage "$nic" $layout > /run/storage_nic || fail "the card $nic cannot be shared"
read -r nic < /run/storage_nic
if [ "$ipv6" ]; then
    echo 0 > "/proc/sys/net/ipv6/conf/$nic/accept_dad" # firmware has had this address until now
    ip link set "$nic" up && ip address add "$address" dev "$nic" || fail "$nic refuses $address"
else
    ifconfig "$nic" "$address" netmask "$mask" up || fail "$nic refuses $address"
fi
mark network

# iscsistart takes a second to find its own other half, so both logins run at once; one that fails is tried again alone.
login() { # $1 target, $2 where it says what it does
    iscsistart -i "$initiator" -t "$1" -g 1 -a "$portal" -p "$port" ${user:+-u "$user" -w "$secret"} > "$2" 2>&1
}
login_to_root() {
    if [ "$ipv6" ]; then login "$target" /run/login.root; else iscsistart -b > /run/login.root 2>&1; fi
}
login_to_personality() { login "$target.personality" /run/login.personality; }
login_to_personality &
other=$!
login_to_root || { cat /run/login.root; sleep 1; login_to_root; } || fail "login to $target"
wait $other || { cat /run/login.personality; sleep 1; login_to_personality; } || fail "login to $target.personality"
mark login

# iscsid adopts the sessions and restores them after the target was away.  It runs from the initramfs's memory, never
# from the disk that it restores; so the initramfs is not emptied but stays beneath the root disk.
echo "InitiatorName=$initiator" > /etc/iscsi/initiatorname.iscsi
mkdir -p /run/lock/iscsi
iscsid -f > /run/iscsid.log 2>&1 &
for session in /sys/class/iscsi_session/session*; do echo 120 > "$session/recovery_tmo"; done

disk_of "$target.personality" ""
dd "if=/dev/$disk" of=/run/personality bs=4096 count=1 2> /dev/null || fail "the personality cannot be read"
for word in $line; do
    case $word in panloom.install=*) disk_of "$target" "" && exec /sbin/install "${word#*=}" "/dev/$disk" ;; esac
done
disk_of "$target" 2
mount -t ext4 -o noatime,noinit_itable "/dev/${disk}2" /root || fail "the root disk cannot be mounted"
echo "storage_nic=$nic root_disk=/dev/$disk" > /run/boot
mark root

for directory in dev proc sys run; do mount -o rbind /$directory /root/$directory; done
cd /root || fail "the root disk cannot be entered"
mount -o move . /
exec chroot . /sbin/init < /dev/console > /dev/console 2>&1
