"""Text requests in full feature phase: SendTargets, and what may still change (RFC 7143 sections 6.3, 11.10, 11.11).

    initiator                                   target
    C, first part of the keys       ──▶
                                    ◀──         nothing yet, a target transfer tag
    the rest, with that tag         ──▶
                                    ◀──         C, first part of the answer, another tag
    nothing, with that tag          ──▶
                                    ◀──         F, the rest

One exchange at a time; one without a target transfer tag begins anew, whatever was open.
"""

from collections.abc import Callable

import msgspec

from panloom.errors import MalformedError
from panloom.protocol.iscsi_keys import RECEIVE_RANGE, SessionParameters
from panloom.protocol.iscsi_task_answers import Numbers
from panloom.protocol.send_targets import answers
from panloom.wire.iscsi import CONTINUE, FINAL, NO_TAG, TextRequest, TextResponse
from panloom.wire.iscsi_text import decode_number, decode_text, encode_text

MAX_TEXT_OCTETS = 16384  # of one request over several PDUs


class TextAnswer(msgspec.Struct, frozen=True, gc=False):
    """What a Text Response carries."""

    flags: int
    target_transfer_tag: int
    data: bytes

    def response(self, request: TextRequest, numbers: Numbers) -> TextResponse:
        """Return the PDU that answers a request."""
        tags = {"initiator_task_tag": request.initiator_task_tag, "target_transfer_tag": self.target_transfer_tag}
        return TextResponse(flags=self.flags, data=self.data, **tags, **numbers)


class TextExchange:
    """What one session says in text; ``targets`` are the (name, portal) pairs that SendTargets tells.

    ``new_tag`` gives a target transfer tag that is not in use.
    """

    def __init__(self, targets: tuple[tuple[str, str], ...], *, discovery: bool, new_tag: Callable[[], int]) -> None:
        self._targets = targets
        self._discovery = discovery
        self._new_tag = new_tag
        self._initiator_task_tag = NO_TAG
        self._target_transfer_tag = NO_TAG  # of the open exchange
        self._said = b""  # by the initiator, not yet whole
        self._to_say = b""  # the rest of our answer

    def answer(self, request: TextRequest, parameters: SessionParameters) -> tuple[TextAnswer, SessionParameters]:
        """Return the answer to a request, and the parameters after it.

        MalformedError: text that is none, or too much of it.  LookupError: the exchange is not open.
        """
        if request.target_transfer_tag == NO_TAG:
            self._said = self._to_say = b""
            self._initiator_task_tag = request.initiator_task_tag
        elif (request.target_transfer_tag, request.initiator_task_tag) != (
            self._target_transfer_tag,
            self._initiator_task_tag,
        ):
            raise LookupError("no such exchange is open")
        self._target_transfer_tag = NO_TAG
        if len(self._said) + len(request.data) > MAX_TEXT_OCTETS:
            raise MalformedError("text without end")
        self._said += bytes(request.data)
        if request.flags & CONTINUE:
            return self._piece(b"", flags=0), parameters
        if self._said:
            keys = decode_text(self._said)
            self._said = b""
            parameters = declared(keys, parameters)
            keys.pop("MaxRecvDataSegmentLength", None)
            self._to_say += encode_text(answers(keys, self._targets, discovery=self._discovery))
        limit = parameters.max_recv_data_segment_length
        piece, self._to_say = self._to_say[:limit], self._to_say[limit:]
        if self._to_say:
            return self._piece(piece, flags=CONTINUE), parameters
        return self._piece(piece, flags=request.flags & FINAL), parameters

    def _piece(self, data: bytes, *, flags: int) -> TextAnswer:
        """Return a part of an answer; only the last of an exchange, with F, has no tag to go on with."""
        self._target_transfer_tag = NO_TAG if flags & FINAL else self._new_tag()
        return TextAnswer(flags, self._target_transfer_tag, data)


def declared(keys: dict[str, str], parameters: SessionParameters) -> SessionParameters:
    """Return the parameters after what an initiator declares; MalformedError for what it may not declare.

    MaxRecvDataSegmentLength is the one key of a session that may change after the login (section 13.12).
    """
    if "MaxRecvDataSegmentLength" not in keys:
        return parameters
    octets = decode_number(keys["MaxRecvDataSegmentLength"])
    if octets not in RECEIVE_RANGE:
        raise MalformedError(f"MaxRecvDataSegmentLength={octets}")
    return msgspec.structs.replace(parameters, max_recv_data_segment_length=octets)
