"""What a target says, in words short enough for a table of what must be answered."""

from panloom.wire import iscsi, scsi_sense
from panloom.wire.iscsi import NO_TAG

LAST_WORD = 0xBEEF0000
"""The tag of a NOP-Out that is sent last: what has not been answered by its answer is not answered at all."""


def in_words(pdu):
    """Return one answer: ``good``, ``sense 5/2400``, ``reject 4``, ``data 512``, ``r2t 0+512``, ``task 1`` …"""
    match pdu:
        case iscsi.ScsiResponse(status=0):
            residual = {0: "", iscsi.OVERFLOW: " over", iscsi.UNDERFLOW: " under"}[pdu.flags & 0x06]
            return f"good{residual} {pdu.residual_count}" if residual else "good"
        case iscsi.ScsiResponse():
            sense = scsi_sense.decode(pdu.data[2:])
            return f"sense {sense.key:X}/{sense.code:04X}"
        case iscsi.DataIn():
            return f"data {len(pdu.data)}"
        case iscsi.ReadyToTransfer():
            return f"r2t {pdu.buffer_offset}+{pdu.desired_data_transfer_length}"
        case iscsi.Reject():
            return f"reject {pdu.reason}"
        case iscsi.TaskManagementResponse():
            return f"task {pdu.response}"
        case iscsi.LogoutResponse():
            return f"logout {pdu.response}"
        case iscsi.LoginResponse():
            return f"login {pdu.status_class}/{pdu.status_detail:02X}"
        case iscsi.NopIn():
            return f"nop {bytes(pdu.data).decode()}".strip()
        case iscsi.TextResponse():
            return "text"
        case None:
            return "closed"
    return type(pdu).__name__


def say(initiator, octets):
    """Send octets, and last a NOP-Out; return what was answered until that came back or the target closed."""
    last = iscsi.encode(iscsi.NopOut(initiator_task_tag=LAST_WORD, cmd_sn=1, immediate=True))
    try:
        initiator.sock.sendall(octets + last)
    except OSError:
        pass  # closed while it was said: what was answered is still to be heard
    return hear(initiator)


def hear(initiator):
    """Return what is answered until the last word comes back or the target closes."""
    words = []
    while True:
        pdu = initiator.receive()
        if isinstance(pdu, iscsi.NopIn) and pdu.initiator_task_tag == LAST_WORD:
            return words
        if isinstance(pdu, iscsi.NopIn) and pdu.initiator_task_tag == NO_TAG:
            continue  # a ping of the target's
        words.append(in_words(pdu))
        if pdu is None:
            return words
