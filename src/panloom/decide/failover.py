"""Fail-over as edits of one record: shut the old node out, step by durable step, then let the server wait for a node.

    begin ─▶ EPOCH ─▶ REFUSE_LOGINS ─▶ DROP_SESSIONS ─▶ DRAIN_WRITES ─▶ FILTER_PORT ─▶ POWER_OFF ─▶ finish (WAITING)

``begin`` itself is the first step: once the record with the higher epoch is durable, nothing of the old epoch is ever
granted again.  The following steps are carried out by ``control/reconcile.py``; each is idempotent, so that a control
process killed between an act and its record does the act twice and nothing else.  Storage and port must be confirmed.
The power-off holds the fence up only where the policy says ``power``.
"""

import msgspec

from panloom.decide.records import STEPS, Fence, Phase, ServerRecord, Step


def begin(
    record: ServerRecord, *, cause: str, secret: str, beacon_key: str, wall: float, restart: bool = False
) -> ServerRecord:
    """Return the record with its epoch raised and its node being fenced.

    ``secret`` and ``beacon_key`` are fresh random hex for the new epoch; ``restart`` keeps the node eligible for the
    server. ValueError if the server holds no node or is being fenced already.
    """
    if record.node is None or record.phase is Phase.FENCING:
        raise ValueError(f"a server that is {record.phase.value} on {record.node} has nothing to fence")
    fence = Fence(node=record.node, cause=cause, done=Step.EPOCH, started_at=wall, restart=restart)
    return msgspec.structs.replace(
        record,
        phase=Phase.FENCING,
        epoch=record.epoch + 1,
        secret=secret,
        beacon_key=beacon_key,
        fence=fence,
        since=wall,
        moving_since=record.moving_since or (None if restart else wall),
    )


def overdue_seconds(record: ServerRecord, within_seconds: float, wall: float) -> float | None:
    """Return for how long a server has been moving, None unless that is longer than its ``failover: {within: …}``."""
    took = wall - record.moving_since if record.moving_since is not None else 0.0
    return took if took > within_seconds else None


def next_step(fence: Fence) -> Step | None:
    """Return the step after the last one that holds, None when all hold."""
    position = STEPS.index(fence.done) + 1
    return STEPS[position] if position < len(STEPS) else None


def advance(record: ServerRecord, step: Step, *, power_confirmed: bool = False) -> ServerRecord:
    """Return the record with ``step`` noted as holding; ValueError if it is not the next one."""
    fence = record.fence
    if fence is None or next_step(fence) is not step:
        raise ValueError(f"{step.value} does not follow {fence.done.value if fence else 'no fence'}")
    return msgspec.structs.replace(
        record, fence=msgspec.structs.replace(fence, done=step, power_confirmed=power_confirmed)
    )


def finish(record: ServerRecord, *, wall: float) -> ServerRecord:
    """Return the record as a server that waits for a node; ValueError while a step is missing."""
    if record.fence is None or next_step(record.fence) is not None:
        raise ValueError("the fence is not complete")
    return msgspec.structs.replace(
        record,
        phase=Phase.WAITING,
        node=None,
        fence=None,
        since=wall,
        started=False,
        boot_attempts=0,
        moves=record.moves + (0 if record.fence.restart else 1),
        left=record.fence.node,
        left_for_good=not record.fence.restart,
    )
