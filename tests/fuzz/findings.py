"""Inputs that once broke something: the target, the octets, and what was wrong."""

FINDINGS: tuple[tuple[str, bytes, str], ...] = (
    ("tftp.transfer", bytes.fromhex("04000000002c050600"), "octets after the end of a transfer ended it once more"),
    ("codecs.value", b"9" * 400, "a size beyond every float was an OverflowError"),
)
