# A system that does its worst to its network, and looks after its disk meanwhile; /etc/rc.local of a test's image.
#
# The test opens each gate by a connection.  Whatever must not be is told as `WORST fault`.
. /run/personality
. /run/boot
disk=${root_disk#/dev/}
peer=10.1.0.254

say() { printf '\nWORST %s\n' "$*"; } # on a line of its own, whatever stands there
gate() { busybox nc -l -p 99 < /dev/null > /dev/null; }

packets() { # $1 an interface of this namespace, $2 a copy of its /proc/net/dev: frames in and out
    busybox sed -n "s/^ *$1: *//p" "$2" | { read -r _ received _ _ _ _ _ _ _ sent _; echo $((received + sent)); }
}
look() {
    cat /proc/net/dev > /run/system.dev
    nsenter -n/run/netns/storage cat /proc/net/dev > /run/storage.dev
    of_system=$(packets eth0 /run/system.dev) of_storage=$(packets "$storage_nic" /run/storage.dev)
}
read_disk() { # $1 why: the file is read from the disk, and is what it was
    echo 3 > /proc/sys/vm/drop_caches
    [ "$(sha256sum < /file)" = "$sum" ] || say "fault: the file is another one $1"
}

dd if=/dev/urandom of=/file bs=64k count=4 2> /dev/null
sync
sum=$(sha256sum < /file)
lost_connections() { dmesg | busybox grep -c 'detected conn error'; }
say ready
gate
lost=$(lost_connections) # by the hand-over to iscsid

say "inquiry $(busybox hexdump -v -e '36/1 "%02x"' -n 36 "/sys/block/$disk/device/inquiry") sectors $(cat "/sys/block/$disk/size")"
shared-nic show | while read -r line; do say "show $line"; done
read_disk "at first"

ping -c 1 -W 10 $peer > /dev/null || say "fault: no ping passes"
ip link set eth0 down
look
system=$of_system storage=$of_storage
ping -c 1 -W 1 $peer > /dev/null 2>&1 && say "fault: a ping passes"
read_disk "with the NIC down"
look
say "down system=$((of_system - system)) storage=$((of_storage - storage))"
ip link set eth0 up

round=0
while [ $round -lt 100 ]; do
    ip link set eth0 down
    case $((round % 5)) in
        0)
            ip link del eth0
            shared-nic plug eth0 "$NIC0_MAC" || say "fault: no new NIC in round $round"
            ;;
        1) ip addr flush dev eth0 ;;
        2) ip addr add "$BEACON_ADDRESS/32" dev eth0 ;; # the control node's own
        3) ifconfig eth0 mtu 1280 ;;
        4) ip route replace blackhole "${BEACON_ADDRESS%.*}.0/24" ;;
    esac
    ip link set eth0 up
    [ $((round % 20)) = 7 ] && read_disk "in round $round"
    round=$((round + 1))
done
say "rounds $round"

ip route del blackhole "${BEACON_ADDRESS%.*}.0/24"
ip addr flush dev eth0
read_disk "without an address"
ifconfig eth0 mtu 1500
ip addr add "$NIC0_ADDRESS/$NIC0_PREFIX" dev eth0
say "card starts=$(busybox grep -c ^card /run/shared-nic/events) up=$(cat /sys/class/net/eth0/carrier_up_count)"
say "errors disk=$(dmesg | busybox grep -c -i -e 'I/O error' -e 'EXT4-fs error') connection=$(($(lost_connections) - lost))"
say done
gate
poweroff
