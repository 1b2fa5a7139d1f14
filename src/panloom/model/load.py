"""Files of documents to flat resources, every mistake noted and none fatal to the rest.

    file ──Text──▶ document ──header──▶ kind, PAN, name ──node set──▶ units ──spec──▶ resource
                                  a PAN's lans and servers are units of their own

A unit that is wrong leaves no resource, only its key among the *suspects*, so that what refers to it is not blamed as
well. One whose only mistake is an unknown key is still looked at without it: its other mistakes show in the same run.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from panloom.model import nodeset
from panloom.model.documents import SPECS, PanSpec, model_at
from panloom.model.fields import name as read_name
from panloom.model.resources import WANT, Image, Member, Pan, Resource
from panloom.model.sources import Findings, Place, Source, Step, did_you_mean, nearest
from panloom.model.tree import Entry, Mapping, Position, Scalar, Sequence, Text, TextError, Tree
from panloom.model.written import API_VERSION, MemberHeader, Spec

MAX_UNITS = 20_000
Model = TypeVar("Model", bound=BaseModel)


class File(NamedTuple):
    """A file as its reader handed it over; ``origin`` tells it from another of the same name, or is empty."""

    name: str
    text: str
    origin: str = ""


@dataclass(slots=True)
class Loaded:
    """What the files say."""

    resources: dict[str, Resource] = field(default_factory=dict)
    """By key."""
    sources: dict[str, Source] = field(default_factory=dict)
    """Where each stands."""
    origins: dict[str, str] = field(default_factory=dict)
    """From which file each comes."""
    files: frozenset[str] = frozenset()
    """The origins of all the files, also of those that describe nothing."""
    suspects: set[str] = field(default_factory=set)
    """Keys of what is described, but wrongly."""
    incomplete: bool = False
    """Whether something could not be read far enough to tell its key."""

    def says(self, key: str, word: str) -> bool:
        """Whether the document of a resource has a word, with whatever value."""
        source = self.sources.get(key)
        return source is not None and isinstance(source.tree, Mapping) and source.tree.get(word) is not None

    @property
    def pans(self) -> frozenset[str]:
        """Names of the PANs that are described: what they no longer hold is to go."""
        return frozenset(resource.name for resource in self.resources.values() if isinstance(resource, Pan))


def load(files: Iterable[File], findings: Findings) -> Loaded:
    """Read all files; what is wrong goes to ``findings``."""
    loaded = Loaded()
    files = tuple(files)
    loaded.files = frozenset(file.origin or file.name for file in files)
    for order, file in enumerate(files):
        _Reader(file, order, loaded, findings).read()
    return loaded


@dataclass(frozen=True, slots=True)
class _Unit:
    kind: str
    pan: str
    name: str
    source: Source
    written: bool  # as a document of its own, with a header


class _Reader:
    """Reads one file into ``loaded``."""

    def __init__(self, file: File, order: int, loaded: Loaded, findings: Findings) -> None:
        self._file = file
        self._order = order
        self._loaded = loaded
        self._findings = findings

    def read(self) -> None:
        text = Text(self._file.text)
        count = 0
        try:
            for tree in text:
                if isinstance(tree, Scalar) and tree.text is None:
                    continue
                count += 1
                self._read_document(Source(self._file.name, self._order, tree))
        except TextError as error:
            self._add_text_error(error)
            count += 1
        for duplicate in text.duplicates:
            self._add_text_error(duplicate)
        if not count:
            start = Source(self._file.name, self._order, Scalar(None, Position(1, 1)))
            why = f"nothing is described here; begin with `apiVersion: {API_VERSION}` and `kind: PAN`"
            self._findings.add(start.place(), why)

    def _add_text_error(self, error: TextError) -> None:
        self._loaded.incomplete = True
        self._findings.add(Source(self._file.name, self._order, Scalar(None, error.at)).place(), error.why)

    def _read_document(self, source: Source) -> None:
        tree = source.tree
        if not isinstance(tree, Mapping):
            self._loaded.incomplete = True
            why = f"a document is a mapping; begin with `apiVersion: {API_VERSION}` and `kind: PAN`"
            self._findings.add(source.place(), why)
            return
        for unit in self._units(source, tree):
            if len(self._loaded.resources) >= MAX_UNITS:
                self._findings.add(unit.source.place(), f"more than {MAX_UNITS} resources; apply them in parts")
                return
            self._read_unit(unit)

    def _units(self, source: Source, tree: Mapping) -> Iterator[_Unit]:
        kind = self._kind(source, tree)
        if kind is None:
            self._loaded.incomplete = True
            return
        header = SPECS[kind][1]
        written = {entry.key: plain(entry.value) for entry in tree.entries if entry.key in header.model_fields}
        head = self._validate(header, written, source) if self._check_name_set(kind, source, written) else None
        self._loaded.incomplete |= head is None
        name = head.name if head else ""
        pan = head.pan if isinstance(head, MemberHeader) else ""
        if kind == "PAN":
            yield _Unit(kind, "", name, source, written=True)
            for entry in tree.entries:
                if entry.key in PanSpec.nested:
                    yield from self._nested(PanSpec.nested[entry.key], name, source.inside(entry))
            return
        names = _text(tree, "name")
        if not nodeset.is_set(names):
            yield _Unit(kind, pan, name, source, written=True)
            return
        for member, body in self._members(names, source):
            yield _Unit(kind, pan, member if head else "", body, written=True)

    def _kind(self, source: Source, tree: Mapping) -> str | None:
        kind = _text(tree, "kind")
        if not kind:
            self._findings.add(source.place(missing="kind"), f"is missing; write one of {', '.join(SPECS)}")
            return None
        if kind in SPECS:
            return kind
        folded = {known.lower(): known for known in SPECS}
        close = f"did you mean `{folded[kind.lower()]}`?" if kind.lower() in folded else did_you_mean(kind, SPECS)
        self._findings.add(source.place("kind"), f"{kind!r} is no kind; {close}")
        return None

    def _check_name_set(self, kind: str, source: Source, written: dict[str, Any]) -> bool:
        """Put the first member in place of a node set, so that the header reads as one name."""
        name = written.get("name")
        if not isinstance(name, str) or not nodeset.is_set(name):
            return True
        try:
            if kind in ("PAN", "Platform", "Image"):
                raise ValueError(f"{name} stands for several; a {kind} is one")
            written["name"] = nodeset.expand(name)[0]
        except ValueError as error:
            self._findings.add(source.place("name"), str(error))
            return False
        return True

    def _nested(self, kind: str, pan: str, source: Source) -> Iterator[_Unit]:
        tree = source.tree
        if isinstance(tree, Scalar) and tree.text is None:
            return
        if not isinstance(tree, Mapping):
            self._loaded.incomplete = True
            self._findings.add(source.place(), "must be a mapping: a name, a colon, and what it is")
            return
        for entry in tree.entries:
            inner = source.inside(entry)
            if not nodeset.is_set(entry.key):
                yield _Unit(kind, pan, self._nested_name(entry.key, source, entry), inner, written=False)
                continue
            for member, body in self._members(entry.key, inner, at=entry):
                yield _Unit(kind, pan, self._nested_name(member, source, entry), body, written=False)

    def _nested_name(self, name: str, source: Source, entry: Entry) -> str:
        try:
            return read_name(name)
        except ValueError as error:
            self._loaded.incomplete = True
            self._findings.add(source.key_place(entry.key), str(error))
            return ""

    def _members(self, name: str, source: Source, *, at: Entry | None = None) -> Iterator[tuple[str, Source]]:
        try:
            members = nodeset.expand(name)
        except ValueError as error:
            self._loaded.incomplete = True
            if at is not None:
                self._findings.add(_beside(source, at), str(error))
            return
        columns = _Columns(name, len(members), source, self._findings)
        for index, member in enumerate(members):
            yield member, Source(source.file, source.order, columns.tree(source.tree, index, ()), source.path)

    def _read_unit(self, unit: _Unit) -> None:
        spec_type, header, resource_type = SPECS[unit.kind]
        if not isinstance(unit.source.tree, Mapping):
            self._loaded.incomplete = True
            self._findings.add(unit.source.place(), "must be a mapping: `key: value` lines, or {key: value}")
            return
        hidden = set(header.model_fields) if unit.written else set()
        hidden |= set(PanSpec.nested) if unit.kind == "PAN" else set()
        body = {entry.key: plain(entry.value) for entry in unit.source.tree.entries if entry.key not in hidden}
        before = len(self._findings)
        spec = self._validate(spec_type, body, unit.source, also=frozenset(hidden))
        if not unit.name:
            return
        if not isinstance(spec, Spec):
            self._loaded.suspects.add(_suspect(resource_type, unit))
            return
        resource = spec.resource(unit.pan, unit.name)
        self._enter(resource, unit, clean=len(self._findings) == before)

    def _enter(self, resource: Resource, unit: _Unit, *, clean: bool) -> None:
        key = resource.key
        first = self._loaded.sources.get(key)
        if first is not None:
            at = first.place()
            why = f"{resource.kind} {resource.label} stands here again, first at {at.file}:{at.at.line}:{at.at.column}"
            self._findings.add(unit.source.place("name") if unit.written else unit.source.place(), why)
            return
        if not clean:
            self._loaded.suspects.add(key)
        self._loaded.resources[key] = resource
        self._loaded.sources[key] = unit.source
        self._loaded.origins[key] = self._file.origin or self._file.name

    def _validate(
        self, model: type[Model], value: dict[str, Any], source: Source, *, also: frozenset[str] = frozenset()
    ) -> Model | None:
        """Return the model; with mistakes, what is left of it without them, None if that makes no sense."""
        try:
            return model.model_validate(value)
        except ValidationError as error:
            mistakes = error.errors(include_url=False)
        for mistake in mistakes:
            steps = tuple(step for step in mistake["loc"] if isinstance(step, int | str))
            if mistake["type"] == "extra_forbidden":
                holder = model_at(model, steps[:-1]) or model
                hint = _hint(str(steps[-1]), holder, also if len(steps) == 1 else frozenset())
                self._findings.add(source.key_place(*steps), f"no such key; {hint}")
            else:
                self._add_mistake(model, source, steps, mistake)
            _remove(value, steps)
        try:
            return model.model_validate(value)
        except ValidationError:
            return None

    def _add_mistake(self, model: type[BaseModel], source: Source, steps: tuple[Step, ...], mistake: Any) -> None:  # noqa: ANN401
        kind, given = mistake["type"], mistake["input"]
        if kind == "missing":
            holder = model_at(model, steps[:-1]) or model
            key = str(steps[-1])
            example = (holder.model_fields[key].examples or ["…"])[0]
            self._findings.add(source.place(*steps[:-1], missing=key), f"is missing; write it like `{key}: {example}`")
        elif kind == "value_error":
            self._findings.add(source.place(*steps), str(mistake["ctx"]["error"]))
        elif kind == "literal_error":
            wanted = mistake["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
            shown = repr(given) if isinstance(given, str) else "this"
            self._findings.add(source.place(*steps), f"{shown} is none of: {wanted}")
        else:
            self._findings.add(source.place(*steps), _SHAPES.get(kind, mistake["msg"]))


_SHAPES = {
    "model_type": "must be a mapping: `key: value` lines, or {key: value}",
    "tuple_type": "must be a list: `- item` lines, or [item, item]",
    "string_type": "must be one value",
}


class _Columns:
    """The brackets in the body of a node set, taken in step with its name."""

    def __init__(self, name: str, count: int, source: Source, findings: Findings) -> None:
        self._name = name
        self._count = count
        self._source = source
        self._findings = findings
        self._expanded: dict[str, tuple[str, ...]] = {}

    def tree(self, tree: Tree, index: int, steps: tuple[Step, ...]) -> Tree:
        """Return the tree of the member of that index."""
        match tree:
            case Scalar(text=str(text)) if "\n" not in text and nodeset.is_set(text):  # a text of several lines is one
                return Scalar(self._values(text, steps)[index], tree.at)
            case Mapping():
                entries = tuple(
                    Entry(entry.key, entry.written, entry.at, self.tree(entry.value, index, (*steps, entry.key)))
                    for entry in tree.entries
                )
                return Mapping(entries, tree.at)
            case Sequence():
                items = tuple(self.tree(item, index, (*steps, at)) for at, item in enumerate(tree.items))
                return Sequence(items, tree.at)
        return tree

    def _values(self, text: str, steps: tuple[Step, ...]) -> tuple[str, ...]:
        if text not in self._expanded:
            self._expanded[text] = (text,) * self._count
            try:
                values = nodeset.expand(text)
                if len(values) != self._count:
                    raise ValueError(f"{text} stands for {len(values)}, but {self._name} for {self._count}")
                self._expanded[text] = values
            except ValueError as error:
                self._findings.add(self._source.place(*steps), str(error))
        return self._expanded[text]


def plain(tree: Tree) -> Any:  # noqa: ANN401 -- dicts, lists, text and None, as deep as the tree
    """Return the tree as dicts, lists, text and None."""
    match tree:
        case Mapping():
            return {entry.key: plain(entry.value) for entry in tree.entries}
        case Sequence():
            return [plain(item) for item in tree.items]
    return tree.text


def _text(tree: Mapping, key: str) -> str:
    entry = tree.get(key)
    return (entry.value.text or "") if entry and isinstance(entry.value, Scalar) else ""


def _suspect(kind: type[Resource], unit: _Unit) -> str:
    """Return the key the unit would have had, for an image as far as its version."""
    if kind is Image:
        return f"{WANT}image/{unit.name}@"
    return f"{WANT}{kind.kind}/{unit.pan}/{unit.name}" if issubclass(kind, Member) else f"{WANT}{kind.kind}/{unit.name}"


def _hint(word: str, holder: type[BaseModel], also: frozenset[str]) -> str:
    """Return what may have been meant: a key of this mapping, or of one inside it."""
    deeper = {
        key: outer for outer in holder.model_fields for key in (model_at(holder, (outer,)) or BaseModel).model_fields
    }
    known = (*holder.model_fields, *also)
    close = nearest(word, deeper)
    if close and not nearest(word, known):
        return f"did you mean `{deeper[close]}: {{{close}: …}}`?"
    return did_you_mean(word, known)


def _remove(value: Any, steps: tuple[Step, ...]) -> None:  # noqa: ANN401 -- what ``plain`` returned
    """Take out what stands there if it has a key; an item of a list stays, as the others would move."""
    for step in steps[:-1]:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int):
            value = value[step]
    if steps and isinstance(value, dict):
        value.pop(steps[-1], None)


def _beside(source: Source, entry: Entry) -> Place:
    return Source(source.file, source.order, Scalar(None, entry.at), source.path).place()
