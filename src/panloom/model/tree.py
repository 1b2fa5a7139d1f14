"""YAML text to a tree whose every key and value knows its line and column.

PyYAML's C parser delivers events; they are folded here, without recursion on the input, into three kinds of node::

    Mapping   entries (key, its position, value), keys unique
    Sequence  items
    Scalar    the text as written, or None where nothing, ``~`` or ``null`` was written

A scalar stays text until a field says what it is: ``52:54:00:12:34:56`` is no number in base 60, a machine named
``no`` is not False, and ``1.10`` keeps its zero.  Explicit tags are refused, as are merge keys (YAML 1.2.2 has none).
Aliases are allowed and bounded: each use counts as the nodes it stands for.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

MAX_DEPTH = 32
MAX_NODES = 200_000
_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")  # YAML 1.2.2 section 10.3.2
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser is an option of PyYAML's own build


class Position(NamedTuple):
    """Line and column, both from 1, in characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value as written; ``text`` is None for null."""

    text: str | None
    at: Position


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    items: "tuple[Tree, ...]"
    at: Position


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and its value; ``written`` is the key in the text where a node set has been expanded since."""

    key: str
    written: str
    at: Position
    value: "Tree"


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and values in the order of the text."""

    entries: tuple[Entry, ...]
    at: Position

    def get(self, key: str) -> Entry | None:
        """Return the entry of that key."""
        return next((entry for entry in self.entries if entry.key == key), None)


Tree = Scalar | Sequence | Mapping


class TextError(Exception):
    """The text is no YAML, or more than is read; ``at`` says where."""

    def __init__(self, at: Position, why: str) -> None:
        super().__init__(why)
        self.at = at
        self.why = why


class Text:
    """The documents of one file; iterate over it once.

    Duplicate keys do not end the reading: the first one counts, the others are in ``duplicates``.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self.duplicates: list[TextError] = []

    def __iter__(self) -> Iterator[Tree]:
        """Yield the documents; ``TextError`` at the first place that cannot be read."""
        try:
            yield from self._events(yaml.parse(self._text, Loader=_LOADER))
        except yaml.MarkedYAMLError as error:
            raise _syntax_error(error, self._text) from error
        except yaml.reader.ReaderError as error:
            raise TextError(
                _position_of(self._text, error.position), "not a character of YAML; is this a text file?"
            ) from error
        except UnicodeEncodeError as error:
            raise TextError(_position_of(self._text, error.start), "not a character; is this a text file?") from error

    def _events(self, events: Iterator[yaml.Event]) -> Iterator[Tree]:
        fold = _Fold(self.duplicates)
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                fold = _Fold(self.duplicates)
            elif isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
                document = fold.receive(event)
                if document is not None:
                    yield document


class _Open:
    """A mapping or sequence whose end has not come yet."""

    def __init__(self, event: yaml.CollectionStartEvent) -> None:
        self.at = _at(event)
        self.anchor: str | None = event.anchor
        self.is_mapping = isinstance(event, yaml.MappingStartEvent)
        self.items: list[Tree] = []
        self.entries: dict[str, Entry] = {}
        self.key: Scalar | None = None
        self.size = 1

    def close(self) -> Tree:
        return (
            Mapping(tuple(self.entries.values()), self.at) if self.is_mapping else Sequence(tuple(self.items), self.at)
        )


class _Fold:
    """Events of one document to its tree, on a stack of our own."""

    def __init__(self, duplicates: list[TextError]) -> None:
        self._duplicates = duplicates
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Tree, int]] = {}
        self._nodes = 0

    def receive(self, event: yaml.Event) -> Tree | None:
        """Take one event; return the tree when it is whole."""
        at = _at(event)
        match event:
            case yaml.AliasEvent():
                if event.anchor not in self._anchors:
                    raise TextError(at, f"*{event.anchor} has no &{event.anchor} before it")
                return self._add(*self._anchors[event.anchor], at)
            case yaml.ScalarEvent():
                _refuse_tag(event)
                null = event.implicit[0] and _NULL.match(event.value)  # implicit[0]: plain, not quoted
                scalar = Scalar(None if null else event.value, at)
                if event.anchor:
                    self._anchors[event.anchor] = scalar, 1
                return self._add(scalar, 1, at)
            case yaml.CollectionStartEvent():
                _refuse_tag(event)
                if len(self._open) == MAX_DEPTH:
                    raise TextError(at, f"nested more than {MAX_DEPTH} deep; no document needs that")
                if self._open and self._open[-1].is_mapping and self._open[-1].key is None:
                    raise TextError(
                        at, "a key must be a word, not a list or mapping; quote it if it begins with [ or {"
                    )
                self._open.append(_Open(event))
                return None
        closed = self._open.pop()
        tree = closed.close()
        if closed.anchor:
            self._anchors[closed.anchor] = tree, closed.size
        return self._add(tree, closed.size, at)

    def _add(self, tree: Tree, size: int, at: Position) -> Tree | None:
        self._nodes += 1
        if self._nodes > MAX_NODES or size > MAX_NODES:
            raise TextError(at, f"more than {MAX_NODES} values, aliases counted as what they stand for")
        if not self._open:
            return tree
        parent = self._open[-1]
        parent.size += size
        if not parent.is_mapping:
            parent.items.append(tree)
        elif parent.key is None:
            parent.key = _key(tree, at)
        else:
            self._enter(parent, parent.key, tree)
            parent.key = None
        return None

    def _enter(self, parent: _Open, key: Scalar, value: Tree) -> None:
        name = key.text or ""
        first = parent.entries.get(name)
        if first is None:
            parent.entries[name] = Entry(name, name, key.at, value)
        else:
            why = f"the key `{name}` stands here again, first at {first.at.line}:{first.at.column}; keep one of them"
            self._duplicates.append(TextError(key.at, why))


def _key(tree: Tree, at: Position) -> Scalar:
    if not isinstance(tree, Scalar):
        raise TextError(at, "a key must be a word, not a list or mapping")
    if not tree.text:
        raise TextError(at, "a key is missing before the colon")
    if tree.text == "<<":
        raise TextError(at, "merge keys are not read (YAML 1.2 has none); write the keys out")
    return Scalar(tree.text, at)


def _refuse_tag(event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
    if event.tag is not None:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        raise TextError(_at(event), f"the tag {tag} is not read; remove it, each field knows its type")


def _at(event: yaml.Event) -> Position:
    return _position(event.start_mark)


def _position(mark: Any) -> Position:  # noqa: ANN401 -- the C parser's mark and the Python parser's share no type
    return Position(mark.line + 1, mark.column + 1)


def _position_of(text: str, index: int) -> Position:
    before = text[:index]
    return Position(before.count("\n") + 1, len(before) - before.rfind("\n"))


def _syntax_error(error: yaml.MarkedYAMLError, text: str) -> TextError:
    mark = error.problem_mark or error.context_mark
    why = error.problem or "no YAML"
    if "cannot start any token" in why:
        why = "a tab or another character that cannot begin a value; indent with spaces"
    elif "mapping values are not allowed" in why:
        why = "a second `: ` in one line, or wrong indentation; quote a value that contains a colon and a space"
    elif "expected ',' or" in why and mark and text[mark.index : mark.index + 1] == "[":
        why = "quote a value with brackets in it when it stands inside { } or [ ]"
    if error.context and error.context_mark:
        begun = f"line {error.context_mark.line + 1}, column {error.context_mark.column + 1}"
        why = f"{why} ({error.context}, begun at {begun})"
    return TextError(_position(mark) if mark else Position(1, 1), why)
