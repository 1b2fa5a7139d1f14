"""Where a thing stands: from a path inside a document to ``file:line:column: path``.

A finding is kept with its place until all are known; then they leave in the order of the text, each once, although a
node set makes the same mistake once for each of its members.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from panloom.errors import ConfigError, ConfigErrors
from panloom.model.tree import Entry, Mapping, Position, Scalar, Sequence, Tree

Step = str | int
_STEP_END = re.compile(r"[.\[]")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in the text; ``path`` is as written, so a node set shows its brackets."""

    order: int
    at: Position
    file: str = field(compare=False)
    path: str = field(compare=False)

    def __str__(self) -> str:
        stands = f"{self.file}:{self.at.line}:{self.at.column}"
        return f"{stands}: {self.path}" if self.path else stands


@dataclass(frozen=True, slots=True)
class Source:
    """A document, or the part of one that describes one resource."""

    file: str
    order: int
    """The place of the file among those given."""
    tree: Tree
    path: str = ""

    def inside(self, entry: Entry) -> "Source":
        """Return the part below one key."""
        value = entry.value
        if isinstance(value, Scalar) and value.text is None:
            value = Scalar(None, entry.at)
        return Source(self.file, self.order, value, _join(self.path, entry.written))

    def place(self, *steps: Step, missing: str = "") -> Place:
        """Return where the value at the end of ``steps`` stands, or the last step that exists.

        ``missing`` is a key that should be there: it is named in the path, at its parent's place.
        """
        tree, at, path = self.tree, self.tree.at, self.path
        for step in steps:
            match tree, step:
                case Mapping(), str() if entry := tree.get(step):
                    tree, at, path = entry.value, entry.value.at, _join(path, entry.written)
                    if isinstance(tree, Scalar) and tree.text is None:
                        at = entry.at
                case Sequence(), int() if step < len(tree.items):
                    tree, path = tree.items[step], f"{path}[{step}]"
                    at = tree.at
                case _:
                    break
        return Place(self.order, at, self.file, _join(path, missing) if missing else path)

    def key_place(self, *steps: Step) -> Place:
        """Return where the last step, a key, stands itself."""
        parent = self.place(*steps[:-1])
        tree = self.tree
        for step in steps[:-1]:
            match tree, step:
                case Mapping(), str() if entry := tree.get(step):
                    tree = entry.value
                case Sequence(), int() if step < len(tree.items):
                    tree = tree.items[step]
        entry = tree.get(str(steps[-1])) if isinstance(tree, Mapping) else None
        return Place(self.order, entry.at, self.file, _join(parent.path, entry.written)) if entry else parent


class Findings:
    """What is wrong, gathered until everything has been looked at."""

    def __init__(self) -> None:
        self._found: dict[tuple[Place | None, str, str], ConfigError] = {}
        self._around: set[tuple[int, str]] = set()  # file and path of everything that holds a finding

    def __len__(self) -> int:
        return len(self._found)

    def add(self, place: Place | None, why: str, *, where: str = "") -> None:
        """Note one; ``place`` None for what no file of this reading holds, which ``where`` then names."""
        shown = str(place) if place else where
        if place:
            self._around |= {(place.order, place.path[: end.start()]) for end in _STEP_END.finditer(place.path)}
        self._found.setdefault((place, shown, why), ConfigError(shown, why))

    def has_inside(self, place: Place) -> bool:
        """Whether something inside that place is wrong already: what it seems to lack may be misspelt."""
        return (place.order, place.path) in self._around

    def has_at(self, place: Place) -> bool:
        """Whether something is wrong at that very place already."""
        return any(other == place for other, _, _ in self._found)

    def errors(self) -> tuple[ConfigError, ...]:
        """Return them in the order of the text; those without a place come last."""
        ordered = sorted(self._found, key=lambda found: (found[0] is None, found[0] or _NOWHERE))
        return tuple(self._found[found] for found in ordered)

    def raise_if_any(self) -> None:
        """Raise ``ConfigErrors`` unless nothing was found."""
        if self._found:
            raise ConfigErrors(self.errors())


_NOWHERE = Place(0, Position(0, 0), "", "")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that was probably meant, None if none is near."""
    from difflib import get_close_matches  # a cost at start that only a mistake pays

    names = sorted(known)
    inside = [name for name in names if name.endswith(f"/{word}")]  # web1 for shop/web1
    close = inside or get_close_matches(word, names, n=1, cutoff=0.6)
    return close[0] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean `x`?`` or what there is, to stand after a semicolon."""
    names = sorted(set(known))
    close = nearest(word, names)
    if close:
        return f"did you mean `{close}`?"
    shown = ", ".join(names[:12]) + (" …" if len(names) > 12 else "")
    return f"there {'is' if len(names) == 1 else 'are'} {shown}" if names else "there is none yet"


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
