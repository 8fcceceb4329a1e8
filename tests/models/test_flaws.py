"""A bad entry of the catalog: told with its file and line, whatever is wrong with it, and never as a traceback."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import PROJECT_DIR

ENTRY = re.compile(r"    ModelSpec\(\n        alias=\"coder-chat\".*?\n    \),\n", re.DOTALL)


@dataclass(frozen=True)
class Broken:
    """A checkout with every bad entry, and the line of each."""

    root: Path
    lines: dict[str, int]
    plan: str
    fit: str


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Broken:
    root = tmp_path_factory.mktemp("flaws")
    for room in ("models", "ops", "stacks", "components"):
        shutil.copytree(PROJECT_DIR / room, root / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__main__.py", "Pulumi.yaml", "Pulumi.ai-dev.yaml"):
        shutil.copy(PROJECT_DIR / name, root / name)
    coding = root / "models" / "catalog" / "coding.py"
    text, _, _ = coding.read_text().rpartition(")\n")
    lines: dict[str, int] = {}
    for bad, (entry, _) in BAD.items():
        lines[bad] = text.count("\n") + 1
        text += entry
    coding.write_text(f"{text})\n")
    retrieval = root / "models" / "catalog" / "retrieval.py"
    retrieval.write_text(retrieval.read_text() + "ENTRIES = (\n")
    plan, fit = run(root, "plan"), run(root, "fit", "coder-chat")
    assert (plan.returncode, fit.returncode) == (2, 2)
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


def second(**changes: str) -> str:
    """Another entry like coder-chat, with other text in places."""
    entry = ENTRY.search((PROJECT_DIR / "models/catalog/coding.py").read_text())
    assert entry is not None
    text = entry.group(0)
    for old, new in {'"coder-chat"': '"second"', '"qwen2.5-coder-7b-instruct"': '"second-7b"'}.items():
        text = text.replace(old, new)
    for old, new in changes.items():
        pattern = rf"\b{old}=(\"[^\"]*\"|[\w.]+)"
        assert re.search(pattern, text), old
        text = re.sub(pattern, f"{old}={new}", text, count=1)
    return text


BAD = {
    "an alias that is taken": (second(alias='"coder-fim"'), "alias 'coder-fim' is taken by models/catalog/coding.py:"),
    "a served name that is taken": (second(served_name='"qwen2.5-coder-1.5b"'), "is taken by models/catalog/coding.py"),
    "an unknown group": (second(group='"codign"'), "there is no group 'codign'"),
    "the name of a group": (second(alias='"retrieval"'), "is the name of a group too"),
    "an alias that no object can have": (second(alias='"Big_Model"'), "alias: String should match pattern"),
    "a context beyond the positions": (second(context="99999"), "exceeds the model's 32768 positions"),
    "a base without a row": (second().replace('"Qwen/Qwen2.5-Coder-7B-Instruct",', '"Quen",'), "has no row 'Quen'"),
    "a price of zero": (second(price="PerToken(input_usd_per_mtok=0, output_usd_per_mtok=1)"), "greater than 0"),
    "a field that there is not": (second().replace("context=", "kontext="), "kontext: Extra inputs"),
    "a name that there is not": (second(licence="lizenz"), "NameError: name 'lizenz'"),
}


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
