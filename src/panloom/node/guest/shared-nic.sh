#!/bin/sh
# panloom-shared-nic: one network card for the disk and for the system's network, by the kernel's own means.
#
#   merged    CARD, MAC 1: session, address  ◀── macvlan, MAC 2 ── the system's eth0
#   split     CARD, nobody's MAC             ◀── macvlan, MAC 1 ── storage0: session, address
#                                            ◀── macvlan, MAC 2 ── the system's eth0
#
# Card and session stay in the first network namespace for ever (/run/netns/storage); the system lives in another, sees
# its eth0 there and nothing else, and may do to it what it likes.  It needs sh, ip, mount and nsenter, busybox's too.
#
#   shared-nic storage CARD [LAYOUT]   in the initramfs, before the login: says on which interface the disk's address goes;
#                                      the card is shared first, and once, however often this is asked
#   shared-nic plug NAME MAC [PID]     gives the network namespace of a process (ours) an interface, also a second time
#   shared-nic unplug NAME [PID]       takes it away
#   shared-nic show [PID]              what there is on either side, and over what
#
# /run/shared-nic/events says what was loaded, in its order.
state=/run/shared-nic
storage=/run/netns/storage

complain() {
    echo "shared-nic: $1" >&2
    exit 1
}

in_storage() { nsenter -n$storage "$@"; }

settings() { # card, interface and layout, as `storage` has left them
    [ -e $state/settings ] || complain "there is no card yet; shared-nic storage CARD comes first"
    . $state/settings
}

event() { echo "$*" >> $state/events; }

share_card() { # $1 the card, $2 the layout
    case ${2:-merged} in merged | split) ;; *) complain "$2 is no layout; there are merged and split" ;; esac
    if [ -e $state/settings ]; then
        settings
        [ "$1 ${2:-merged}" = "$card $layout" ] || complain "$card is shared already, in the layout $layout"
        echo $interface
        return
    fi
    [ -e "/sys/class/net/$1" ] || complain "there is no network card $1"
    interface=$1
    mkdir -p $state /run/netns
    event "card $1"
    if [ "$2" = split ]; then
        # A macvlan cannot have its card's own MAC, so the card lends it out and takes that with the local bit turned.
        read -r mac < "/sys/class/net/$1/address"
        own=$(printf %02x $((0x${mac%%:*} ^ 2))):${mac#*:}
        [ -e "/proc/sys/net/ipv6/conf/$1" ] && echo 1 > "/proc/sys/net/ipv6/conf/$1/disable_ipv6"
        ip link set "$1" address "$own" && ip link set "$1" up &&
            ip link add link "$1" storage0 address "$mac" type macvlan || complain "$1 cannot be shared"
        interface=storage0
    fi
    [ -e $storage ] || { : > $storage && mount -o bind /proc/self/ns/net $storage; } || complain "no $storage"
    event "storage $interface"
    echo "card=$1 interface=$interface layout=${2:-merged}" > $state/settings
    echo $interface
}

plug() { # $1 its name, $2 its MAC, $3 a process of the system's
    settings
    net=/proc/$3/ns/net
    if nsenter -n"$net" ip link show "$1" > /dev/null 2>&1; then complain "the system has an interface $1"; fi
    # Under a name that is nobody's, until it is where nobody else has that name.
    in_storage ip link add link "$card" "nic$3" address "$2" type macvlan &&
        in_storage ip link set "nic$3" netns "$3" &&
        nsenter -n"$net" ip link set "nic$3" name "$1" || {
        in_storage ip link del "nic$3" 2> /dev/null
        complain "$1 cannot be plugged in"
    }
    event "nic $1"
}

show() { # $1 a process of the system's
    settings
    echo "layout: $layout; the disk's address is on $interface"
    in_storage ip -o link show
    echo "the system's:"
    nsenter -n"/proc/$1/ns/net" ip -o link show
}

case $1 in
    storage) share_card "$2" "$3" ;;
    plug) plug "$2" "$3" "${4:-$$}" ;;
    unplug) nsenter -n"/proc/${3:-$$}/ns/net" ip link del "$2" ;;
    show) show "${2:-$$}" ;;
    *) complain "there are storage, plug, unplug and show" ;;
esac
