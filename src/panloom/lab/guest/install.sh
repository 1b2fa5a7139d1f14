#!/bin/busybox sh
# /sbin/install in the initramfs: an installer that nobody attends.  $1 where the system's disk image is, $2 an empty disk.
#
#   from    the system's own NIC with its virtual MAC and address, in a network namespace of its own
#   to      the disk, by the session of the card's own MAC, as every write
#
# The first MiB goes last: a disk without one is empty, so an installer that was cut off begins anew.
. /run/personality
first=1048576

fail() {
    echo "PANLOOM failed=\"install: $1\""
    sleep 5
    reboot -f
}

rest=$(dd "if=$2" bs=$first count=1 2> /dev/null | tr -d '\000' | wc -c)
[ "$rest" = 0 ] || fail "$2 is not empty; empty it, or boot from it"
echo "PANLOOM stage=install"
mkfifo /run/fetch.unshared /run/fetch.wired /run/fetched
unshare -n /bin/sh -c '
    echo > /run/fetch.unshared
    read -r _ < /run/fetch.wired
    ip addr add "$1" dev eth0
    ip link set eth0 up
    [ "$2" ] && ip route add default via "$2"
    wget -q -O - "$3" > /run/fetched && echo > /run/fetch.done' \
    fetch "$NIC0_ADDRESS/$NIC0_PREFIX" "$NIC0_ROUTER" "$1" &
fetch=$!
read -r _ < /run/fetch.unshared
shared-nic plug eth0 "$NIC0_MAC" $fetch || fail "no NIC"
echo > /run/fetch.wired
{
    dd of=/run/first bs=$first count=1 iflag=fullblock 2> /dev/null &&
        dd "of=$2" bs=$first seek=1 iflag=fullblock conv=notrunc,fsync 2> /dev/null || fail "the disk cannot be written"
} < /run/fetched
wait $fetch
[ -e /run/fetch.done ] || fail "$1 cannot be fetched"
dd if=/run/first "of=$2" bs=$first conv=notrunc,fsync 2> /dev/null || fail "the disk cannot be written"
echo "PANLOOM stage=installed"
sync
reboot -f
