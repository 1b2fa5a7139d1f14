"""The sockets of network boot: DHCP, router advertisement, TFTP and HTTP, on one interface."""
