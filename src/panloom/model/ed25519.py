"""Which 32 octets are a public key that proves something: Ed25519, RFC 8032 section 5.1.

    key    y, 255 bits, little-endian, and the lowest bit of x: a point of -x² + y² = 1 + d·x²·y² modulo 2²⁵⁵ - 19

Eight of the curve's points, those of small order, accept signatures that anybody can make.  They are encoded by five
values of y, and by y + p where that fits into 255 bits too.
"""

KEY_OCTETS = 32
_P = (1 << 255) - 19
_D = -121665 * pow(121666, -1, _P) % _P
_EIGHTH = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7  # y of two points of order 8
_SMALL_ORDER = frozenset((0, 1, _P - 1, _EIGHTH, _P - _EIGHTH))


def is_trustworthy(key: bytes) -> bool:
    """Whether a key is a point of the curve, written as RFC 8032 section 5.1.3 has it, and not of small order."""
    y = int.from_bytes(key, "little") & ((1 << 255) - 1)
    if len(key) != KEY_OCTETS or y >= _P or y in _SMALL_ORDER:
        return False
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P  # of x
    return pow(square, (_P - 1) // 2, _P) == 1
