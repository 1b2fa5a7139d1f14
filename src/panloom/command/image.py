"""``panloom image``: golden disks, brought in as versions that never change.

image import FILE NAME[@VERSION]      a document `kind: Image` is applied, and the file copied in
image update NAME@VERSION             its servers get new disks: ``image_update``
image tag, prune, delete              ``image_versions``
image key, sign, verify               ``image_signing``
"""

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from panloom.command import completing, image_signing, image_update, image_versions
from panloom.command.output import emit, say, suggest
from panloom.control.client import Client
from panloom.errors import ConfigError, ConflictError, UnavailableError
from panloom.model.written import API_VERSION
from panloom.values import format_size

_NAME = re.compile(r"([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:@([1-9][0-9]{0,5}))?")
_POLL_SECONDS = 0.1


@click.group("image", short_help="Bring golden disks in.")
def command() -> None:
    """Bring golden disks in, each as a version that never changes. `panloom get images` lists them."""


tag_option: Callable[[Any], Any] = click.option(
    "--tag", "tags", multiple=True, metavar="TAG", help="NAME@TAG is it from now on; several times."
)


@command.command("capture", short_help="Copy a disk that is in use as a new version of an image.")
@click.argument("donor", metavar="DONOR", shell_complete=completing.volumes)
@click.argument("name", metavar="NAME[@VERSION]")
@click.option("--user", help="CHAP user of the donor's target.")
@click.option(
    "--secret-file", type=click.Path(path_type=Path), metavar="PATH", help="File that holds its secret alone."
)
@tag_option
@click.option("--note", "notes", multiple=True, metavar="KEY=TEXT", help="Say what it is; several times.")
@click.pass_obj
def capture(
    client: Client,
    donor: str,
    name: str,
    *,
    user: str | None,
    secret_file: Path | None,
    notes: tuple[str, ...],
    tags: tuple[str, ...],
) -> int:
    """Copy a donor's disk as an image, as its next version unless NAME@VERSION says which; the donor stays as it is.

    DONOR is PAN/SERVER or PAN/VOLUME, PAN/VOLUME@SNAPSHOT, or iscsi://ADDRESS:PORT/TARGET/LUN on any appliance. Of a
    volume that is written to it is what the disk holds at one moment, as after a power cut.
    """
    document: dict[str, Any] = {
        "capture": donor,
        "user": user,
        "provenance": dict(_note(note) for note in notes) or None,
        "tags": list(tags) or None,
    }
    document["secret_file"] = str(secret_file.absolute()) if secret_file else None
    bring_in(client, name, document)
    return 0


@command.command("build", short_help="Make a Debian that boots from iSCSI, as a recipe says.")
@click.argument("recipe", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--output", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The disk, raw.")
@click.option("--name", metavar="NAME[@VERSION]", help="Bring it in as an image, too.")
@click.option(
    "--archive",
    type=click.Path(path_type=Path),
    default=Path("/var/cache/panloom/archive"),
    show_default=True,
    metavar="DIR",
    help="Keeps downloaded packages.",
)
@click.pass_obj
def build(client: Client, recipe: Path, *, output: Path, name: str | None, archive: Path) -> int:
    """Make a disk with a Debian that boots by BIOS and by UEFI from our iSCSI, as RECIPE says.

    RECIPE is YAML: suite, mirror, size, packages, files, run; an empty one is a plain Debian. Needs root, debootstrap,
    e2fsprogs, dosfstools and mtools. Packages come from where this machine's apt takes its own.
    """
    from panloom.golden.build import build_image

    say(f"{output} is being made; what the tools say is in {output}.log …")
    began = time.monotonic()
    made = build_image(recipe, output, archive=archive)
    emit(f"{output}: {format_size(made.octets)} in {time.monotonic() - began:.0f} s, SHA-256 {made.sha256}")
    if name is not None:
        document = {"source": str(output.absolute()), "format": "raw", "sha256": made.sha256}
        bring_in(client, name, document | {"provenance": made.provenance})
    return 0


@command.command("import", short_help="Copy a disk in as a new version of an image.")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("name", metavar="NAME[@VERSION]")
@click.option(
    "--format",
    "disk_format",
    type=click.Choice(["raw", "qcow2", "vmdk"]),
    help="What the file is; else its first octets say.",
)
@click.option("--sha256", help="What the disk in it must have; anything else is not copied in.")
@tag_option
@click.option("--note", "notes", multiple=True, metavar="KEY=TEXT", help="Say where it comes from; several times.")
@click.pass_obj
def import_file(
    client: Client,
    file: Path,
    name: str,
    *,
    disk_format: str | None,
    sha256: str | None,
    notes: tuple[str, ...],
    tags: tuple[str, ...],
) -> int:
    """Copy the disk in FILE (raw, qcow2, VMDK) in as an image, as its next version unless NAME@VERSION says which.

    FILE is opened on the control node. Once the image is ready the file is not needed any more.
    """
    document: dict[str, Any] = {"source": str(file.absolute()), "format": disk_format, "sha256": sha256}
    document |= {"provenance": dict(_note(note) for note in notes) or None, "tags": list(tags) or None}
    bring_in(client, name, document)
    return 0


for _more in (
    image_update.command,
    image_versions.tag,
    image_versions.prune,
    image_versions.delete,
    image_signing.key,
    image_signing.sign,
    image_signing.verify,
):
    command.add_command(_more)


def bring_in(client: Client, name: str, document: Mapping[str, Any]) -> None:
    """Apply an image's document, without what is None, and wait until the image is ready.

    ConflictError: that version is another disk.  UnavailableError: it cannot be copied in, and why.
    """
    import yaml  # 30 ms that --help need not wait for

    match = _NAME.fullmatch(name)
    if match is None:
        raise ConfigError("NAME", f"{name!r} is no image; write its name, or name@version like web@3")
    images = client.get("resources", "image")["rows"]
    version = int(match[2]) if match[2] else _next_version(match[1], images)
    label = f"{match[1]}@{version}"
    header = {"apiVersion": API_VERSION, "kind": "Image", "name": match[1], "version": version}
    text = yaml.safe_dump(header | {key: value for key, value in document.items() if value is not None})
    client.post("apply", body={"files": [{"name": f"image {label}", "text": text, "origin": ""}], "prune": False})
    row = _wait(client, label, document)
    emit(f"{label}: {format_size(row['octets'])}, from {row['format']}, SHA-256 {row['sha256']}")
    suggest("See all", "panloom get images -o wide")


def _next_version(name: str, images: list[Mapping[str, Any]]) -> int:
    versions = [image["name"].partition("@") for image in images]
    return 1 + max((int(version) for other, _, version in versions if other == name), default=0)


def _wait(client: Client, label: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
    told = False
    while True:
        row: Mapping[str, Any] = client.get("resources", "image", label)
        if row["source"] != (document.get("source") or document.get("capture")):
            raise ConflictError(f"{label} became another disk meanwhile: {row['source']}; do it again")
        if row["state"] == "ready":
            return row
        if row.get("why"):
            raise UnavailableError(f"{row['why']}\nIt is tried again; to give it up: panloom delete image {label}")
        if not told:
            say(f"{label} is being copied in …")
            told = True
        time.sleep(_POLL_SECONDS)


def _note(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--note {text!r} says nothing; write KEY=TEXT, like --note suite=bookworm")
    return key, value
