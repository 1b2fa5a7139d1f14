"""``panloom schema``: the JSON Schema of documents, for editors."""

import json

import click


@click.command("schema", short_help="Print the JSON Schema of documents, for editors.")
def command() -> int:
    """Print the JSON Schema of documents.

    An editor with a YAML language server completes and checks a file whose first line is
    "# yaml-language-server: $schema=PATH", PATH being where this was written to.
    """
    from panloom.model.schema import schema  # 150 ms that only this command needs

    click.echo(json.dumps(schema(), indent=2, ensure_ascii=False))
    return 0
