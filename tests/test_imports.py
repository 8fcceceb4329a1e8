"""The one direction through the rooms, and who may know what: read from the sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkout import CHECKOUT

ROOMS = ["models", "components", "stacks", "ops"]  # each imports itself and those before it
SOURCES = sorted(p for room in ROOMS for p in (CHECKOUT / room).rglob("*.py"))

PURE = ("admission", "plan", "problems", "secrets", "sections", "access", "costs")  # of stacks, beside its rules
# Of components: each imports itself and those before it.
FLOORS = ["kubernetes", "serving", "gateway", "gke"]
COMMANDS = [path.parent.name for path in (CHECKOUT / "ops").glob("*/command.py")]

every_source = pytest.mark.parametrize("path", SOURCES, ids=[str(p.relative_to(CHECKOUT)) for p in SOURCES])


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def room_of(path: Path) -> str:
    return path.relative_to(CHECKOUT).parts[0]


@every_source
def test_imports_go_from_ops_over_stacks_and_components_to_models(path: Path) -> None:
    allowed = ROOMS[: ROOMS.index(room_of(path)) + 1]
    for module in imported(path):
        package = module.split(".", maxsplit=1)[0]
        assert package not in ROOMS or package in allowed, f"imports {module}"
        assert package != "tests"


@pytest.mark.parametrize("path", [p for p in SOURCES if room_of(p) == "components"], ids=lambda p: p.stem)
def test_components_go_from_the_cloud_over_gateway_and_serving_to_kubernetes(path: Path) -> None:
    parts = path.relative_to(CHECKOUT / "components").parts
    allowed = FLOORS[: FLOORS.index(parts[0]) + 1] if len(parts) > 1 else []
    for module in imported(path):
        room, _, rest = module.partition(".")
        assert room != "components" or rest.partition(".")[0] in allowed, f"imports {module}"


@pytest.mark.parametrize("path", [p for p in SOURCES if room_of(p) == "ops"], ids=lambda p: p.stem)
def test_no_command_looks_into_another_one(path: Path) -> None:
    """What two of them share stands beside them."""
    parts = path.relative_to(CHECKOUT / "ops").parts
    own = parts[0] if parts[0] in COMMANDS else None
    for module in imported(path):
        room, command = (*module.split("."), "")[:2]
        assert room != "ops" or command not in COMMANDS or command == own, f"imports {module}"


@pytest.mark.parametrize("path", [p for p in SOURCES if room_of(p) == "models"], ids=lambda p: p.stem)
def test_models_know_neither_pulumi_nor_a_cloud(path: Path) -> None:
    for module in imported(path):
        assert not module.startswith(("pulumi", "google", "kubernetes", "boto3", "azure")), f"imports {module}"


@every_source
def test_only_the_settings_read_pulumi_config(path: Path) -> None:
    """`ops` is an engine of its own: it hands config to the program through the SDK's runtime, and reads none."""
    ways = r"pulumi\.Config\b|get_config_env|\brequire_secret" + (
        "" if room_of(path) == "ops" else r"|runtime\.config\b"
    )
    reads = re.search(ways, path.read_text()) is not None
    assert reads == (path == CHECKOUT / "stacks" / "settings.py")


def test_only_the_engine_and_the_program_know_of_a_running_stack() -> None:
    """Pure rooms stay testable: admission, plan, rules and catalog import no SDK."""
    pure = [CHECKOUT / "stacks" / f"{name}.py" for name in PURE]
    for path in (*pure, *(CHECKOUT / "stacks" / "rules").glob("*.py")):
        assert not any(m.startswith("pulumi") for m in imported(path)), path


def test_the_product_depends_on_nothing_outside_of_its_checkout() -> None:
    files = [
        *SOURCES,
        *(CHECKOUT / name for name in ("__main__.py", "Makefile", "pyproject.toml", "Pulumi.yaml")),
        *CHECKOUT.glob("Pulumi.*.yaml"),
        *(p for p in (CHECKOUT / "ops").rglob("*") if p.suffix in (".go", ".mod", ".sh", ".yaml")),
    ]
    assert [str(f) for f in files if f.exists() and "../shared" in f.read_text()] == []


@every_source
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
