"""``panloom rollback``: bring back documents as they were after a revision, as a new revision."""

import sys
from typing import Any

import click

from panloom.command import changes, completing
from panloom.command.output import emit, emit_data, output_option, say, suggest
from panloom.control.client import Client


@click.command("rollback", short_help="Bring back documents as they were.")
@click.argument(
    "revision", type=click.IntRange(0), required=False, metavar="[REVISION]", shell_complete=completing.revisions
)
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--expect", type=click.IntRange(0), metavar="NUMBER", help="Only while that is the last revision.")
@output_option
@click.pass_obj
def command(client: Client, revision: int | None, expect: int | None, form: str, *, yes: bool) -> int:
    """Show what bringing back the documents as they were after REVISION would change, and do it when told to.

    Without REVISION: as they were before the last one. It is a new revision, of documents only: servers stay on
    their nodes, epochs only grow, disks stay as they are. Exit code: 0 done or no changes, 2 shown and not done,
    1 an error.
    """
    planned = client.get("rollback", **({} if revision is None else {"revision": revision}))
    number, last = planned["revision"], planned["last"] if expect is None else expect
    if form in ("json", "yaml") and not yes:
        emit_data(planned, form)
        return 0 if changes.is_empty(planned) else 2
    if changes.is_empty(planned):
        emit("No changes.")
        suggest("See what there was", "panloom history")
        return 0
    if not yes:
        _show(planned, wide=form == "wide")
        if not _agreed():
            suggest("Do it", f"panloom rollback {number} --yes --expect {last}")
            return 2
    done = client.post("rollback", body={"revision": number, "last": last})
    if form in ("json", "yaml"):
        emit_data(done, form)
        return 0
    if yes:
        _show(planned, wide=form == "wide")
    emit(f"Back to revision {number} as revision {done['revision']}: {changes.summary(done, 'done')}.")
    suggest("Watch it", "panloom get servers --watch")
    return 0


def _show(planned: Any, *, wide: bool) -> None:  # noqa: ANN401 -- JSON
    changes.show(planned, wide=wide)
    emit(f"Back to revision {planned['revision']}: {changes.summary(planned, 'plan')}.")
    if planned["kept"]:
        say(f"Kept, as no rollback takes a disk away: {', '.join(planned['kept'])}.")
    if planned["cloned_anew"]:
        say(f"Destroyed since, and cloned anew from their image: the disks {', '.join(planned['cloned_anew'])}.")


def _agreed() -> bool:
    """Ask, where somebody is there to answer."""
    return sys.stdin.isatty() and sys.stderr.isatty() and click.confirm("Do it?", err=True)
