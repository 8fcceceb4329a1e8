"""Every engine and every task answers every question, and nobody asks an engine which one it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from inspect import isabstract
from pathlib import Path
from typing import Any, get_args

import pytest

from components.gateway.config import PROVIDERS
from components.serving.engines import COMPONENTS
from models.engines import ENGINES, AnyEngine
from models.engines.base import Engine
from models.spec import ModelSpec
from models.tasks import TASKS, Task
from ops.smoke.checks import REQUESTS
from stacks.sections import overrides_of
from tests.catalog import CATALOG as OWN_CATALOG
from tests.checkout import CHECKOUT
from tests.shipped import CATALOG

every_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.__name__)
every_entry = pytest.mark.parametrize("spec", CATALOG.values(), ids=lambda spec: spec.alias)
every_task = pytest.mark.parametrize("task", Task)

FACTS = [name for name in Engine.__annotations__ if name.islower() and name not in Engine.model_fields]


def test_the_union_and_the_list_of_engines_are_the_same() -> None:
    union = get_args(get_args(AnyEngine)[0])
    assert set(union) == set(ENGINES)


def test_every_engine_that_is_written_is_in_the_union() -> None:
    def below(cls: type[Engine]) -> Iterator[type[Engine]]:
        for sub in cls.__subclasses__():
            yield sub
            yield from below(sub)

    written = {cls for cls in below(Engine) if cls.__module__.startswith("models.engines.") and not isabstract(cls)}
    assert written == set(ENGINES)


@every_engine
def test_an_engine_answers_the_whole_list(engine: type[Engine]) -> None:
    assert not engine.__abstractmethods__, f"{engine.__name__} does not answer {sorted(engine.__abstractmethods__)}"
    missing = [fact for fact in FACTS if not hasattr(engine, fact)]
    assert not missing, f"{engine.__name__} does not say {missing}"


def test_an_engine_that_lacks_an_answer_is_named() -> None:
    """What the test above would say: a type with nothing but its name."""

    class Mute(Engine):
        kind: str = "mute"

    assert {"needs", "cold_start", "images", "refusals"} <= Mute.__abstractmethods__
    with pytest.raises(TypeError, match="Mute"):
        Mute()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]


@every_engine
def test_what_runs_here_has_a_component_and_says_how_it_is_asked(engine: type[Engine]) -> None:
    assert (engine in COMPONENTS) == engine.runs_here, f"{engine.__name__} in components/serving/engines.py"
    for fact in ("health_route", "identity_route", "metrics_route"):
        route = getattr(engine, fact)
        assert route.startswith("/") == engine.runs_here, fact


@every_engine
def test_what_config_may_override_are_fields_of_the_engine(engine: type[Engine]) -> None:
    assert set(engine.settable) <= set(engine.model_fields)
    section = overrides_of(engine)
    assert set(engine.settable) <= set(section.model_fields)
    assert section.model_validate({}).model_dump(exclude_none=True).keys() <= {"replicas"}


@every_entry
def test_an_entry_has_all_answers_or_runs_elsewhere(spec: ModelSpec) -> None:
    answers = {
        "needs": spec.engine.needs(spec),
        "cold_start": spec.engine.cold_start(spec),
        "throughput": spec.expected_throughput or not TASKS[spec.task].in_tokens or None,
        "images": spec.engine.images or None,
        "flags": spec.engine.flags(spec) or None,
    }
    assert {name: answer is not None for name, answer in answers.items()} == dict.fromkeys(
        answers, spec.engine.runs_here
    )
    assert bool(spec.gpus) == (spec.engine.fit(spec) is not None) == (spec.engine.share is not None)
    assert list(spec.engine.refusals(spec)) == []


@every_engine
def test_an_entry_of_another_engine_is_refused_by_name(engine: type[Engine]) -> None:
    other = next(spec for spec in OWN_CATALOG.values() if not isinstance(spec.engine, engine))
    with pytest.raises(TypeError, match=f"{other.alias} runs on {other.engine.name()}, not on {engine.name()}"):
        engine.of(other)


TABLES: Mapping[str, Mapping[Task, Any]] = {
    "models/tasks.py": TASKS,
    "components/gateway/config.py": PROVIDERS,
    "ops/smoke/checks.py": REQUESTS,
}


@pytest.mark.parametrize("table", TABLES)
def test_every_task_has_a_row_in_every_table(table: str) -> None:
    missing = [task.value for task in Task if task not in TABLES[table]]
    assert not missing, f"{table} has no row for {missing}"


@every_task
def test_a_model_may_stand_in_for_one_of_its_own_task(task: Task) -> None:
    assert task in TASKS[task].stands_in_for


# --- nobody asks which engine it is ----------------------------------------------------------------------------

# Where an engine is spoken of by name: its own file, the list, entries that run on it, its component, the table.
OWN = ("models/engines", "models/catalog", "components/serving/engines.py")
SOURCES = [
    path
    for room in ("models", "components", "stacks", "ops", "policy")
    for path in sorted((CHECKOUT / room).rglob("*.py"))
    if not str(path.relative_to(CHECKOUT)).startswith(OWN)
]
NAMES = {engine.__name__ for engine in ENGINES}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_nobody_asks_an_engine_or_a_task_which_one_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text())
    component = any(isinstance(node, ast.ClassDef) and "ComponentResource" in ast.dump(node) for node in tree.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in NAMES and not component:
            pytest.fail(f"line {node.lineno}: {node.id} by name: a question for models/engines/base.py")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            assert not NAMES & {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}, f"line {node.lineno}"
        if isinstance(node, ast.Compare) and "attr='kind'" in ast.dump(node):
            assert "engine" not in ast.unparse(node), f"line {node.lineno}: {ast.unparse(node)}"
        asks = isinstance(node, ast.Compare | ast.match_case) and "id='Task'" in ast.dump(
            node if isinstance(node, ast.Compare) else node.pattern
        )
        assert not asks, f"line {getattr(node, 'lineno', '?')}: a question for models/tasks.py"
