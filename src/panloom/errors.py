"""Who is at fault: one small tree of exceptions.

    PanloomError
    ├── PeerError            something at the far end of a wire: drop or refuse it, one info line, never a traceback
    │   ├── MalformedError   its octets are not what the standard says
    │   └── RefusedError     well-formed, but not allowed (unknown, unauthenticated, out of order)
    ├── ConfigError          what a person wrote: where it stands and how to mend it
    ├── ConfigErrors         several of them at once, in the order of the text
    ├── ConflictError        somebody else changed it first: read again and decide again
    ├── KernelError          the kernel refused or differs from what was asked: reconcile retries
    └── UnavailableError     a part of Panloom, or of the host, that does not answer or is missing

A refusal that has a wire form (sense data, Login status, TFTP ERROR) is a returned value, not an exception.
"""

from collections.abc import Iterable


class PanloomError(Exception):
    """Anything Panloom raises on purpose."""


class PeerError(PanloomError):
    """The peer is at fault; the connection or packet ends, nobody else notices."""


class MalformedError(PeerError):
    """Octets that are not what the standard says."""


class RefusedError(PeerError):
    """A well-formed request that is not allowed."""


class ConfigError(PanloomError):
    """What a person wrote is wrong.

    ``where`` is ``file:line:column: path`` or the command's option; ``why`` says what is wrong and how to mend it.
    """

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why


class ConfigErrors(PanloomError):
    """Everything that is wrong in what a person wrote, at once; ``errors`` is never empty."""

    def __init__(self, errors: Iterable[ConfigError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(str(error) for error in self.errors))


class ConflictError(PanloomError):
    """A compare-and-set found another revision than expected; nothing was changed."""


class KernelError(PanloomError):
    """The kernel refused a change, or shows another state than was asked for."""


class UnavailableError(PanloomError):
    """A process, store or tool that does not answer or is not there; says which and what brings it back."""
