"""What may be written of images: where one comes from, which may be used, when a server is well with another.

kind: Image          ImageSpec
kind: Platform       images: {unsigned, keys}                   ImagePolicySpec
kind: Server         health: {tcp, command, within, settle}     HealthSpec
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from panloom.model import resources
from panloom.model.fields import Count, Donor, Duration, Note, Path, Port, PublicKey, Sha256, Signature, Tag, Word
from panloom.model.written import Spec, Written


class ImagePolicySpec(Written):
    """Which images disks may be made of."""

    unsigned: Literal["allow", "refuse"] = "allow"
    """Whether one may that no key below signed; one with a bad signature of such a key never may"""
    keys: dict[Word, PublicKey] = Field({}, examples=["{release: 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=}"])
    """Trusted public keys of Ed25519, by names for them."""


class ImageSpec(Spec):
    """A golden disk."""

    version: Count = 1
    source: Path | None = Field(None, examples=["/srv/images/web.img"])
    """A file on the control node; or else `capture:`."""
    capture: Donor | None = Field(None, examples=["shop/web1"])
    """A volume, a snapshot or a unit of another target, of which it becomes a copy."""
    user: Word | None = None
    secret_file: Path | None = None
    """What that target's CHAP asks for."""
    format: resources.DiskFormat | None = None
    """Nothing: what its first octets say."""
    sha256: Sha256 | None = None
    """Of the disk, however the file packs it: anything else is not copied in."""
    tags: tuple[Tag, ...] = Field((), examples=["[stable]"])
    """Words for it in the place of a number: NAME@TAG is the newest version that carries the tag."""
    provenance: dict[Word, Note] = Field({}, examples=["{recipe: web.yaml}"])
    """Where it comes from, in its maker's words."""
    signatures: tuple[Signature, ...] = ()
    """What `panloom image sign` told."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.source is None) == (self.capture is None):
            raise ValueError("write either `source:`, a file, or `capture:`, a disk that it is copied from")
        if (self.user is None) != (self.secret_file is None):
            raise ValueError("`user:` and `secret_file:` come together")
        if self.user is not None and not (self.capture or "").startswith("iscsi:"):
            raise ValueError("`user:` is for another target; nothing else asks for one")
        return self

    def resource(self, pan: str, name: str) -> resources.Image:  # noqa: ARG002
        """Return what it means."""
        return resources.Image(
            name=name,
            version=self.version,
            source=self.source or "",
            capture=self.capture or "",
            user=self.user,
            secret_file=self.secret_file,
            format=self.format,
            sha256=self.sha256,
            tags=self.tags,
            provenance=self.provenance,
            signatures=self.signatures,
        )


class HealthSpec(Written):
    """When the server counts as well after `panloom image update` gave it a new disk."""

    tcp: Port | None = None
    """Its address must accept a connection at this port."""
    command: Path | None = Field(None, examples=["/usr/local/bin/check-web"])
    """A program on the control node that must end with 0; it is told PAN/SERVER, address and node."""
    within: Duration = 180.0
    """How long it has for that; then it gets its old disk back."""
    settle: Duration = 5.0
    """How long it must be up without a break."""

    @property
    def meaning(self) -> resources.Health:
        """Return what it means."""
        return resources.Health(
            tcp=self.tcp, command=self.command, within_seconds=self.within, settle_seconds=self.settle
        )
