"""A fast start for `ops plan`: of the generated SDKs, only the classes that a plan uses are loaded.

Python executes a module whole, and a generated package imports all of its modules: to use 6 resources of
`pulumi_gcp.compute`, 287 modules with 3,300 nested types. A plan of `ai-dev` took 2.8 s of CPU so, 0.9 of it in
garbage collection; it takes 0.66 with this, 0.23 of which are `import pulumi` and its like. How:

- A package's `from .disk import *` becomes a table, name to submodule: the submodule is imported when the name is
  asked for (PEP 562).
- Classes are compiled one by one, and executed when asked for; the names in a class's code are defined with it.
- What an annotation refers to may not be defined yet. That of a getter, `pulumi.Output['outputs.Disk']`, becomes a
  string whole, with `_lazy.DiskArgs` for `DiskArgs`: the SDK resolves it, when it needs it, to the same type as
  before. Those of parameters, which the SDK never reads, are dropped.

The compiled slices lie in the virtual environment, as bytecode does: a file a module, made at first use, and again
when its source has changed. Whatever is not as described is imported plainly: a cache that cannot be written, a
module with functions, an error in a slice.
"""

from __future__ import annotations

import ast
import atexit
import gc
import importlib
import marshal
import mmap
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import LazyLoader
from pathlib import Path
from types import ModuleType
from typing import Any, cast

_SDKS = ("pulumi_gcp", "pulumi_kubernetes")
_UNUSED = ("pulumi.automation", "pulumi.dynamic")  # `import pulumi` imports them; loaded if anything asks for them
_LAYOUT = 2  # of the cached files: count up with every change of `_cut`

# What defines a name: the submodule that exports it; or a class, as the names its code needs and where that code is.
_Entry = str | tuple[tuple[str, ...], int, int]


def install(packages: Sequence[str] = _SDKS, cache: Path = Path(sys.prefix) / "sdk-slices") -> None:
    """Speed up this process: one that has not imported an SDK yet, and ends soon.

    It no longer looks for reference cycles, since nearly all that it allocates is needed to the end.
    """
    sys.meta_path.insert(0, _Finder(packages, cache))
    gc.disable()
    atexit.register(gc.freeze)  # or the interpreter looks for cycles once more on its way out


@dataclass(frozen=True)
class _Finder:
    packages: Sequence[str]
    cache: Path

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        if fullname not in _UNUSED and fullname.partition(".")[0] not in self.packages:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            unused = fullname in _UNUSED
            spec.loader = LazyLoader(spec.loader) if unused else _SliceLoader(fullname, spec.loader.path, self.cache)
        return spec


class _SliceLoader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, cache: Path) -> None:
        super().__init__(fullname, path)
        self._cache = cache / fullname

    def exec_module(self, module: ModuleType) -> None:
        try:
            slices, rest, table = _read(Path(self.path), self._cache)
            module.__dict__.update(_lazy=module, _slices=slices, _table=table)
            module.__class__ = _SlicedModule
            exec(marshal.loads(slices[rest:]), module.__dict__)  # noqa: S102, S302  trusted as a .pyc is
        except Exception:
            self.exec_plainly(module)

    def exec_plainly(self, module: ModuleType) -> None:
        module.__dict__["_table"] = {}
        super().exec_module(module)


class _SlicedModule(ModuleType):
    """Defines a name when asked for it. A Pulumi program runs on one thread, so there is no lock."""

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":  # of a package that does not say, for `import *`
            return [name for name in (*self.__dict__, *self.__dict__["_table"]) if not name.startswith("_")]
        if name in self.__dict__["_table"]:
            try:
                self._define(name)
            except Exception:
                cast("_SliceLoader", self.__loader__).exec_plainly(self)
        if name not in self.__dict__:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return self.__dict__[name]

    def __setattr__(self, name: str, value: Any) -> None:
        # An import binds a submodule in its package. There, a class of the same name goes before it.
        if not (isinstance(value, ModuleType) and (name in self.__dict__ or name in self.__dict__["_table"])):
            super().__setattr__(name, value)

    def _define(self, name: str) -> None:
        table: dict[str, _Entry] = self.__dict__["_table"]
        entry = table.pop(name)  # at once, since classes may need each other
        if isinstance(entry, str):
            self.__dict__[name] = getattr(importlib.import_module(f"{self.__package__}.{entry}"), name)
            return
        needs, start, end = entry
        for need in needs:
            if need in table:
                self._define(need)
        exec(marshal.loads(self.__dict__["_slices"][start:end]), self.__dict__)  # noqa: S102, S302


