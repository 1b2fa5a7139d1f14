"""The PDUs that answer a SCSI command: data, status, sense data (RFC 7143 sections 11.4, 11.7, 11.8)."""

from collections.abc import Callable, Iterator
from typing import TypedDict

from panloom.protocol.iscsi_keys import SessionParameters
from panloom.protocol.iscsi_task import Task
from panloom.wire import iscsi, scsi_sense
from panloom.wire.iscsi import DataIn, ReadyToTransfer, ScsiResponse
from panloom.wire.scsi_sense import Sense

GOOD, CHECK_CONDITION, RESERVATION_CONFLICT, TASK_SET_FULL = 0x00, 0x02, 0x18, 0x28  # status, SAM-5 5.3.1


class Numbers(TypedDict):
    """The sequence numbers that every answer carries."""

    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int


def data_in(
    task: Task, octets: bytes, parameters: SessionParameters, numbers: Callable[[bool], Numbers]
) -> Iterator[DataIn]:
    """Yield the PDUs of data that is no medium's, the last of them with GOOD.

    ``numbers`` gives those of the next PDU, and uses its StatSN up where it is told True.
    """
    limit = min(parameters.max_recv_data_segment_length, parameters.max_burst_length)
    for offset in range(0, len(octets), limit):
        last = offset + limit >= len(octets)
        yield DataIn(
            flags=iscsi.FINAL | ((iscsi.DATA_IN_STATUS | task.residual_flags) if last else 0),
            initiator_task_tag=task.initiator_task_tag,
            data_sn=offset // limit,
            buffer_offset=offset,
            residual_count=task.residual_count if last else 0,
            data=octets[offset : offset + limit],
            **numbers(last),
        )


def status(task: Task, number: int, numbers: Numbers) -> ScsiResponse:
    """Return the end of a task by a status that needs no sense data."""
    return ScsiResponse(
        flags=iscsi.FINAL | task.residual_flags,
        status=number,
        initiator_task_tag=task.initiator_task_tag,
        exp_data_sn=task.r2t_sn,
        residual_count=task.residual_count,
        **numbers,
    )


def check_condition(
    initiator_task_tag: int, sense: Sense, exp_data_sn: int, residual: tuple[int, int], numbers: Numbers
) -> ScsiResponse:
    """Return the end of a task that has failed.

    ``exp_data_sn`` is how many Data-In or R2T PDUs the task has had, ``residual`` its flag and count.
    """
    data = scsi_sense.encode(sense)
    return ScsiResponse(
        flags=iscsi.FINAL | residual[0],
        status=CHECK_CONDITION,
        initiator_task_tag=initiator_task_tag,
        exp_data_sn=exp_data_sn,
        residual_count=residual[1],
        data=len(data).to_bytes(2, "big") + data,
        **numbers,
    )


def ready_to_transfer(task: Task, target_transfer_tag: int, *, max_burst: int, numbers: Numbers) -> ReadyToTransfer:
    """Ask for the next burst of a task."""
    offset, octets = task.solicit(target_transfer_tag, max_burst=max_burst)
    r2t_sn, task.r2t_sn = task.r2t_sn, task.r2t_sn + 1
    return ReadyToTransfer(
        lun=task.lun_field,
        initiator_task_tag=task.initiator_task_tag,
        target_transfer_tag=target_transfer_tag,
        r2t_sn=r2t_sn,
        buffer_offset=offset,
        desired_data_transfer_length=octets,
        **numbers,
    )
