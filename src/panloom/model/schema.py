"""The published JSON Schema of documents: what an editor needs to complete and to underline.

    kind ──if──▶ header + spec (``documents``), each value by the pattern of its field (``fields``)

Draft 7, as editors read.  It accepts every document that the loader accepts, node sets included, and refuses what can
be told from the form of one document: an unknown key, a key that is missing, a value of the wrong form.  What must fit
together is ``check``'s.  ``docs/schema/v1.json`` is the copy to point an editor at::

    # yaml-language-server: $schema=../docs/schema/v1.json
"""

from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from panloom.model.documents import SPECS, FailoverSpec, PanSpec, inner_model
from panloom.model.fields import Switch, name_schema
from panloom.model.written import API_VERSION, MemberHeader, Spec

Schema = dict[str, Any]
_ALONE = ("Platform", "Image", "PAN")  # the name of one of these never stands for several


def schema() -> Schema:
    """Return the schema of one document."""
    specs: list[type[BaseModel]] = [spec for spec, _, _ in SPECS.values()]
    _, generated = models_json_schema([(spec, "validation") for spec in specs], ref_template="#/definitions/{model}")
    definitions: dict[str, Schema] = generated["$defs"]
    for model in _models(specs):
        _finish(definitions[model.__name__], model)
    _allow_switch(definitions[FailoverSpec.__name__])
    definitions |= {kind: _document(kind, definitions) for kind in SPECS}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Panloom document",
        "description": "One document of a file: something that should exist.",
        "type": "object",
        "properties": {"apiVersion": {"const": API_VERSION}, "kind": {"enum": list(SPECS)}},
        "required": ["apiVersion", "kind", "name"],
        "allOf": [
            {
                "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                "then": {"$ref": f"#/definitions/{kind}"},
            }
            for kind in SPECS
        ],
        "definitions": dict(sorted(definitions.items())),
    }


def _models(found: list[type[BaseModel]]) -> list[type[BaseModel]]:
    """Return the models and those inside them, each once."""
    for model in found:  # grows while it is gone through
        for field in model.model_fields.values():
            inner = inner_model(field.annotation)
            if inner and inner not in found:
                found.append(inner)
    return found


def _finish(definition: Schema, model: type[BaseModel]) -> None:
    """Say it as people write it: defaults with their units, and nothing behind a key that may be left out."""
    defaults = model.model_construct().model_dump(mode="json", warnings=False)
    definition.pop("title", None)
    definition["description"] = _prose(definition.get("description", ""))
    for key, field in definition.get("properties", {}).items():
        field.pop("title", None)
        field.pop("default", None)
        if "description" in field:
            field["description"] = _prose(field["description"])
        if isinstance(defaults.get(key), str | int | float):
            field["default"] = defaults[key]
        if key not in definition.get("required", ()):
            _allow_nothing(field)


def _allow_nothing(field: Schema) -> None:
    match field:
        case {"anyOf": [{"type": list()} as text, {"type": "null"}]}:
            del field["anyOf"]
            field |= text
    if "$ref" in field:
        field["anyOf"] = [{"$ref": field.pop("$ref")}, {"type": "null"}]
    elif "type" in field:
        field["type"] = [*([field["type"]] if isinstance(field["type"], str) else field["type"]), "null"]
        if "enum" in field:
            field["enum"] = [*field["enum"], None]


def _allow_switch(failover: Schema) -> None:
    """Let ``failover: no`` stand for a mapping."""
    mapping = {key: failover.pop(key) for key in tuple(failover) if key != "description"}
    failover["anyOf"] = [mapping, TypeAdapter(Switch).json_schema()]


def _document(kind: str, definitions: dict[str, Schema]) -> Schema:
    """Return the schema of a document with its header."""
    spec, header, resource = SPECS[kind]
    body = definitions[spec.__name__]
    head: Schema = {
        "apiVersion": {"const": API_VERSION},
        "kind": {"const": kind},
        "name": name_schema(in_step=kind not in _ALONE),
    }
    if header is MemberHeader:
        head["pan"] = name_schema(in_step=False)
    nested = {key: _nested(SPECS[inner][0]) for key, inner in PanSpec.nested.items()} if kind == "PAN" else {}
    return {
        "description": _prose(resource.__doc__ or ""),
        "type": "object",
        "properties": {**head, **body.get("properties", {}), **nested},
        "required": [*head, *body.get("required", ())],
        "additionalProperties": False,
    }


def _nested(spec: type[Spec]) -> Schema:
    """Return the schema of a mapping from names, or node sets, to bodies."""
    return {
        "type": ["object", "null"],
        "propertyNames": {"pattern": name_schema(in_step=True)["pattern"]},
        "additionalProperties": {"$ref": f"#/definitions/{spec.__name__}"},
    }


def _prose(text: str) -> str:
    return " ".join(text.replace("``", "`").replace("None: ", "left out: ").split())
