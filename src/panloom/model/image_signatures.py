"""Signatures of images: who says that a version of an image is this disk (Ed25519, RFC 8032).

    statement    the lines ``panloom image 1``, ``name: web``, ``version: 2``, ``octets: 1048576``, ``sha256: 6b86…``
    signature    KEY:BASE64      KEY is 16 hexadecimal digits, the beginning of the SHA-256 of the public key
    public key   BASE64 of its 32 octets, as the platform document has it

What is signed is the disk's digest under its name and version, so that a signature says nothing of another version.
An image's digest is of the octets that are cloned, however a file packs them.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from panloom.errors import ConfigError

KEY_ID_DIGITS = 16


class Statement(NamedTuple):
    """What is signed."""

    name: str
    version: int
    octets: int
    sha256: str

    def encode(self) -> bytes:
        """Return the octets that are signed."""
        lines = ("panloom image 1", *(f"{field}: {value}" for field, value in self._asdict().items()))
        return "".join(f"{line}\n" for line in lines).encode()


class Verdict(NamedTuple):
    """Which trusted keys signed an image, by their names; ``bad`` says what is wrong with a signature of one."""

    by: tuple[str, ...] = ()
    bad: str = ""


def key_id(public_key: str) -> str:
    """Return by what a signature says which key made it."""
    return hashlib.sha256(base64.b64decode(public_key)).hexdigest()[:KEY_ID_DIGITS]


def new_key() -> tuple[bytes, str]:
    """Return a new private key, PEM of PKCS #8 without a password, and the public key that belongs to it."""
    key = Ed25519PrivateKey.generate()
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()), _public(key)


def sign(statement: Statement, pem: bytes, where: str, password: bytes | None = None) -> tuple[str, str]:
    """Return a signature and the public key that it is checked by; ConfigError if that is no private key of Ed25519."""
    try:
        key = serialization.load_pem_private_key(pem, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(where, f"is no private key that can be read: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(where, "is no key of Ed25519; make one: panloom image key FILE")
    public = _public(key)
    return f"{key_id(public)}:{base64.b64encode(key.sign(statement.encode())).decode()}", public


def verify(statement: Statement, signatures: Iterable[str], keys: Mapping[str, str]) -> Verdict:
    """Judge an image by its signatures and the trusted public keys by name; those of other keys mean nothing."""
    names = {key_id(public): (name, public) for name, public in keys.items()}
    by: list[str] = []
    for signature in signatures:
        made_by, _, text = signature.partition(":")
        if made_by not in names:
            continue
        name, public = names[made_by]
        try:
            found = base64.b64decode(text, validate=True)
            Ed25519PublicKey.from_public_bytes(base64.b64decode(public)).verify(found, statement.encode())
        except (InvalidSignature, ValueError):
            label, digest = f"{statement.name}@{statement.version}", statement.sha256
            return Verdict(bad=f"the signature of {label} by key {name} is not of this disk (SHA-256 {digest})")
        by.append(name)
    return Verdict(tuple(dict.fromkeys(by)))


def _public(key: Ed25519PrivateKey) -> str:
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    return base64.b64encode(key.public_key().public_bytes(*raw)).decode()
