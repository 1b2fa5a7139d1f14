"""``panloom image key``, ``sign`` and ``verify``: who says that a version of an image is this disk.

image key release.key              a new private key; the public one goes into the platform's `images: {keys: …}`
image sign web@2 --key release.key  the digest that the store has of web@2 is signed here and noted there
image verify web@2                 by which trusted keys it is signed
"""

import os
from pathlib import Path

import click

from panloom.command import completing
from panloom.command.output import emit, suggest
from panloom.control.client import Client
from panloom.errors import ConfigError, RefusedError

MAX_KEY_OCTETS = 1 << 16


@click.command("key", short_help="Make a key to sign images with.")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
def key(file: Path) -> int:
    """Write a new private key of Ed25519 to FILE, which must not be there, and tell its public key.

    FILE has no password: keep it off the control node, where only who may read it can sign.
    """
    from panloom.model.image_signatures import new_key

    private, public = new_key()
    try:
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(opened, "wb") as written:
            written.write(private)
    except OSError as error:
        raise ConfigError(str(file), f"cannot be made: {error.strerror}") from error
    emit(public)
    suggest("Trust it: write it into the platform document", f"images: {{keys: {{{file.stem}: {public}}}}}")
    return 0


@click.command("sign", short_help="Sign a version of an image.")
@click.argument("image", metavar="NAME@VERSION", shell_complete=completing.images)
@click.option("--key", "file", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The private key.")
@click.option("--password", help="Of the key's file, where it has one; better by PANLOOM_KEY_PASSWORD.",
              envvar="PANLOOM_KEY_PASSWORD")  # fmt: skip
@click.pass_obj
def sign(client: Client, image: str, *, file: Path, password: str | None) -> int:
    """Sign NAME@VERSION as it is in the store: its digest, under its name and version.

    The key is read here and never leaves this command. FILE is PEM; an earlier signature by the same key is replaced.
    """
    from panloom.model import image_signatures

    try:
        pem = file.read_bytes()[:MAX_KEY_OCTETS]
    except OSError as error:
        raise ConfigError(str(file), f"cannot be read: {error.strerror}") from error
    row = client.get("resources", "image", image)
    if row["sha256"] is None:
        raise ConfigError(f"image {image}", "is not in the store yet, and has no digest that could be signed")
    name, _, version = image.partition("@")
    statement = image_signatures.Statement(name, int(version), row["octets"], row["sha256"])
    word = password.encode() if password is not None else None
    signature, public = image_signatures.sign(statement, pem, str(file), word)
    done = client.post("images", image, "signatures", body={"signature": signature, "public_key": public})
    emit(signature)
    if done["trusted"]:
        emit(f"{image} is signed by {done['trusted']}.")
    else:
        suggest("No platform key yet: trust it by", f"images: {{keys: {{{file.stem}: {public}}}}}")
    return 0


@click.command("verify", short_help="Tell by which trusted keys an image is signed.")
@click.argument("image", metavar="NAME@VERSION", shell_complete=completing.images)
@click.pass_obj
def verify(client: Client, image: str) -> int:
    """Tell by which keys of the platform document NAME@VERSION is signed; an error if by none, or badly."""
    row = client.get("resources", "image", image)
    if row["signed"] is None:
        raise ConfigError(f"image {image}", "is not in the store yet")
    if row["signed"] in ("no", "bad"):
        raise RefusedError(row["distrusted"] or f"no trusted key signed {image}; see: panloom image sign --help")
    emit(f"{image} (SHA-256 {row['sha256']}) is signed by {row['signed']}.")
    return 0
