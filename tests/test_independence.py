"""A user's own models and stacks turn no test of behaviour red: those tests cannot see them."""

from __future__ import annotations

import ast
import importlib
import inspect

import pytest

import models.catalog
from ops.config_files import load
from stacks.admission import admit
from tests import catalog, shipped
from tests.checkout import CHECKOUT, PROJECT_DIR
from tests.guard import ABOUT_WHAT_IS_SHIPPED, ReadsWhatIsShippedError

MODULES = [path.relative_to(CHECKOUT).as_posix() for path in sorted((CHECKOUT / "tests").rglob("*.py"))]
_MAY_IMPORT = ABOUT_WHAT_IS_SHIPPED | {"tests/conftest.py", "tests/test_independence.py"}


def _names(module: str) -> set[str]:
    """What a module imports by name: `tests.shipped.CATALOG`."""
    tree = ast.parse((CHECKOUT / module).read_text())
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("module", [m for m in MODULES if m not in _MAY_IMPORT])
def test_only_tests_of_what_is_shipped_import_it(module: str) -> None:
    about = [name for name in _names(module) if name.startswith("tests.shipped")]
    assert not about, f"{module} imports {about}: use tests.catalog, or add the module to the list in tests/guard.py"


@pytest.mark.parametrize("module", [m for m in MODULES if m != "tests/shipped.py"])
def test_no_test_spells_its_own_catalog_as_if_it_were_the_shipped_one(module: str) -> None:
    spelt = _names(module) & {"models.catalog.CATALOG", "models.catalog.GROUPS"}
    assert not spelt, f"{module} imports {spelt}: those are what tests.catalog installs; import them from there"


@pytest.mark.parametrize("module", sorted(ABOUT_WHAT_IS_SHIPPED))
def test_every_module_that_may_read_what_is_shipped_exists(module: str) -> None:
    assert module in MODULES


@pytest.mark.parametrize("stack", shipped.STACKS)
def test_a_test_of_behaviour_that_opens_a_shipped_stack_file_fails_there(stack: str) -> None:
    with pytest.raises(ReadsWhatIsShippedError, match=r"test_independence.py opens .*tests/support.py says how"):
        load(CHECKOUT, stack)
    assert load(PROJECT_DIR, "ai-dev").values


def test_the_whole_program_runs_on_the_tests_catalog() -> None:
    assert models.catalog.CATALOG is catalog.CATALOG is not shipped.CATALOG
    assert list(catalog.CATALOG) == [model.spec.alias for model in admit(load(PROJECT_DIR, "ai-dev")).plan.models]
    assert inspect.signature(admit).parameters["groups"].default is catalog.GROUPS


def _rooms() -> list[str]:
    return [
        ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")
        for room in ("components", "ops", "stacks")
        for path in sorted((CHECKOUT / room).rglob("*.py"))
        if "models.catalog" in path.read_text()
    ]


@pytest.mark.parametrize("module", _rooms())
def test_no_module_of_the_product_keeps_the_shipped_catalog(module: str) -> None:
    """One that took it over before the tests' own was installed would go on with it."""
    for name, value in vars(importlib.import_module(module)).items():
        assert value is not shipped.CATALOG, f"{module}.{name}"
        assert value is not shipped.GROUPS, f"{module}.{name}"
