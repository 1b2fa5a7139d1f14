"""``panloom image tag``, ``prune`` and ``delete``: which versions there are, and what they are called.

image tag web@3 stable             web@stable is web@3 from now on
image prune web --keep 2           what nobody needs goes, but for the two newest
image delete web@1 --yes
"""

import click

from panloom.command import changes, completing
from panloom.command.output import emit, suggest
from panloom.control.client import Client


@click.command("tag", short_help="Have a tag mean another version.")
@click.argument("image", metavar="NAME@VERSION", shell_complete=completing.images)
@click.argument("tags", nargs=-1, required=True, metavar="TAG...")
@click.option("--remove", is_flag=True, help="Take the tags away from it.")
@click.pass_obj
def tag(client: Client, image: str, tags: tuple[str, ...], *, remove: bool) -> int:
    """Have NAME@VERSION carry TAG, and no other version of NAME: at no moment none or two of them do.

    Disks stay what they are; `panloom image update NAME@TAG` gives servers the version that the tag means now.
    """
    client.post("images", image, "tags", body={"tags": list(tags), "remove": remove})
    emit(f"{image} {'is no more' if remove else 'is'} {', '.join(tags)}.")
    suggest("See all", "panloom get images")
    return 0


@click.command("prune", short_help="Destroy the versions of an image that nobody needs.")
@click.argument("name", metavar="NAME")
@click.option("--keep", type=click.IntRange(0), default=1, show_default=True, help="How many of the newest stay.")
@click.option("--yes", is_flag=True, help="Yes, destroy them for ever; without it they are only told.")
@click.pass_obj
def prune(client: Client, name: str, *, keep: int, yes: bool) -> int:
    """Destroy the versions of NAME that nobody needs: not among the newest, without a tag, and in nobody's use.

    In use is what a disk is a clone of (disks that servers had before an update are, too), what a document names by its
    number, and what an update is under way to.
    """
    done = client.post("images", name, "prune", body={"keep": keep, "yes": yes})
    for label, why in done["kept"].items():
        emit(f"{label} stays: {why}")
    for label in done["gone"]:
        emit(f"{label} {'is destroyed' if yes else 'would go'}")
    if not done["gone"]:
        emit("There is nothing to destroy.")
    elif not yes:
        suggest("Destroy them", f"panloom image prune {name} --keep {keep} --yes")
    return 0


@click.command("delete", short_help="Destroy a version of an image.")
@click.argument("image", metavar="NAME@VERSION", shell_complete=completing.images)
@click.option("--yes", is_flag=True, help="Yes, destroy it for ever.")
@click.pass_obj
def delete(client: Client, image: str, *, yes: bool) -> int:
    """Destroy NAME@VERSION; refused, with who uses it, while a disk is a clone of it or a document names it."""
    done = client.delete("resources", "image", image, yes="true" if yes else "false")
    emit(f"Deleted: {changes.summary(done, 'done')}.")
    suggest("See what is left", "panloom get images")
    return 0
