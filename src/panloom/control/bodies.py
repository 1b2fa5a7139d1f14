"""What the API answers with, as JSON."""

from typing import Any

from panloom.control.documents import Outcome
from panloom.decide.plan import Change, Effect, Mark, Plan


def plan_body(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON."""
    return {
        "changes": [_change_body(change) for change in plan.changes],
        "add": plan.count(Mark.ADD),
        "change": plan.count(Mark.CHANGE),
        "remove": plan.count(Mark.REMOVE),
        "boots": plan.servers(Effect.BOOTS),
        "reboots": plan.servers(Effect.REBOOTS),
        "stops": plan.servers(Effect.STOPS),
        "warnings": plan.warnings,
    }


def outcome_body(outcome: Outcome) -> dict[str, Any]:
    """Return what an edit did as JSON: the plan it carried out, and its revision."""
    return {**plan_body(outcome.plan), "revision": outcome.revision, "kept": outcome.kept}


def _change_body(change: Change) -> dict[str, Any]:
    return {
        "mark": change.mark.value,
        "kind": change.resource.kind,
        "name": change.resource.label,
        "detail": change.detail,
        "fields": [{"path": field.path, "old": field.old, "new": field.new} for field in change.fields],
        "effect": change.effect.value,
        "note": change.note,
        "implied": change.implied,
    }
