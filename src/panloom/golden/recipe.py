r"""What a golden disk is made of, as a person writes it::

suite: bookworm
size: 2GiB
packages: [nginx-light]
files: {/etc/motd: "one of many\\n"}
run: ["systemctl disable apt-daily.timer"]
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.functional_validators import AfterValidator, BeforeValidator

from panloom.errors import ConfigError, ConfigErrors
from panloom.values import parse_size

MIN_OCTETS, MAX_OCTETS = 1 << 30, 1 << 40
_MIB = 1 << 20


def _matches(pattern: str, hint: str) -> AfterValidator:
    form = re.compile(pattern)

    def check(text: str) -> str:
        if not form.fullmatch(text):
            raise ValueError(f"{text!r}: write {hint}")
        return text

    return AfterValidator(check)


def _size(value: Any) -> int:  # noqa: ANN401 -- what stood in the file
    octets = parse_size(str(value))
    if octets % _MIB or not MIN_OCTETS <= octets <= MAX_OCTETS:
        raise ValueError(f"{value}: write whole MiB from 1GiB to 1TiB")
    return octets


Package = Annotated[str, _matches(r"[a-z0-9][a-z0-9+.-]+(/[a-z0-9-]+)?", "the name of a Debian package")]
FilePath = Annotated[str, _matches(r"(/[^/\0]+)+", "an absolute path of a file")]


class Recipe(BaseModel):
    """A Debian with systemd, and what is to be in it beside that."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: Annotated[str, _matches(r"[a-z]+", "a suite of Debian, like bookworm")] = "bookworm"
    mirror: Annotated[str, _matches(r"https?://[!-~]+", "http://… or https://…")] | None = None
    """None: the one that this machine's own apt takes the suite from."""
    size: Annotated[int, BeforeValidator(_size)] = 2 << 30
    packages: tuple[Package, ...] = ()
    files: dict[FilePath, str] = Field(default_factory=dict)
    """Path → text; mode 0755 where it begins with ``#!``, else 0644."""
    run: tuple[str, ...] = ()
    """Lines of a shell, run inside as root once all packages are there."""


def load(name: str, text: str) -> Recipe:
    """Read a recipe; ``ConfigErrors`` says all that is wrong in it."""
    try:
        written = yaml.safe_load(text) or {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise ConfigError(where, f"is no YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(name, f"is no YAML: {error}") from error
    if not isinstance(written, dict):
        raise ConfigError(name, "a recipe is a mapping; write `packages: […]` and the like")
    try:
        return Recipe.model_validate(written)
    except ValidationError as error:
        raise ConfigErrors(
            ConfigError(f"{name}: {_path(one['loc'])}", _why(one["msg"])) for one in error.errors()
        ) from error


def _path(steps: Sequence[object]) -> str:
    return ".".join(str(step) for step in steps if step != "[key]")


def _why(message: str) -> str:
    known = ", ".join(Recipe.model_fields)
    message = message.removeprefix("Value error, ")
    return f"there is no such key; there are {known}" if message == "Extra inputs are not permitted" else message
