"""YAML as an editor reads it: plain scalars by the core schema (YAML 1.2.2 section 10.3.2), not as text."""

import re
from typing import ClassVar

import yaml


class CoreLoader(yaml.SafeLoader):
    """PyYAML's loader with the resolvers of YAML 1.2 in place of those of 1.1."""

    yaml_implicit_resolvers: ClassVar = {}


for tag, pattern, first in (
    ("null", r"(?:~|null|Null|NULL|)\Z", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)\Z", list("tTfF")),
    ("int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z", list("-+0123456789")),
    ("float", r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)\Z", list("-+.0123456789")),
):
    CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), first)


def _whole(loader, node):
    text = loader.construct_scalar(node)
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


CoreLoader.add_constructor("tag:yaml.org,2002:int", _whole)


def documents(text):
    """Return the documents of a text that say something."""
    return [document for document in yaml.load_all(text, Loader=CoreLoader) if document is not None]
