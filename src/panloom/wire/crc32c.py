"""CRC32C, the digest of iSCSI headers and data (RFC 7143 section 13.1, RFC 3385).

The octets of the sum stand on the wire in the order of a little-endian number (RFC 7143 appendix A).
"""

import google_crc32c

from panloom.wire.iscsi import Octets

DIGEST_OCTETS = 4


def digest(*parts: Octets) -> bytes:
    """Return the four octets that follow these parts on the wire."""
    total = 0
    for part in parts:
        # The library takes nothing that could change under it.
        total = google_crc32c.extend(total, part if isinstance(part, bytes) else bytes(part))
    return total.to_bytes(DIGEST_OCTETS, "little")
