"""A bad entry of the catalog: told with its file and line, whatever is wrong with it, and never as a traceback."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.checkout import CHECKOUT

HEAD = """from models.catalog.parts import awq, licence, safetensors
from models.engines.vllm import VllmEngine
from models.facts import Evidence, PerToken, Slo, Evaluation, Source
from models.images import VLLM
from models.spec import ModelSpec
from models.tasks import Task

NOTHING = Slo(note="none")

ENTRIES = (
"""
ENTRY = """    ModelSpec(
        alias="first",
        group="coding-assistant",
        summary="a model",
        task=Task.CHAT,
        model_id="some/model",
        served_name="first-7b",
        engine=VllmEngine(image=VLLM),
        context=8192,
        weights=awq("Qwen/Qwen2.5-Coder-7B-Instruct", revision=None, bytes_on_disk=5_570_000_000),
        price=PerToken(input_usd_per_mtok=0.5, output_usd_per_mtok=1.5),
        slo=NOTHING,
        evaluation=Evaluation(status="none", result="none"),
        licence=licence("Apache-2.0", "a test", Evidence.MEMORY),
        sources=(Source(facts="all", where="a test", evidence=Evidence.MEMORY),),
    ),
"""
STACK = """config:
  gcp:project: some-project
  gcp:zone: us-central1-a
  ai-platform:groups:
    coding-assistant: true
"""


def second(**changes: str) -> str:
    """Another entry, with other text in places."""
    text = ENTRY.replace('"first"', '"second"').replace('"first-7b"', '"second-7b"')
    for field, new in changes.items():
        text, found = re.subn(rf"(?m)^(        {field}=).*,$", rf"\g<1>{new},", text)
        assert found == 1, field
    return text


BAD = {
    "an alias that is taken": (second(alias='"first"'), "alias 'first' is taken by models/catalog/coding.py:11"),
    "a served name that is taken": (second(served_name='"first-7b"'), "is taken by models/catalog/coding.py:11"),
    "an unknown group": (second(group='"codign"'), "there is no group 'codign'"),
    "the name of a group": (second(alias='"retrieval"', served_name='"r"'), "is the name of a group too"),
    "an alias that no object can have": (second(alias='"Big_Model"'), "alias: String should match pattern"),
    "a context beyond the positions": (second(context="99999"), "exceeds the model's 32768 positions"),
    "a base without a row": (second(weights='awq("Quen", revision=None, bytes_on_disk=1)'), "has no row 'Quen'"),
    "a price of zero": (second(price="PerToken(input_usd_per_mtok=0, output_usd_per_mtok=1)"), "greater than 0"),
    "a field that there is not": (second().replace("context=", "kontext="), "kontext: Extra inputs"),
    "a name no command line takes": (second(served_name='"a b; rm -rf /"'), "served_name: String should match"),
    "a served name that is an alias": (
        second(served_name='"coder"', alias='"third"').replace('"coder"', '"first"'),
        "is the alias of",
    ),
    "an engine for other weights": (
        second(weights='safetensors("BAAI/bge-base-en-v1.5", revision=None, bytes_on_disk=1)', context="512"),
        "second is no decoder",
    ),
    "a name that there is not": (second(licence="lizenz"), "NameError: name 'lizenz'"),
}


@dataclass(frozen=True)
class Broken:
    """A checkout with every bad entry, the line of each, and what two commands say."""

    root: Path
    lines: dict[str, int]
    plan: str
    fit: str


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Broken:
    root = tmp_path_factory.mktemp("flaws")
    for room in ("models", "ops", "stacks", "components"):
        shutil.copytree(CHECKOUT / room, root / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__main__.py", "Pulumi.yaml"):
        shutil.copy(CHECKOUT / name, root / name)
    (root / "Pulumi.ai-dev.yaml").write_text(STACK)
    catalog = root / "models" / "catalog"
    text, lines = HEAD + ENTRY, dict[str, int]()
    for bad, (entry, _) in BAD.items():
        lines[bad] = text.count("\n") + 1
        text += entry
    (catalog / "coding.py").write_text(f"{text})\n")
    (catalog / "retrieval.py").write_text((catalog / "retrieval.py").read_text() + "ENTRIES = (\n")
    plan, fit = run(root, "plan"), run(root, "fit", "first")
    assert (plan.returncode, fit.returncode) == (2, 2), plan.stderr + fit.stderr
    return Broken(root, lines, plan.stderr, fit.stderr)


def run(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ops.cli", *arguments],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_entry_is_told_with_file_and_line(broken: Broken, bad: str) -> None:
    line, (_, message) = broken.lines[bad], BAD[bad]
    for told in (broken.plan, broken.fit):
        about = next(part for part in told.split("\n") if f"models/catalog/coding.py:{line}: " in part)
        assert message in about
        assert f"${{EDITOR:-vi}} +{line} models/catalog/coding.py" in told


def test_a_file_that_is_no_python_is_told_with_its_line(broken: Broken) -> None:
    last = (broken.root / "models" / "catalog" / "retrieval.py").read_text().count("\n")
    assert f"models/catalog/retrieval.py:{last}: SyntaxError" in broken.plan


def test_all_are_told_at_once_and_none_as_a_traceback(broken: Broken) -> None:
    assert broken.plan.startswith(f"refused: {len(BAD) + 1} problems")
    assert "Traceback" not in broken.plan + broken.fit


WHOLE = {
    "no comma": ("ENTRIES = (object())", "ENTRIES is a object"),
    "nothing": ("ENTRIES = None", "ENTRIES is a NoneType"),
    "no entries": ("ENTRIES = ()", "ENTRIES is empty"),
    "a string among them": ('ENTRIES = ("coder",)', "is no ModelSpec"),
    "a family that leaves": ("raise SystemExit(0)", "SystemExit"),
    "a generator that fails": ("ENTRIES = (1 / 0 for _ in (1,))", "ENTRIES is a generator"),
    "a broken import": ("import nothing_of_this_name\nENTRIES = ()", "ModuleNotFoundError"),
}


@pytest.mark.parametrize("wrong", WHOLE)
def test_entries_that_are_wrong_as_a_whole_are_a_flaw_of_their_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: str
) -> None:
    source, message = WHOLE[wrong]
    name = f"family_{list(WHOLE).index(wrong)}"
    (tmp_path / f"{name}.py").write_text(source + "\n")
    gather = importlib.import_module("models.catalog.gather")  # the package has a function of that name
    monkeypatch.setattr(gather, "_HERE", tmp_path)
    monkeypatch.setattr(sys.modules["models.catalog"], "__path__", [str(tmp_path)])
    gathered = gather.gather([name], {})
    found, flaws = gathered.catalog, gathered.flaws
    assert found == {}
    assert len(flaws) == 1
    assert message in flaws[0].message
    assert f"{name}.py:" in flaws[0].message