def _read(source: Path, file: Path) -> tuple[memoryview, int, dict[str, _Entry]]:
    """A module's slices, where the code outside of classes begins in them, and what defines which name."""
    stat = source.stat()
    # The folder changes with any module in it, and so with what a package exports.
    key = (_LAYOUT, sys.version, str(source), stat.st_size, stat.st_mtime_ns, source.parent.stat().st_mtime_ns)
    try:
        return _load(file, key)
    except (OSError, ValueError, EOFError, TypeError):
        file.parent.mkdir(exist_ok=True)
        unfinished = file.with_name(f".{file.name}.{os.getpid()}")
        unfinished.touch()  # fails before the work, where that would be lost
        unfinished.write_bytes(_cut(source, key))
        unfinished.replace(file)
        return _load(file, key)


def _load(file: Path, key: tuple[object, ...]) -> tuple[memoryview, int, dict[str, _Entry]]:
    with file.open("rb") as opened:
        content = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    size = int.from_bytes(content[:4], "big")
    found, rest, table = marshal.loads(content[4 : 4 + size])  # noqa: S302
    if found != key:
        raise ValueError(f"{file} was made from another source")
    return content[4 + size :], rest, table


# --- cutting -------------------------------------------------------------------------------------------------


def _cut(source: Path, key: tuple[object, ...]) -> bytes:
    text = source.read_text()
    tree = ast.parse(text)
    # A package hands on all that it imports, another module only uses some.
    words = set(re.findall(r"\w+", text))
    classes: dict[str, ast.stmt] = {}
    table: dict[str, _Entry] = {}
    rest: list[ast.stmt] = []
    for statement in tree.body:
        match statement:
            case ast.ClassDef():
                classes[statement.name] = statement
            case ast.ImportFrom(module=str(module), names=[ast.alias(name="*")], level=1) if names := _all_of(
                source.with_name(f"{module}.py")
            ):
                table |= dict.fromkeys(names if source.name == "__init__.py" else words.intersection(names), module)
            case _:
                rest.append(statement)
    if any(isinstance(statement, ast.FunctionDef) for statement in rest):
        classes, table, rest = {}, {}, tree.body
    through_module = _ThroughModule({*classes, *table})
    slices = b""
    for name, statement in classes.items():
        for node in ast.walk(statement):
            if isinstance(node, ast.FunctionDef) and node.returns:
                node.returns = through_module.text_of(node.returns)
            elif isinstance(node, ast.arg):
                node.annotation = None
        used = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)} - {name}
        code = _compiled([statement], source)
        table[name] = tuple(sorted(used & through_module.names)), len(slices), len(slices) + len(code)
        slices += code
    header = marshal.dumps(cast("Any", (key, len(slices), table)))
    return len(header).to_bytes(4, "big") + header + slices + _compiled(rest, source)


def _compiled(statements: list[ast.stmt], source: Path) -> bytes:
    return marshal.dumps(compile(ast.Module(statements, []), str(source), "exec", dont_inherit=True))


def _all_of(source: Path) -> list[str]:
    """What a generated module exports; nothing if it does not say."""
    found = re.search(r"^__all__ = (\[.*?\])$", source.read_text(), re.DOTALL | re.MULTILINE)
    return ast.literal_eval(found[1]) if found else []


class _ThroughModule(ast.NodeTransformer):
    """Has annotations look for `names` as attributes of their module, which defines them."""

    def __init__(self, names: set[str]) -> None:
        self.names = names
        self._refers = False

    def text_of(self, annotation: ast.expr) -> ast.expr:
        """The annotation as one string if it refers to what may not be defined yet."""
        self._refers = False
        text = ast.unparse(self.visit(annotation))
        return ast.copy_location(ast.Constant(text), annotation) if self._refers else annotation

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        is_literal = isinstance(node.value, ast.Name) and node.value.id == "Literal"
        return node if is_literal else self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        self._refers |= node.id in self.names
        return ast.Attribute(ast.Name("_lazy"), node.id) if node.id in self.names else node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        self._refers |= isinstance(node.value, str)
        return self.visit(ast.parse(node.value, mode="eval").body) if isinstance(node.value, str) else node
