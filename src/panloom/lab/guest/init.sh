#!/bin/busybox sh
# /sbin/init of the root disk, process 1: two identities on one NIC.
#
#   this network namespace     the storage NIC with its hardware MAC and storage address, iSCSI, iscsid, the beacon
#   the OS's namespace         a macvlan for each NIC of the personality, with its virtual MAC; all the OS sees
#
# So the OS can mishandle its network without losing its disk.

export PATH=/bin:/sbin
read -r up _ < /proc/uptime
echo "PANLOOM stage=userland t=$up"
. /run/boot
. /run/personality
hostname "$SERVER"

# The count of boots is on the disk before anybody can read it from the page.
boots=0
[ -e /boots ] && read -r boots < /boots
boots=$((boots + 1))
echo $boots > /boots.new
mv /boots.new /boots
sync

# The OS starts in its namespace and waits there for its NICs.
mkfifo /run/os.unshared /run/os.wired
BOOTS=$boots WRITER=$WRITER unshare -n /sbin/os &
os=$!
read -r _ < /run/os.unshared
index=0
while [ $index -lt "$NICS" ]; do
    eval "mac=\$NIC${index}_MAC"
    shared-nic plug "eth$index" "$mac" $os
    index=$((index + 1))
done
echo > /run/os.wired

# `poweroff` and `reboot` end what the system runs, leave a clean file system, and keep the disk to the end.
go_down() { # $1 poweroff or reboot
    trap '' USR1 USR2 TERM
    for process in /proc/[0-9]*; do
        number=${process#/proc/}
        [ "$number" != 1 ] && [ -e "$process/exe" ] && read -r name < "$process/comm" || continue
        [ "$name" = iscsid ] || kill -9 "$number"
    done
    sync
    tries=0
    until mount -o remount,ro / || [ $tries = 20 ]; do
        usleep 100000
        tries=$((tries + 1))
    done
    "$1" -f
}
trap 'go_down poweroff' USR1 USR2
trap 'go_down reboot' TERM

# For tests of fencing: a writer that never pauses, to a ring of 1024 sectors before the first partition.
write_tags() {
    count=0
    while :; do
        printf '%-511s\n' "$PAN/$SERVER:$EPOCH:$count" |
            dd "of=$root_disk" bs=512 seek=$((1024 + count % 1024)) conv=notrunc,fsync oflag=direct 2> /dev/null
        count=$((count + 1))
    done
}
if [ "$WRITER" = 1 ] || [ -e /panloom-writer ]; then write_tags & fi

# A login on the serial line, for whoever may use this machine's console.
while :; do
    setsid getty -L 115200 ttyS0 vt100 2> /dev/null
    sleep 1
done &

# Process 1 ends as the beacon; waiting for its commands, the shell also reaps what others leave.
[ "$BEACON_ADDRESS" ] && syslogd -R "$BEACON_ADDRESS:$BEACON_PORT"
count=1
while :; do
    if [ "$BEACON_ADDRESS" ]; then
        digest=$(printf %s "$BEACON_KEY:$PAN/$SERVER:$EPOCH:$count" | sha256sum)
        logger "panloom 1 $PAN/$SERVER $EPOCH $count ${digest%% *}"
        count=$((count + 1))
    fi
    sleep "${BEACON_SECONDS:-1}"
done
