"""Would a forgotten sync be noticed?  Every place that makes something durable, taken out one at a time.

    python -m support.crash.mutants                 list them
    python -m support.crash.mutants MODULE:LINE:COLUMN [SECONDS]
                                                    take that one out, tell stories until one goes wrong; says which

A place is a call of a function that syncs, or that leads to one and does nothing else; the flag that makes a write go
through; SQLite's setting; and in SCSI what turns FUA and SYNCHRONIZE CACHE into a flush.
"""

import ast
import importlib.abc
import importlib.machinery
import json
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[3] / "src"
MODULES = (
    "panloom.disk_io", "panloom.storage.*", "panloom.state.*", "panloom.boot.lease_book", "panloom.control.mac_counter",
    "panloom.protocol.scsi_disk", "panloom.protocol.iscsi_session",
)  # fmt: skip
SYNCS = {
    "fsync", "fdatasync", "sync", "sync_file", "sync_data", "_sync", "_sync_directory", "flush", "make_durable",
    "save", "raise_epoch", "_write_header", "commit", "_commit",
}  # fmt: skip
STATE = ("panloom.state", "panloom.boot", "panloom.control")
"""What the stories of the state store are for."""


@dataclass(frozen=True)
class Place:
    """Where something is made durable."""

    module: str
    line: int
    column: int
    text: str

    def __str__(self):
        return f"{self.module}:{self.line}:{self.column}"


def path_of(module):
    """Return the source of a module."""
    return SOURCE / (module.replace(".", "/") + ".py")


def places():
    """Return every place, in the order of the sources."""
    found = []
    for pattern in MODULES:
        for path in sorted(SOURCE.glob(pattern.replace(".", "/") + ".py")):
            module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
            without = _Without()
            without.visit(ast.parse(path.read_text()))
            found += [Place(module, *place) for place in without.found]
    return tuple(found)


class _Without(ast.NodeTransformer):
    """Takes out the place at a line and column, if one is given; notes all."""

    def __init__(self, at=None):
        self.at = at
        self.found = []

    def _place(self, node, instead):
        here = (node.lineno, node.col_offset)
        self.found.append((*here, ast.unparse(node)))
        return instead if here == self.at else node

    def visit_Expr(self, node):
        call = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(call, ast.Call) and _name(call.func) in SYNCS:
            return self._place(node, ast.Pass())
        return self.generic_visit(node)

    def visit_Assign(self, node):
        call = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(call, ast.Call) and _name(call.func) in ("commit", "_commit"):
            return self._place(node, ast.Assign(node.targets, ast.Constant(1)))
        return self.generic_visit(node)

    def visit_Attribute(self, node):
        return self._place(node, ast.Constant(0)) if node.attr == "RWF_DSYNC" else self.generic_visit(node)

    def visit_Constant(self, node):
        return (
            self._place(node, ast.Constant("PRAGMA synchronous = OFF"))
            if node.value == "PRAGMA synchronous = FULL"
            else node
        )

    def visit_If(self, node):
        if isinstance(node.test, ast.Attribute) and node.test.attr == "flush":
            node.test = self._place(node.test, ast.Constant(value=False))
        return self.generic_visit(node)

    def visit_keyword(self, node):
        if node.arg == "flush":
            node.value = self._place(node.value, ast.Constant(value=False))
        return node

    def visit_Call(self, node):
        if _name(node.func) == "Flush" and isinstance(node.func, ast.Name):
            return self._place(node, ast.Name("_GOOD", ast.Load()))
        return self.generic_visit(node)

    def visit_ClassDef(self, node):
        return self.generic_visit(node)


def _name(function):
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module without one place."""

    def __init__(self, module, line, column):
        self._module = module
        self._at = (line, column)

    def find_spec(self, name, path=None, target=None):
        """Claim the module."""
        if name != self._module:
            return None
        return importlib.machinery.ModuleSpec(name, self, origin=str(path_of(name)))

    def exec_module(self, module):
        """Run what is left of it."""
        source = path_of(self._module).read_text()
        tree = ast.fix_missing_locations(_Without(self._at).visit(ast.parse(source)))
        exec(compile(tree, str(path_of(self._module)), "exec"), module.__dict__)


def hunt(name, seconds):
    """Take a place out and tell stories until one goes wrong; return what was seen."""
    module, line, column = name.rsplit(":", 2)
    sys.meta_path.insert(0, _Finder(module, int(line), int(column)))
    from support.crash.chapter import Examination, in_memory
    from support.crash.state_story import StateStory
    from support.crash.volume_story import VolumeStory

    kinds = (StateStory, VolumeStory) if module.startswith(STATE) else (VolumeStory, StateStory)
    begun, stories, examined = time.monotonic(), 0, None
    with in_memory() as directory:
        examined = Examination(directory)
        for kind in kinds * 2 if module == "panloom.disk_io" else kinds[:1]:
            for seed in range(1000):
                if examined.violations or time.monotonic() - begun > seconds:
                    break
                stories += 1
                examined.tell(kind, 100 + seed, limit=4)
    return {"states": examined.states, "stories": stories, "violations": examined.violations}


def main():
    """See above."""
    logging.disable(logging.CRITICAL)
    if len(sys.argv) == 1:
        for place in places():
            print(place, place.text)
        return
    print(json.dumps(hunt(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 60)))


if __name__ == "__main__":
    main()
