"""A personality with all that one can have, and a key."""

from ipaddress import IPv4Address

from panloom.decide.personality import Personality, PersonalityNic

FIXED = PersonalityNic(
    lan="front", mac="02:50:4c:00:00:01", address="10.1.0.11", prefix=24, router="10.1.0.1", dns="10.1.0.2 10.1.0.3",
    domain="shop.example",
)  # fmt: skip
LENT = PersonalityNic(lan="back", mac="02:50:4c:00:00:02")
WEB1 = Personality(
    pan="shop", server="web1", node="n1", epoch=7, nics=(FIXED, LENT), beacon_key="00ff",
    beacon_address=IPv4Address("10.77.0.1"), instance="0b5a7a5e-0000-4000-8000-000000000001",
)  # fmt: skip
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ9AfmsJSYcjLrsJvH0RJJH9fjwK7Yc2vPV3e1nZ0Yqy ada@example"
