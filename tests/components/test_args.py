"""What a component takes is told where it is declared, field by field."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import components

_ROOT = Path(components.__file__).parent


def _fields() -> Iterator[tuple[str, bool]]:
    """Each field of each `...Args`, and whether a comment on its line or the class's docstring tells of it."""
    for path in sorted(_ROOT.rglob("*.py")):
        source = path.read_text()
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith("Args"):
                told = ast.get_docstring(node) or ""
                for field in (part for part in node.body if isinstance(part, ast.AnnAssign)):
                    name = ast.unparse(field.target)
                    line = source.splitlines()[(field.end_lineno or field.lineno) - 1]
                    yield f"{node.name}.{name}", "  # " in line or f"`{name}`" in told


@pytest.mark.parametrize(("field", "told"), list(_fields()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_field_of_what_a_component_takes_is_told(field: str, told: bool) -> None:
    assert told, f"{field}: what is it, in which unit? Say it in a comment beside it, or in the class's docstring"
