"""``panloom completion``: the script that makes a shell complete commands, kinds and names.

Click's own scripts, but for bash: bash cuts words at ``@`` and ``:``, which are in the names of images and in MACs, so
there the line itself is sent, and what stands before the cut is taken off the answers.
"""

import os

import click
from click.shell_completion import BashComplete, add_completion_class, get_completion_class, split_arg_string

from panloom.command.output import suggest

VARIABLE = "_PANLOOM_COMPLETE"
_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' answer completion type value
    local line=${COMP_LINE:0:COMP_POINT} cuts=${COMP_WORDBREAKS//[^@:]/}
    local word=${line##*[[:space:]]} cut=
    [[ -z $cuts ]] || cut=${word%%"${word##*[$cuts]}"}
    answer=$(COMP_LINE=$line %(complete_var)s=bash_complete "$1")
    for completion in $answer; do
        type=${completion%%%%,*} value=${completion#*,}
        case $type in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            plain) COMPREPLY+=("${value#"$cut"}") ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
_WHERE = {
    "bash": "echo 'eval \"$(panloom completion bash)\"' >> ~/.bashrc",
    "zsh": "echo 'eval \"$(panloom completion zsh)\"' >> ~/.zshrc",
    "fish": "panloom completion fish > ~/.config/fish/completions/panloom.fish",
}


class _WholeWordsBash(BashComplete):
    """Completes words as they stand in the line."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)
        if not line or line[-1].isspace():
            words.append("")
        return words[1:-1], words[-1]


add_completion_class(_WholeWordsBash)


@click.command("completion", short_help="Print what makes a shell complete commands, kinds and names.")
@click.argument("shell", type=click.Choice(tuple(_WHERE)))
@click.pass_context
def command(context: click.Context, shell: str) -> int:
    """Print the script that makes SHELL complete commands, kinds, and the names of what is there."""
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"there is no completion for {shell}")
    click.echo(found(context.find_root().command, {}, "panloom", VARIABLE).source())
    suggest("Have it in every shell", _WHERE[shell])
    return 0
