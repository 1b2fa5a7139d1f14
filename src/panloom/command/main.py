"""``panloom``: the global options, and which module each sub-command lives in.

Exit codes: 0 done, or no changes; 1 an error, said in one line on stderr; 2 plan and diff found changes.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from panloom.errors import ConfigError, ConfigErrors, PanloomError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

DEFAULT_SOCKET = "/run/panloom/panloom.sock"

_COMMANDS = {
    "plan": ("panloom.command.plan", "Show what applying files would change."),
    "apply": ("panloom.command.apply", "Make files what is wanted."),
    "diff": ("panloom.command.diff", "Show field by field what applying files would change."),
    "get": ("panloom.command.get", "List resources: servers, nodes, images, pans, lans, volumes, snapshots, events."),
    "show": ("panloom.command.show", "Show one resource with everything known of it."),
    "history": ("panloom.command.history", "Show who changed the documents, when, and what."),
    "rollback": ("panloom.command.rollback", "Bring back documents as they were after a revision."),
    "export": ("panloom.command.export", "Print what is wanted, as documents that apply again."),
    "delete": ("panloom.command.delete", "Take one resource out of what is wanted."),
    "failover": ("panloom.command.failover", "Move a server to another node now."),
    "snapshot": ("panloom.command.snapshot", "Freeze what a volume holds now, under a name."),
    "reopen": ("panloom.command.reopen", "Open a volume anew that a failed sync took offline."),
    "flatten": ("panloom.command.flatten", "Make a volume independent of its image and snapshots."),
    "image": ("panloom.command.image", "Bring golden disks in."),
    "node": ("panloom.command.node", "Approve, release or switch machines."),
    "console": ("panloom.command.console", "Look at a node's serial line, and type there."),
    "events": ("panloom.command.events", "Show what happened; -f to follow."),
    "status": ("panloom.command.status", "Show how the platform is."),
    "personality": ("panloom.command.personality", "Export what makes a machine be a server."),
    "check": ("panloom.command.check", "Look what would go wrong on this site."),
    "doctor": ("panloom.command.doctor", "Look what this machine lacks, and what brings it."),
    "completion": ("panloom.command.completion", "Print what makes a shell complete commands, kinds and names."),
    "schema": ("panloom.command.schema", "Print the JSON Schema of documents, for editors."),
    "control": ("panloom.command.control", "Run the control process."),
    "storage": ("panloom.command.storage", "Run the storage process."),
    "agent": ("panloom.command.agent", "Say that this server lives, and what it is."),
    "demo": ("panloom.command.demo", "Show the main job on this machine, in a laboratory of its own."),
    "lab": ("panloom.command.lab", "Keep a whole chassis on this machine, in the background."),
    "target": ("panloom.command.target", "Serve files as disks over iSCSI, without a control node."),
    "version": ("panloom.command.version", "Show the version."),
}


class _Commands(click.Group):
    """Imports a sub-command when it is named, and only then."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem

        words = [
            CompletionItem(name, help=text) for name, (_, text) in _COMMANDS.items() if name.startswith(incomplete)
        ]
        return words or click.Command.shell_complete(self, ctx, incomplete)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(_COMMANDS[cmd_name][0])
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from panloom.command.output import nearest

            ctx.fail(f"there is no command {args[0]!r}; {nearest(args[0], _COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--socket",
    "socket_path",
    envvar="PANLOOM_SOCKET",
    default=DEFAULT_SOCKET,
    show_default=True,
    show_envvar=True,
    metavar="PATH",
    help="The control process's socket.",
)
@click.pass_context
def panloom(context: click.Context, socket_path: str) -> None:
    """Diskless machines become servers whose whole identity is a record.

    Begin with `panloom demo`, or with `panloom plan FILE`.
    """
    from panloom.control.client import Client  # http.client, which --help and version need not wait for

    context.obj = Client(socket_path)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    if "_PANLOOM_COMPLETE" in os.environ:
        importlib.import_module("panloom.command.completion")  # a shell asks: bash in a form of our own
    try:
        code = panloom.main(args=arguments, prog_name="panloom", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        code = 130  # as a shell shows SIGINT
    except click.UsageError as error:
        context = error.ctx.command_path if error.ctx else "panloom"
        click.echo(f"{error.format_message()}\nSee: {context} --help", err=True)
        code = 1
    except click.ClickException as error:
        click.echo(error.format_message(), err=True)
        code = 1
    except ConfigErrors as errors:
        for one in errors.errors:
            _say_config(one)
        count = len(errors.errors)
        click.echo(f"{count} error{'s' if count > 1 else ''}, nothing was changed.", err=True)
        code = 1
    except PanloomError as error:
        click.echo(str(error), err=True)
        code = 1
    except BrokenPipeError:
        # The reader of our output has gone, as in `panloom events | head`; nothing is left to say, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _say_config(error: ConfigError) -> None:
    click.echo(f"{click.style(error.where, bold=True)}: {error.why}" if error.where else error.why, err=True)
