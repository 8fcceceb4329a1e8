"""Whatever a file has become, a command ends as it says it does: no traceback, and one of its exit codes.

Seeded. `AI_PLATFORM_TRIALS=N` makes it N times as many.
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from ops.cli import main
from ops.config_files import load
from ops.errors import OpsError
from stacks.admission import admit
from tests.checkout import PROJECT_DIR
from tests.models.hf_configs import CONFIGS

ROUNDS = int(os.environ.get("AI_PLATFORM_TRIALS", "0")) or 1
STACK = (PROJECT_DIR / "Pulumi.ai-dev.yaml").read_text(encoding="utf-8")
# What slips into a file: other types, other sizes, what YAML gives a meaning, what no text has.
TEXTS = [
    *("", " ", "\t", "\n", ":", "- ", "? ", "!!bool x", "!!binary x", "&a ", "*a", "<<: *a", "{", "}", "[", "]", '"'),
    *("'", "|", ">", "#", "%", "@", "`", "---\n", "...\n", "~", "null", "yes", "1e999", "0x1F", "0o17", "-0", "1_000"),
    *("2026-02-30", "\0", "\x1b[31m", "\u2028", "\ufeff", "é", "🙂", "config:\n", "secure: v1:x:y\n", "9" * 400),
]
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 0.5, -0.5, 1e308, float("inf"), float("nan"), "", "x", "1"),
    *("a" * 5000, "\0", [], [None], [[]], [1, "x", {}], {}, {"x": None}, {"": {"": []}}, [[[[[[[[[[]]]]]]]]]]),
]


def _texts(seed: int) -> Iterator[str]:
    dice = random.Random(seed)  # noqa: S311
    lines = STACK.splitlines(keepends=True)
    for _ in range(20):
        changed = list(lines)
        for _ in range(dice.randrange(1, 4)):
            at = dice.randrange(len(changed))
            match dice.randrange(6):
                case 0:
                    del changed[at]
                case 1:
                    changed.insert(at, changed[dice.randrange(len(changed))])
                case 2:
                    changed[at] = "  " + changed[at]
                case 3:
                    changed[at] = changed[at].removeprefix("  ")
                case 4:
                    name, colon, _ = changed[at].partition(":")
                    changed[at] = f"{name}{colon} {dice.choice(TEXTS)}\n"
                case _:
                    column = dice.randrange(len(changed[at]) or 1)
                    changed[at] = changed[at][:column] + dice.choice(TEXTS) + changed[at][column + dice.randrange(3) :]
        yield "".join(changed)


def _places(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield place
    if isinstance(value, dict):
        for name, item in cast("dict[str, Any]", value).items():
            yield from _places(item, (*place, name))
    elif isinstance(value, list):
        for index, item in enumerate(cast("list[Any]", value)):
            yield from _places(item, (*place, index))


def _changed(dice: random.Random, document: Any) -> Any:
    """The document with one to three of its values gone, or others."""
    changed = copy.deepcopy(document)
    for _ in range(dice.randrange(1, 4)):
        places = [place for place in _places(changed) if place]
        if not places:
            break
        *path, last = dice.choice(places)
        holder = changed
        for part in path:
            holder = holder[part]
        if dice.random() < 0.25:
            del holder[last]
        else:
            holder[last] = copy.deepcopy(dice.choice(VALUES))
    return changed


@pytest.mark.parametrize("seed", range(15 * ROUNDS))
def test_a_stack_file_that_something_happened_to_is_refused_or_judged(seed: int, tmp_path: Path) -> None:
    for text in _texts(seed):
        (tmp_path / "Pulumi.dev.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
        (tmp_path / "Pulumi.yaml").write_text("name: ai-platform\nruntime: python\n")
        try:
            verdict = admit(load(tmp_path, "dev"), rehearsal=True)
        except OpsError:
            continue
        except Exception as error:
            raise AssertionError(f"{error!r}\n{text}") from error
        assert all(map(str, (*verdict.problems, *verdict.notices)))


@pytest.mark.parametrize("model", CONFIGS)
def test_a_config_json_that_something_happened_to_has_an_answer(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dice = random.Random(model)  # noqa: S311
    file = tmp_path / "config.json"
    for _ in range(6 * ROUNDS):
        file.write_text(json.dumps(_changed(dice, CONFIGS[model])))
        arguments = ["fit", "--config", str(file), *dice.choice(([], ["--gpu", "l4"], ["--quantization", "awq"]))]
        try:
            code = main(arguments)
        except BaseException as error:
            raise AssertionError(f"{error!r}\n{file.read_text()[:2000]}") from error
        assert code in (0, 1, 2), file.read_text()[:2000]
        told = capsys.readouterr()
        assert told.out or told.err


def test_a_saved_plan_that_something_happened_to_is_refused_or_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dice, here = random.Random("plan"), ["plan", "--project-dir", str(PROJECT_DIR)]  # noqa: S311
    assert main([*here, "--format", "json"]) == 0
    saved, file = json.loads(capsys.readouterr().out), tmp_path / "old.json"
    shapes = [[], {}, "x", 3, None, [saved], {"plan": saved}]
    for changed in [*shapes, *(_changed(dice, saved) for _ in range(5 * ROUNDS))]:
        file.write_text(json.dumps(changed))
        try:
            code = main([*here, "--against", str(file), "--format", dice.choice(["text", "markdown", "json"])])
        except BaseException as error:
            raise AssertionError(f"{error!r}\n{_difference(saved, changed)}") from error
        assert code in (0, 2)
        capsys.readouterr()


def _difference(before: Any, after: Any) -> list[str]:
    both = set(_places(before)) & set(_places(after))

    def at(document: Any, place: tuple[str | int, ...]) -> Any:
        for part in place:
            document = document[part]
        return document

    leaves = [place for place in both if not isinstance(at(after, place), dict | list)]
    return [str(place) for place in leaves if at(before, place) != at(after, place)]
