"""Writes fixtures/vllm-<version>-args.json: every option of vLLM's own argument parser, with its choices.

The parser is the real one, from vLLM's source distribution; only what it never calls is replaced. Building a parser
imports most of vLLM, and with it torch, Triton and compiled kernels: whatever is not installed becomes a stand-in
whose every attribute is again a stand-in. What argparse holds afterwards (names, choices) comes from vLLM's code.

Three lists are read from source text, since argparse takes any value there: parsers of tool calls and of what is
thought first, and quantisations.

    uv venv /tmp/vllm-args && VIRTUAL_ENV=/tmp/vllm-args uv pip install transformers pydantic fastapi msgspec
    /tmp/vllm-args/bin/python tests/components/regenerate_vllm_args.py DIRECTORY_OF_THE_UNPACKED_SDIST
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import json
import os
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Union

FIXTURES = Path(__file__).parent / "fixtures"
_TOOL_PARSERS = ("vllm/tool_parsers/__init__.py", "_TOOL_PARSERS_TO_REGISTER")
_REASONING_PARSERS = ("vllm/reasoning/__init__.py", "_REASONING_PARSERS_TO_REGISTER")
_QUANTIZATIONS = ("vllm/model_executor/layers/quantization/__init__.py", "QuantizationMethods")
# Registers operators with torch while it is imported, so a stand-in for torch alone is not enough.
_REPLACED = ("torch", "triton", "vllm.ir.ops")


class _StandInType(type):
    """Behaves as class, decorator, constant and annotation alike, since the importing code may use it as any."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _stand_in(f"{cls.__qualname__}.{name}")

    def __call__(cls, *args: Any, **keywords: Any) -> Any:
        if "_is_stand_in" not in vars(cls):
            return super().__call__(*args, **keywords)
        decorates = len(args) == 1 and not keywords and callable(args[0]) and not isinstance(args[0], type)
        return args[0] if decorates else cls

    def __getitem__(cls, _: Any) -> Any:
        return cls

    def __or__(cls, other: Any) -> Any:
        try:
            return Union[cls, other]  # noqa: UP007  an annotation; its other half may hold the choices
        except TypeError:
            return cls

    __ror__ = __or__

    def __iter__(cls) -> Iterator[Any]:
        return iter(())

    def __len__(cls) -> int:
        return 0

    def __index__(cls) -> int:
        return 0

    __int__ = __index__

    def __bool__(cls) -> bool:
        return False

    def __contains__(cls, _: Any) -> bool:
        return False

    def __enter__(cls) -> Any:
        return cls

    def __exit__(cls, *_: object) -> None:
        return None

    def __instancecheck__(cls, _: Any) -> bool:
        return False


def _itself(cls: Any, *_: Any) -> Any:
    return cls


def _false(*_: Any) -> bool:
    return False


def _nothing(*_: Any, **__: Any) -> None:
    return None


for _name in ("and", "add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "floordiv", "pow"):
    setattr(_StandInType, f"__{_name}__", _itself)
for _name in ("lt", "le", "gt", "ge"):
    setattr(_StandInType, f"__{_name}__", _false)

_made: dict[str, type] = {}


def _stand_in(name: str) -> type:
    if name not in _made:

        def any_schema(*_: Any) -> Any:
            from pydantic_core import core_schema

            return core_schema.any_schema()

        _made[name] = _StandInType(
            name,
            (),
            {
                "_is_stand_in": True,
                "__init_subclass__": staticmethod(_nothing),
                "__get_pydantic_core_schema__": staticmethod(any_schema),
            },
        )
    return _made[name]


class _StandInModule(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return "2.11.0"  # a recent torch: older ones are refused
        if name.startswith("__"):
            raise AttributeError(name)
        return _stand_in(f"{self.__name__}.{name}")


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the packages in `names`, and whatever is asked of them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = set(names)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        inside = isinstance(sys.modules.get(fullname.rpartition(".")[0]), _StandInModule)
        wanted = inside or fullname in self.names
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if wanted else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _StandInModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__path__ = []


def _import_with_stand_ins(module: str, finder: _StandIns) -> Any:
    """Import a module of vLLM, replacing what turns out to be missing, one package at a time."""
    while True:
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as missing:
            name = missing.name or ""
            replaced = name if name.startswith("vllm.") else name.split(".")[0]
            if not replaced or replaced in finder.names:
                raise
            finder.names.add(replaced)
            for loaded in [m for m in sys.modules if m.split(".")[0] == "vllm"]:
                del sys.modules[loaded]


def options(source: Path) -> dict[str, list[str] | None]:
    """Option strings of `vllm serve`, with their choices."""
    sys.path.insert(0, str(source))
    # A build that names itself so takes the CPU for its device, instead of looking for a GPU.
    version = importlib.metadata.version
    importlib.metadata.version = lambda distribution_name: (
        "0+cpu" if distribution_name == "vllm" else version(distribution_name)
    )
    finder = _StandIns(_REPLACED)
    sys.meta_path.insert(0, finder)
    arguments = _import_with_stand_ins("vllm.entrypoints.openai.cli_args", finder)
    utilities = _import_with_stand_ins("vllm.utils.argparse_utils", finder)
    parser: argparse.ArgumentParser = arguments.make_arg_parser(utilities.FlexibleArgumentParser(prog="vllm serve"))
    return {
        option: sorted(map(str, action.choices)) if action.choices else None
        for action in parser._actions  # pyright: ignore[reportPrivateUsage]
        for option in action.option_strings
    }


def literal(source: Path, path: str, name: str) -> list[str]:
    """Keys of a dict, or members of a Literal, that a module assigns to `name`."""
    for node in ast.parse((source / path).read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            value = node.value.slice if isinstance(node.value, ast.Subscript) else node.value
            return sorted(ast.literal_eval(value))
    raise SystemExit(f"{path} no longer assigns {name}: read where its values come from now, and correct this script")


def main() -> None:
    """Write the fixture of the sdist that is given."""
    parser = argparse.ArgumentParser(description="Write the fixture of vLLM's options.")
    parser.add_argument("source", type=Path, help="directory of the unpacked source distribution")
    parser.add_argument("--out", type=Path, default=FIXTURES)
    given = parser.parse_args()
    source: Path = given.source.resolve()
    version = next(
        line.split()[1] for line in (source / "PKG-INFO").read_text().splitlines() if line.startswith("Version: ")
    )
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    fixture = {
        "version": version,
        "options": dict(sorted(options(source).items())),
        "toolCallParsers": literal(source, *_TOOL_PARSERS),
        "quantizations": literal(source, *_QUANTIZATIONS),
        "reasoningParsers": literal(source, *_REASONING_PARSERS),
    }
    out: Path = given.out / f"vllm-{version}-args.json"
    out.write_text(json.dumps(fixture, indent=1) + "\n")
    sys.stdout.write(f"{len(fixture['options'])} options in {out}\n")


if __name__ == "__main__":
    main()
