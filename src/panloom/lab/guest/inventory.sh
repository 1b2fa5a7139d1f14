#!/bin/busybox sh
# /init of the inventory: what this machine has is told to the control node, then it starts again.
#
#   panloom.mac=MAC panloom.address=ADDRESS panloom.mask=MASK   the NIC that firmware booted from, and its lease
#   panloom.report=URL                                          where the report goes
#
# A report is lines of WORD=VALUE; decide/inventory.py reads them.

/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
export PATH=/bin
for module in /modules/*; do insmod "$module" 2> /dev/null; done
echo "PANLOOM stage=inventory"

read -r words < /proc/cmdline
for word in $words; do
    case $word in
        panloom.mac=*) mac=${word#*=} ;;
        panloom.address=*) address=${word#*=} ;;
        panloom.mask=*) mask=${word#*=} ;;
        panloom.report=*) report=${word#*=} ;;
    esac
done

for device in /sys/class/net/*; do ip link set "${device##*/}" up 2> /dev/null; done
tries=0
while [ $tries -lt 30 ] && [ -z "$nic" ]; do # links and drivers take their time
    for device in /sys/class/net/*; do
        read -r found < "$device/address"
        read -r carrier < "$device/carrier" || carrier=0
        [ "$found" = "$mac" ] && [ "$carrier" = 1 ] && nic=${device##*/}
    done
    [ "$nic" ] || usleep 200000
    tries=$((tries + 1))
done 2> /dev/null

{
    echo "arch=$(uname -m)"
    sed -n 's/^model name[^:]*: */cpu=/p' /proc/cpuinfo | head -n 1
    echo "cores=$(grep -c ^processor /proc/cpuinfo)"
    blocks=0
    for block in /sys/devices/system/memory/memory[0-9]*; do [ -e "$block" ] && blocks=$((blocks + 1)); done
    [ $blocks -gt 0 ] && echo "memory=$((blocks * 0x$(cat /sys/devices/system/memory/block_size_bytes)))"
    dmi=/sys/class/dmi/id
    echo "manufacturer=$(cat $dmi/sys_vendor)"
    echo "product=$(cat $dmi/product_name)"
    echo "serial=$(cat $dmi/product_serial)"
    echo "uuid=$(cat $dmi/product_uuid)"
    for device in /sys/class/net/*; do
        [ -e "$device/device" ] || continue
        driver=$(readlink "$device/device/driver")
        read -r carrier < "$device/carrier" || carrier=0
        read -r found < "$device/address"
        echo "nic=$found $carrier ${driver##*/}"
    done
    for device in /sys/block/*; do
        [ -e "$device/device" ] || continue
        read -r sectors < "$device/size"
        [ "$sectors" -gt 0 ] && echo "disk=${device##*/} $((sectors * 512)) $(cat "$device/device/model")"
    done
} > /report 2> /dev/null

ifconfig "$nic" "$address" netmask "$mask" up
wget -q -O /answer --post-file=/report "$report" && echo "PANLOOM inventory=told" || cat /report
sleep 1
reboot -f
