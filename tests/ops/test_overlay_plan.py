"""What a plan, its JSON, its comparison and `pulumi up` say of entries that are this checkout's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from models.catalog import with_overlay
from models.catalog.overlay import Laid, lay_text
from ops.engine import run
from ops.plan.data import plan_data
from ops.plan.diff.compare import compare
from ops.plan.diff.text import as_text
from ops.plan.screen import first_screen
from stacks.admission import Admission, admit
from stacks.program import deploy
from tests.catalog import CATALOG, GROUPS
from tests.models.test_overlay import as_file, new_entry
from tests.ops.sandbox import commit, sandbox
from tests.support import config

CHANGED = "  - alias: coder-chat\n    context: 8192\n"


def laid(text: str) -> Laid:
    found = lay_text(CATALOG, GROUPS, text, "models.local.yaml")
    assert not found.flaws
    return found


def admitted(found: Laid, *assignments: str) -> Admission:
    admission = admit(config(*assignments), found.catalog, overlaid=found.overlaid, rehearsal=True)
    assert not admission.problems
    return admission


def data(admission: Admission, *assignments: str) -> dict[str, Any]:
    return plan_data(admission, run(config(*assignments), lambda: deploy(admission.plan)).resources)


@pytest.fixture(scope="module")
def both() -> Laid:
    return laid(as_file(new_entry()).rstrip() + f"\n{CHANGED.replace('  - ', '- ').replace('    ', '  ')}")


def screen(admission: Admission) -> str:
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    first_screen(console, admission, [])
    return console.export_text()


def test_the_first_screen_names_what_is_otherwise_here_and_only_what_is_enabled(both: Laid) -> None:
    told = screen(admitted(both))
    assert "local   models.local.yaml: coder-chat (context)" in told
    assert "my-model" not in told
    assert "coder-chat (context), my-model (new)" in screen(admitted(both, "my-model:enabled=true"))
    assert "local   models" not in screen(admitted(laid("")))


def test_the_plan_for_programs_says_which_fields_and_where(both: Laid) -> None:
    models = {m["alias"]: m for m in data(admitted(both))["models"]}
    assert models["coder-chat"]["overlay"]["fields"] == ["context"]
    assert models["my-model"]["overlay"] == {"file": "models.local.yaml", "line": 2, "fields": []}
    assert models["coder-fim"]["overlay"] is None


def test_a_comparison_shows_what_came_from_there(both: Laid) -> None:
    on = "my-model:enabled=true"
    old, new = data(admitted(laid(""))), data(admitted(both, on), on)
    told = as_text(compare(old, new), "old", None, new)
    assert "context 16,384 -> 8,192 tokens" in told
    assert "overlay none -> models.local.yaml (context)" in told
    assert "my-model" in told
    assert "of models.local.yaml (new)" in told
    json.dumps(new)


def test_a_revision_has_none_of_it_and_the_checkout_has(tmp_path: Path) -> None:
    """As its reader types it: the file lies there, git ignores it, and the program finds it."""
    folder = sandbox(tmp_path / "clone")
    (folder / ".gitignore").write_text("/models.local.yaml\n")
    commit(folder, "ignored")
    (folder / "models.local.yaml").write_text(f"models:\n{CHANGED}")
    environment = {name: value for name, value in os.environ.items() if name != "MODELS_LOCAL"}
    environment |= {"PYTHONPATH": str(folder), "COLUMNS": "300"}
    plan = [sys.executable, "-m", "ops.cli", "plan", "--project-dir", str(folder)]
    done = subprocess.run(
        [*plan, "--against", "HEAD"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "overlay none -> models.local.yaml (context)" in done.stdout
    (folder / "models.local.yaml").write_text("models:\n  - alias: coder-chat\n    contxt: 8192\n")
    done = subprocess.run(plan, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "models.local.yaml:3: coder-chat: contxt is no field here; did you mean 'context'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_first_screen_says_that_no_key_reaches_a_model_rather_than_what_is_not_pinned(both: Laid) -> None:
    assert "my-model is registered, but no key may use it" in screen(admitted(both, "my-model:enabled=true"))


def test_a_file_elsewhere_is_named_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("models:\n  - alias: coder-chat\n    context: 131072\n", encoding="utf-8")
    monkeypatch.setenv("MODELS_LOCAL", str(file))
    _, _, (flaw,) = with_overlay(CATALOG, GROUPS)
    assert flaw.message.startswith(f"{file}:2: coder-chat: context 131072 exceeds")
    assert flaw.remedy == f"${{EDITOR:-vi}} +2 {file}"


def test_a_template_that_is_not_there_is_refused_with_the_place_that_names_it() -> None:
    text = "models:\n  - alias: coder-agent\n    engine:\n      chat_template: nope.jinja\n"
    (flaw,) = lay_text(CATALOG, GROUPS, text, "models.local.yaml").flaws
    assert flaw.message.startswith("models.local.yaml:")
    assert "components/serving/files has no nope.jinja" in flaw.message
    assert flaw.remedy.startswith("${EDITOR:-vi} +")
