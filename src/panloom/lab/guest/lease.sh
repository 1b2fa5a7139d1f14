#!/bin/busybox sh
# /sbin/lease: what udhcpc does with a lease.

case $1 in
    deconfig) ip addr flush dev "$interface" ;;
    bound | renew)
        ip addr flush dev "$interface"
        ip addr add "$ip/$mask" dev "$interface"
        echo "$ip" > /run/address
        for gateway in $router; do ip route add default via "$gateway" && break; done
        {
            [ "$domain" ] && echo "search $domain"
            for server in $dns; do echo "nameserver $server"; done
        } > /run/resolv.conf
        ;;
esac
