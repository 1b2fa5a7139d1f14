"""Where this machine's own apt takes a suite of Debian from."""

import subprocess

import msgspec

from panloom.errors import UnavailableError

_FORMAT = "$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)"


class Archive(msgspec.Struct, frozen=True):
    """An archive: its address, a suite in it, and one of its components."""

    uri: str
    suite: str
    component: str

    def line(self) -> str:
        """Return the line of a sources.list."""
        return f"deb {self.uri} {self.suite} {self.component}"


def archives(suite: str, mirror: str | None) -> tuple[Archive, ...]:
    """Return where a suite comes from: the archive itself first, then its updates; only ``main``.

    ``mirror`` None: this machine's own sources say so.  UnavailableError if they do not know the suite.
    """
    if mirror:
        return (Archive(mirror, suite, "main"),)
    try:
        done = subprocess.run(
            ("apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages"),
            check=True,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        raise UnavailableError("there is no apt-get here; write `mirror:` in the recipe") from None
    except subprocess.CalledProcessError as error:
        raise UnavailableError(f"apt-get cannot say where packages come from: {error.stderr.strip()}") from error
    return chosen(suite, done.stdout)


def chosen(suite: str, told: str) -> tuple[Archive, ...]:
    """Return the archives of a suite among those that apt has told of, one a line."""
    all_of_them = [Archive(*line.split("\t")) for line in told.splitlines() if line.count("\t") == 2]
    main = [archive for archive in all_of_them if archive.component == "main"]
    first = [archive for archive in main if archive.suite == suite][:1]
    if not first:
        known = sorted({archive.suite for archive in main}) or ["none"]
        raise UnavailableError(f"apt here does not know the suite {suite}, only {', '.join(known)}; write `mirror:`")
    newer = (f"{suite}-updates", f"{suite}-security", f"{suite}/updates")
    return tuple(dict.fromkeys(first + [archive for archive in main if archive.suite in newer]))
