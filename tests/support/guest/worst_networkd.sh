#!/bin/sh
# systemd-networkd at its worst, round after round, while the disk is written without pause; a unit of the Debian under test.
#
# The test opens each gate by a connection, and says by the first how many rounds.  Whatever must not be is told as
# `WORST fault`, and so is what networkd refuses to do.
. /run/panloom/personality
own=/run/systemd/network
part=$(findmnt -n -o SOURCE /)
disk=/dev/$(lsblk -n -o PKNAME "$part")

say() { printf '\nWORST %s\n' "$*" > /dev/console; } # on a line of its own, whatever stands there
gate() { busybox nc -l -p 99 < /dev/null; }
lost_connections() { dmesg | grep -c 'detected conn error'; }
plug() { /usr/lib/panloom/shared-nic plug eth0 "$NIC0_MAC" || say "fault: no new NIC in round $round"; }
networkd() { # $@ for networkctl
    asked=$((asked + 1))
    if why=$(networkctl "$@" 2>&1); then obeyed=$((obeyed + 1)); else say "fault: networkctl $* in round $round: $why"; fi
}
every_card() { # $@ lines of the file that networkd obeys for all that it sees; the next round takes it away
    printf '%s\n' '[Match]' 'Name=*' "$@" > $own/05-every.network
    networkd reload
    networkd reconfigure eth0
    rm $own/05-every.network
}
read_disk() { # $1 when: the file is read from the disk, and is what it was
    echo 3 > /proc/sys/vm/drop_caches
    [ "$(sha256sum < /var/worst)" = "$sum" ] || say "fault: the file is another one $1"
}
write_tags() { # each sector of a ring before the first partition in turn, and each is on the disk before the next
    count=0
    while [ ! -e /run/worst.over ]; do
        lap=$((count + 1024))
        while [ $count -lt $lap ] && [ ! -e /run/worst.over ]; do
            printf '%-511s\n' "$PAN/$SERVER:$EPOCH:$count"
            count=$((count + 1))
            echo $count > /run/worst.written
        done | dd "of=$disk" bs=512 seek=1024 iflag=fullblock oflag=direct,sync conv=notrunc 2> /dev/null ||
            say "fault: a write in the lap from $count"
        read -r count < /run/worst.written
    done
    say "written $count"
}
rounds=$(gate)
dd if=/dev/urandom of=/var/worst bs=64k count=4 2> /dev/null
sync
sum=$(sha256sum < /var/worst)
lost=$(lost_connections) # by the hand-over to iscsid
say "cards $(ls /sys/class/net | tr '\n' ' ')"
write_tags &
writer=$!
renice -n 19 $writer > /dev/null # what networkd does shall not wait for it

round=0 asked=0 obeyed=0
while [ $round -lt "$rounds" ]; do
    case $((round % 40)) in
        5) ip link del eth0 && plug ;;
        13) every_card '[Link]' 'ActivationPolicy=always-down' ;;
        21) networkd reload && networkd delete eth0 ;;
        22) plug && ip link set eth0 name lost0 && ip link set lost0 up && ip link del lost0 && plug ;;
        30) every_card '[Link]' 'MTUBytes=1280' '[Network]' "Address=$BEACON_ADDRESS/8" "Gateway=$BEACON_ADDRESS" ;;
        38) systemctl restart systemd-networkd ;;
        *[05]) networkd reconfigure eth0 ;;
        *[16]) ip address flush dev eth0 ;;
        *[27]) networkd down eth0 && ip route flush table main ;;
        *[38]) networkd up eth0 ;;
        *) ip link set eth0 down && ip link set eth0 address 02:50:4c:ff:ff:ff && ip link set eth0 up ;;
    esac || say "fault: round $round"
    [ $((round % 25)) = 7 ] && read_disk "in round $round"
    round=$((round + 1))
done
say "rounds $round asked=$asked obeyed=$obeyed"

ip link del eth0
read_disk "without a card"
systemctl restart panloom-personality || say "fault: no personality"
networkd reload
: > /run/worst.over
wait $writer
say "cards $(ls /sys/class/net | tr '\n' ' ')"
say "errors disk=$(dmesg | grep -c -i -e 'I/O error' -e 'EXT4-fs error') connection=$(($(lost_connections) - lost))"
say done
gate > /dev/null
systemctl poweroff
