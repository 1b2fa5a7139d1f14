"""Places that make something durable, as they stand in the sources; nothing of Panloom is imported here."""

import ast
import importlib.abc
import importlib.machinery
import linecache
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[3] / "src"
DISK_MODULES = ("panloom.disk_io", "panloom.durable_names")
"""What makes system calls on files."""

MODULES = (
    *DISK_MODULES, "panloom.storage.*", "panloom.state.*", "panloom.boot.lease_book", "panloom.control.mac_counter",
    "panloom.protocol.scsi_disk", "panloom.protocol.iscsi_session", "panloom.protocol.iscsi_task",
)  # fmt: skip
SYNCS = {
    "fsync", "fdatasync", "sync_file_range", "sync", "sync_file", "sync_data", "write_through", "_sync",
    "_sync_directory", "make_directory", "Directory", "appear", "flush", "make_durable", "save", "raise_epoch",
    "_write_header", "appears", "end_absorbing", "end_flattening",
}  # fmt: skip
"""Names of functions that sync, for calls that no story makes."""


@dataclass(frozen=True, order=True)
class Place:
    """Where something is made durable; columns in octets, as the compiler counts them."""

    module: str
    line: int
    column: int
    end_line: int
    end_column: int
    kind: str = "call"

    def __str__(self):
        return f"{self.module}:{self.line}:{self.column}-{self.end_line}:{self.end_column}"

    @property
    def function(self):
        """The function or method that it stands in, as in a traceback."""
        return _functions(self.module).get(self.line, "")

    @property
    def text(self):
        """What stands there, on one line."""
        lines = [linecache.getline(str(path_of(self.module)), number) for number in range(self.line, self.end_line + 1)]
        lines[-1] = lines[-1].encode()[: self.end_column].decode()
        lines[0] = lines[0].encode()[self.column :].decode()
        return " ".join(" ".join(lines).split())


@cache
def _functions(module):
    """Return the qualified name of the innermost function of every line."""
    found = {}

    def visit(node, names):
        for child in ast.iter_child_nodes(node):
            inner = names
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = (*names, child.name)
                found.update(dict.fromkeys(range(child.lineno, child.end_lineno + 1), ".".join(inner)))
            visit(child, inner)

    visit(ast.parse(path_of(module).read_text()), ())
    return found


def path_of(module):
    """Return the source of a module."""
    return SOURCE / (module.replace(".", "/") + ".py")


def modules():
    """Yield every module that has to do with what is kept."""
    for pattern in MODULES:
        for path in sorted(SOURCE.glob(pattern.replace(".", "/") + ".py")):
            yield ".".join(path.relative_to(SOURCE).with_suffix("").parts)


# --- calls, by their names


def named_calls():
    """Return the calls of whatever is named like something that syncs."""
    found = set()
    for module in modules():
        for node in ast.walk(ast.parse(path_of(module).read_text())):
            if isinstance(node, ast.Call) and _name(node.func) in SYNCS:
                found.add(Place(module, node.lineno, node.col_offset, node.end_lineno, node.end_col_offset))
    return found


def _name(function):
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)


# --- what asks for durability


def in_source():
    """Return every place of the other kind, in the order of the sources."""
    found = []
    for module in modules():
        without = _Without(module)
        without.visit(ast.parse(path_of(module).read_text()))
        found += [Place(module, *where, "source") for where in without.found]
    return tuple(found)


class _Without(ast.NodeTransformer):
    """Takes out the place at a line and column, if one is given; notes all."""

    def __init__(self, module, at=None):
        self._module = module
        self.at = at
        self.found = []

    def _place(self, node, instead, at=None):
        at = at or node
        here = (at.lineno, at.col_offset, at.end_lineno, at.end_col_offset)
        self.found.append(here)
        return instead if here == self.at else node

    def visit_Expr(self, node):
        if _is_commit(node.value):
            return self._place(node, ast.Pass())
        return self.generic_visit(node)

    def visit_Assign(self, node):
        if _is_commit(node.value):
            return self._place(node, ast.Assign(node.targets, ast.Constant(1)))
        return self.generic_visit(node)

    def visit_Attribute(self, node):
        if node.attr in ("RWF_DSYNC", "RWF_SYNC", "O_DSYNC", "O_SYNC", "FUA"):
            return self._place(node, ast.Constant(0))
        return self.generic_visit(node)

    def visit_Constant(self, node):
        if node.value == "PRAGMA synchronous = FULL":
            return self._place(node, ast.Constant("PRAGMA synchronous = NORMAL"))
        return node

    def visit_If(self, node):
        if _name(node.test) == "flush":
            node.test = self._place(node.test, ast.Constant(value=False))
        return self.generic_visit(node)

    def visit_Call(self, node):
        if isinstance(node.func, ast.Name) and node.func.id == "Flush" and self._module == "panloom.protocol.scsi_disk":
            return self._place(node, ast.Name("_GOOD", ast.Load()))
        return self.generic_visit(node)


def _is_commit(node):
    """Return whether this is ``await ….commit(…)``."""
    return (
        isinstance(node, ast.Await)
        and isinstance(node.value, ast.Call)
        and _name(node.value.func) in ("commit", "_commit")
    )


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module without one place."""

    def __init__(self, place):
        self._place = place

    def find_spec(self, name, path=None, target=None):
        """Claim the module."""
        if name != self._place.module:
            return None
        return importlib.machinery.ModuleSpec(name, self, origin=str(path_of(name)))

    def exec_module(self, module):
        """Run what is left of it."""
        place = self._place
        without = _Without(place.module, (place.line, place.column, place.end_line, place.end_column))
        tree = ast.fix_missing_locations(without.visit(ast.parse(path_of(place.module).read_text())))
        exec(compile(tree, str(path_of(place.module)), "exec"), module.__dict__)
