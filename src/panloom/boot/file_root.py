"""The one directory whose files TFTP and HTTP hand out, and no way out of it."""

from pathlib import Path

_LONGEST_NAME = 255


class FileRoot:
    """Files below a directory; with no directory there is no file."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory.resolve() if directory is not None else None

    def __contains__(self, name: object) -> bool:
        """Return whether there is a file of that name."""
        return isinstance(name, str) and self.find(name) is not None

    def find(self, name: str) -> Path | None:
        """Return the regular file that ``name`` means, None for anything else.

        A name is relative, of plain components joined by ``/``; links are followed as long as they stay below the
        directory.
        """
        parts = name.split("/")
        if self._directory is None or len(name) > _LONGEST_NAME or "\0" in name or "\\" in name:
            return None
        if any(part in ("", ".", "..") for part in parts):
            return None
        try:
            path = self._directory.joinpath(*parts).resolve(strict=True)
            return path if path.is_relative_to(self._directory) and path.is_file() else None
        except (OSError, RuntimeError, UnicodeEncodeError):  # RuntimeError: a loop of links, before Python 3.13
            return None
