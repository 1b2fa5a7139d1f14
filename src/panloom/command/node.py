"""``panloom node approve|install|release|power``: let machines into the pool, make servers of them, switch them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from panloom.command import completing
from panloom.command.output import emit, say, suggest
from panloom.control.client import Client
from panloom.errors import PanloomError
from panloom.model import nodeset

ACTIONS = ("on", "off", "reset", "kill")
_AT_ONCE = 16


@click.group("node", short_help="Approve, release or switch machines.")
def command() -> None:
    """Approve a discovered machine, release one from quarantine, or switch machines on and off."""


@command.command("approve")
@click.argument("node", metavar="NODE", shell_complete=completing.nodes)
@click.option("--rule", metavar="RULE", shell_complete=completing.rules, help="Make it what this rule says.")
@click.option("--spare", is_flag=True, help="Make it a spare, whatever rule fits.")
@click.pass_obj
def approve(client: Client, node: str, rule: str | None, *, spare: bool) -> int:
    """Take a discovered machine, by its MAC, in: by the rule that fits, or as a spare where none does."""
    if rule and spare:
        raise click.UsageError("a machine becomes what a rule says, or a spare; write one of --rule and --spare")
    made = client.post("nodes", node, "approve", body={"rule": "" if spare else rule})
    emit(f"{made['node']}: becomes {made['server']}" if made["server"] else f"{made['node']}: a spare")
    suggest("See the pool", "panloom get nodes")
    return 0


@command.command("install")
@click.argument("node", metavar="NODE", shell_complete=completing.nodes)
@click.option("--image", metavar="IMAGE", required=True, help="What its disk is a clone of: web, web@3, web@stable.")
@click.option("--rule", metavar="RULE", shell_complete=completing.rules, help="Whose PAN, LANs and disk it gets.")
@click.pass_obj
def install(client: Client, node: str, image: str, rule: str | None) -> int:
    """Make a discovered machine, by its MAC, a server from an image, all else as the rule says that fits."""
    made = client.post("nodes", node, "approve", body={"rule": rule, "image": image})
    emit(f"{made['node']}: becomes {made['server']}")
    suggest("Follow it", f"panloom show node {made['node']}")
    return 0


@command.command("inventory")
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, exists=True, path_type=Path))
@click.option(
    "--packages", metavar="TREE", type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Where Debian's kernel and busybox-static are unpacked.",
)  # fmt: skip
def inventory(directory: Path, packages: Path | None) -> int:
    """Put into DIR, the --files of the control process, a small Linux by which new machines tell what they have."""
    from panloom.doctor.packages import unpacked_tree
    from panloom.lab.inventory import make_inventory

    for made in make_inventory(packages or unpacked_tree() or Path("/"), directory):
        emit(str(made))
    suggest("See new machines", "panloom get nodes -o wide")
    return 0


@command.command("release")
@click.argument("node", metavar="NODE", shell_complete=completing.nodes)
@click.pass_obj
def release(client: Client, node: str) -> int:
    """End a node's quarantine: it is a spare again."""
    client.post("nodes", node, "release")
    emit(f"{node}: released")
    suggest("See the pool", "panloom get nodes")
    return 0


@command.command("power")
@click.argument("action", type=click.Choice(ACTIONS))
@click.argument("nodes", metavar="NODES...", nargs=-1, required=True, shell_complete=completing.nodes)
@click.pass_obj
def power(client: Client, action: str, nodes: tuple[str, ...]) -> int:
    """Switch NODES on or off, reset them, or kill them: n1, n[1-4], n[01-16,20].

    `kill` pulls the plug of a machine of a lab. Exit code 1 when one of them could not be switched; the others were.
    """
    try:
        names = list(dict.fromkeys(name for text in nodes for name in nodeset.expand(text)))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="NODES") from error

    def one(name: str) -> str | PanloomError:
        try:
            return str(client.post("nodes", name, "power", body={"action": action})["power"])
        except PanloomError as error:
            return error

    failures: dict[str, list[str]] = {}
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        for name, outcome in zip(names, pool.map(one, names), strict=True):
            if isinstance(outcome, PanloomError):
                if len(names) == 1:
                    raise outcome
                failures.setdefault(str(outcome).removeprefix(f"node {name}: "), []).append(name)
            else:
                emit(f"{name}: power {outcome}")
    for why, failed in failures.items():
        say(f"{', '.join(failed)}: {why}")
    if not failures:
        boots = action in ("on", "reset")
        suggest(
            "See how it boots" if boots else "See them", f"panloom {f'show node {names[0]}' if boots else 'get nodes'}"
        )
    return 1 if failures else 0
