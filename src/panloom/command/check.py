"""``panloom check``: what would go wrong on this site, before a server is trusted to it."""

from collections.abc import Mapping
from typing import Any

import click

from panloom.command import changes
from panloom.command import files as reading
from panloom.command.output import emit_data, emit_table, output_option, suggest
from panloom.control.client import Client
from panloom.decide.preflight import MEND
from panloom.errors import ConfigErrors

_COLOURS = {"ok": "green", "wrong": "red", "unknown": "yellow"}


@click.command("check", short_help="Look what would go wrong on this site.")
@click.argument("files", nargs=-1, metavar="[FILE...]")
@output_option
@click.pass_obj
def command(client: Client, files: tuple[str, ...], form: str) -> int:
    """Look at the site as its documents have it: addresses and other DHCP servers on the wire, MTU, portal, power
    drivers, ports, images and their signatures, spares; change nothing.

    FILEs are documents that are not applied yet: what is wrong in them is told, too. What this machine itself lacks,
    programs, disk space, clock, is told by panloom doctor. Exit code: 1 if something is wrong, or is unknown since it
    could not be looked at.
    """
    told = client.get("check")
    findings = [*_of_files(client, files), *told["findings"]]
    states = {finding["state"] for finding in findings}
    state = next((state for state in ("wrong", "unknown") if state in states), "ok")
    if form in ("json", "yaml"):
        emit_data({"state": state, "findings": findings}, form)
        return int(state != "ok")
    rows = [
        (click.style(one["state"], fg=_COLOURS[one["state"]]), one["part"], one["where"], _words(one))
        for one in findings
    ]
    emit_table(("STATE", "PART", "WHERE", "FOUND"), rows)
    if state != "ok":
        suggest("Look again when it is mended", "panloom check")
    else:
        suggest("Look at this machine itself", "panloom doctor")
    return int(state != "ok")


def _words(finding: Mapping[str, Any]) -> str:
    mend = f"; {finding['mend']}" if finding["mend"] else ""
    return f"{finding['found']}{mend}"


def _of_files(client: Client, files: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return what planning documents finds in them."""
    if not files:
        return []
    try:
        plan = client.post("plan", body={"files": reading.read(files)})
    except ConfigErrors as errors:
        return [_finding(error.where, "wrong", error.why) for error in errors.errors]
    warnings = [_finding(", ".join(files), "wrong", warning, MEND) for warning in plan["warnings"]]
    return warnings or [_finding(", ".join(files), "ok", f"{changes.summary(plan, 'plan')}")]


def _finding(where: str, state: str, found: str, mend: str = "") -> dict[str, Any]:
    return {"part": "files", "where": where, "state": state, "found": found, "mend": mend}
