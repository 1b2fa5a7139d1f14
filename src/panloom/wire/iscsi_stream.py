"""A stream of iSCSI PDUs, with digests where they are agreed on (RFC 7143 sections 7.1 and 13.1).

    header │ additional header │ header digest │ data, padded │ data digest │ header …
                                 agreed          if there is data, and agreed

``PduReader`` owns the buffer that is received into, so octets are copied once, by whoever keeps them:

    buffer_wanted()  ──▶ receive into it ──▶ received(n) ──▶ next_pdu() … until it returns None
"""

from panloom.errors import MalformedError
from panloom.wire import iscsi
from panloom.wire.crc32c import DIGEST_OCTETS, digest
from panloom.wire.iscsi import HEADER_OCTETS, Octets, Pdu

_LARGEST_HEADER = HEADER_OCTETS + 255 * 4 + DIGEST_OCTETS
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")  # by the data's length, modulo a word


def frame(pdu: Pdu, *, header_digest: bool, data_digest: bool) -> tuple[Octets, ...]:
    """Return the PDU as the parts in which it goes out; its data is one of them, not copied."""
    header = iscsi.encode_header(pdu)
    data: Octets = getattr(pdu, "data", b"")
    if header_digest:
        header += digest(header)
    if not len(data):
        return (header,)
    padding = _PADDING[len(data) % 4]
    if data_digest:
        return header, data, padding + digest(data, padding)
    return (header, data, padding) if padding else (header, data)


class PduReader:
    """Makes PDUs of octets that come cut anywhere.

    ``max_data_octets`` bounds a data segment: our MaxRecvDataSegmentLength.  ``header_digest`` and ``data_digest`` may
    be set between two PDUs, and hold from the next one on.
    """

    def __init__(self, *, max_data_octets: int) -> None:
        self.header_digest = False
        self.data_digest = False
        self._max_data_octets = max_data_octets
        self._largest = _LARGEST_HEADER + max_data_octets + 3 + DIGEST_OCTETS
        self._buffer = memoryview(bytearray(4 * self._largest))
        self._start = self._end = 0  # of what has been received and not yet been read

    def buffer_wanted(self) -> memoryview:
        """Return where to receive into; what ``next_pdu`` has returned is not valid from here on."""
        if self._start == self._end:
            self._start = self._end = 0
        elif len(self._buffer) - self._start < self._largest:
            rest = bytes(self._buffer[self._start : self._end])  # the two may overlap
            self._buffer[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        return self._buffer[self._end :]

    def received(self, octets: int) -> None:
        """Take note that so many octets have been received."""
        self._end += octets

    def next_pdu(self) -> Pdu | None:
        """Return the next PDU, its data a view of the buffer; None when its end has not been received.

        MalformedError: no PDU, too much data, or a digest that does not match; the stream cannot be read on.
        """
        start, available = self._start, self._end - self._start
        if available < HEADER_OCTETS:
            return None
        view = self._buffer
        ahs_octets, data_octets = iscsi.header_lengths(view[start : start + HEADER_OCTETS])
        if data_octets > self._max_data_octets:
            raise MalformedError(f"a data segment of {data_octets} octets, at most {self._max_data_octets} are agreed")
        ahs_end = start + HEADER_OCTETS + ahs_octets
        data = ahs_end + (DIGEST_OCTETS if self.header_digest else 0)
        padded = data + data_octets + -data_octets % 4
        end = padded + (DIGEST_OCTETS if self.data_digest and data_octets else 0)
        if self._end < end:
            return None
        if self.header_digest and digest(view[start:ahs_end]) != view[ahs_end:data]:
            raise MalformedError("a header digest that does not match")
        if end > padded and digest(view[data:padded]) != view[padded:end]:
            raise MalformedError("a data digest that does not match")
        self._start = end
        header, ahs = view[start : start + HEADER_OCTETS], view[start + HEADER_OCTETS : ahs_end]
        return iscsi.decode(header, ahs, view[data : data + data_octets])
