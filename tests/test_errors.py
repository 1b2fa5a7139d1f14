"""The tree of exceptions: who is at fault decides who handles it."""

import pytest

from panloom import errors
from panloom.errors import (
    ConfigError,
    ConflictError,
    KernelError,
    MalformedError,
    PanloomError,
    PeerError,
    RefusedError,
    UnavailableError,
)


@pytest.mark.parametrize(
    ("kind", "parent"),
    [
        (PeerError, PanloomError),
        (MalformedError, PeerError),
        (RefusedError, PeerError),
        (ConfigError, PanloomError),
        (ConflictError, PanloomError),
        (KernelError, PanloomError),
        (UnavailableError, PanloomError),
    ],
)
def test_each_kind_has_its_place(kind, parent):
    assert kind.__bases__ == (parent,)


def test_what_a_person_wrote_is_named_with_its_place():
    error = ConfigError("web.yaml:3:7: servers.web1.image", "there is no image web@2; images are web@1")
    assert str(error) == "web.yaml:3:7: servers.web1.image: there is no image web@2; images are web@1"
    assert (error.where, error.why) == ("web.yaml:3:7: servers.web1.image", "there is no image web@2; images are web@1")


def test_every_exception_is_in_the_picture():
    kinds = [name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)]
    for name in kinds:
        assert name in errors.__doc__
