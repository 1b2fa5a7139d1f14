#!/bin/busybox sh
# /sbin/os: the operating system's side, in a network namespace of its own; here, a page that names the server.

. /run/personality
echo > /run/os.unshared
read -r _ < /run/os.wired
ip link set lo up

index=0
while [ $index -lt "$NICS" ]; do
    eval "address=\$NIC${index}_ADDRESS prefix=\$NIC${index}_PREFIX router=\$NIC${index}_ROUTER"
    eval "dns=\$NIC${index}_DNS domain=\$NIC${index}_DOMAIN"
    if [ "$address" ]; then
        echo 1 > "/proc/sys/net/ipv4/conf/eth$index/arp_notify" # tells the switches where this MAC is now
        ip addr add "$address/$prefix" dev "eth$index"
        ip link set "eth$index" up
        [ "$router" ] && ip route add default via "$router"
        {
            [ "$domain" ] && echo "search $domain"
            for server in $dns; do echo "nameserver $server"; done
        } > /run/resolv.conf
    else
        ip link set "eth$index" up
        udhcpc -q -i "eth$index" -s /sbin/lease > /dev/null
        [ $index = 0 ] && read -r NIC0_ADDRESS < /run/address
    fi
    index=$((index + 1))
done

# For tests of fencing: a call a second to all hosts (RFC 1112), from the server's own MAC and address.
if [ "$WRITER" = 1 ] || [ -e /panloom-writer ]; then
    ip route add 224.0.0.0/4 dev eth0
    busybox ping -q 224.0.0.1 > /dev/null &
fi

read -r _ _ kernel _ < /proc/version
mkdir -p /run/www
echo "server=$PAN/$SERVER
epoch=$EPOCH
node=$NODE
boots=$BOOTS
mac=$NIC0_MAC
address=$NIC0_ADDRESS
kernel=$kernel" > /run/www/facts.txt
echo "<!doctype html>
<title>$PAN/$SERVER</title>
<h1>$PAN/$SERVER</h1>
<p>Boot <b>$BOOTS</b> of this disk, on node <b>$NODE</b>, at epoch <b>$EPOCH</b>.</p>
<p>$NIC0_ADDRESS at $NIC0_MAC, Linux $kernel; the same <a href=facts.txt>as plain text</a></p>" > /run/www/index.html
if [ -e /etc/rc.local ]; then sh /etc/rc.local > /dev/console 2>&1 & fi
exec httpd -f -p 80 -h /run/www
