"""``panloom export``: what is wanted, as documents that apply again."""

import click

from panloom.command import completing
from panloom.command.columns import kind_of
from panloom.command.output import emit_data, say
from panloom.control.client import Client


@click.command("export", short_help="Print what is wanted, as documents that apply again.")
@click.argument("kind", required=False, default="", metavar="[KIND", shell_complete=completing.kinds)
@click.argument("name", required=False, default="", metavar="[NAME]]", shell_complete=completing.names)
@click.option("--revision", type=click.IntRange(0), metavar="NUMBER", help="As it was after that revision.")
@click.option(
    "-o", "--output", "form", type=click.Choice(("yaml", "json")), default="yaml", show_default=True, help="Form."
)
@click.pass_obj
def command(client: Client, kind: str, name: str, revision: int | None, form: str) -> int:
    """Print documents of everything, of a KIND, or of one of it: shop/web1, or server/shop/web1 in one word.

    Applied where they are from they change nothing. Secrets, epochs and MACs are no documents and not in them.
    """
    if not name and "/" in kind:
        kind, _, name = kind.partition("/")
    asked = {"kind": kind_of(kind).name} if kind else {}
    asked |= {"name": name} if name else {}
    exported = client.get("export", **asked, **({} if revision is None else {"revision": revision}))
    documents = exported["documents"]
    if form == "json":
        emit_data(documents, form)
    else:
        for number, document in enumerate(documents):
            if number:
                click.echo("---")
            emit_data(document, form)
    for left_out in exported["left_out"]:
        say(f"Left out: {left_out['kind']} {left_out['name']}: {left_out['why']}.")
    return 0
