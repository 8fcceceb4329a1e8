"""`ops catalog`: what it lists, leaves out and explains, without pulumi."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from models.catalog.overlay import Overlaid
from models.machines import SYSTEM_MACHINES
from ops.catalog import command
from ops.cli import main
from ops.entry_words import MEMORY_LEGEND, fit_of, memory_bar, price_short, slo_words, unknown
from ops.errors import OpsError
from tests.catalog import CATALOG
from tests.checkout import PROJECT_DIR, clone

ON_GPU = {alias for alias, spec in CATALOG.items() if spec.gpus}


def listed(capsys: pytest.CaptureFixture[str], *flags: str) -> set[str]:
    code = main(["catalog", "--json", "--project-dir", str(PROJECT_DIR), *flags])
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert code == (0 if found else 1)
    return {entry["alias"] for entry in found}


FILTERS: Mapping[str, tuple[tuple[str, ...], set[str]]] = {
    "all": ((), set(CATALOG)),
    "a task": (("--task", "chat"), {a for a, s in CATALOG.items() if s.task.value == "chat"}),
    "a group": (("--group", "retrieval"), {"embeddings"}),
    "a licence": (("--licence", "commercial"), set(CATALOG) - {"coder-mini"}),
    "one L4": (("--fits",), ON_GPU),
    "a small machine": (("--fits", "g2-standard-4"), ON_GPU - {"coder-agent"}),
    "a machine without a GPU": (("--fits", next(iter(SYSTEM_MACHINES))), {"embeddings"}),
    "a GPU, and models that need none": (("--fits", "h100", "--group", "retrieval"), set()),
    "a GPU whose kernels know no bfloat16": (
        ("--fits", "t4"),
        {a for a in ON_GPU if a in ("coder-chat", "coder-mini")},
    ),
    "two at once": (("--task", "chat", "--group", "baseline"), {"qwen-local"}),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_leaves_out_what_is_not_so(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags, expected = FILTERS[name]
    assert listed(capsys, *flags) == expected


def test_what_is_up_is_what_the_stack_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("Pulumi.yaml", "Pulumi.ai-dev.yaml"):
        text = (PROJECT_DIR / name).read_text().replace("coder-chat:replicas: 0", "coder-chat:replicas: 1")
        (tmp_path / name).write_text(text)
    assert main(["catalog", "--up", "--json", "--project-dir", str(tmp_path)]) == 0
    assert {entry["alias"] for entry in json.loads(capsys.readouterr().out)} == {"coder-chat"}


def test_the_list_names_its_figures_and_the_way_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog"]) == 0
    told = capsys.readouterr().out
    for word in ("coder-chat", "16,384", "15", "0.5 / 1.5", "AT ONCE", "scored", "ALIAS:enabled true"):
        assert word in told


def test_an_entry_is_explained_with_its_sources_and_what_nobody_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "coder-mini"]) == 0
    told = capsys.readouterr().out
    assert "architecture: verified, config.json of Qwen/Qwen2.5-Coder-3B-Instruct-AWQ" in told
    assert "qwen-research, no commercial use" in told
    assert "revision: not pinned" in told
    assert "pulumi config set coder-mini:enabled true" in told
    assert MEMORY_LEGEND in told


@pytest.mark.parametrize("alias", CATALOG)
def test_every_entry_has_an_explanation(alias: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", alias]) == 0
    assert alias in capsys.readouterr().out
    assert main(["catalog", CATALOG[alias].model_id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["entry"] == CATALOG[alias].model_dump(mode="json")


def test_a_misspelt_model_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(OpsError, match="did you mean 'coder-chat'") as caught:
        command.named("coder-caht")
    assert caught.value.problem.remedy == "ops catalog coder-chat"


def test_an_entry_of_the_checkout_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "OVERLAID", {"coder-chat": Overlaid("models.local.yaml", 7, ("context",))})
    assert main(["catalog", "coder-chat"]) == 0
    assert "models.local.yaml:7 (context)" in capsys.readouterr().out
    assert main(["catalog"]) == 0
    assert "coder-chat*" in capsys.readouterr().out


def test_a_bar_is_as_wide_for_every_model_and_shows_its_cache() -> None:
    fits = [fit for alias in ON_GPU if (fit := fit_of(CATALOG[alias]))]
    bars = [memory_bar(fit) for fit in fits]
    assert {len(bar) for bar in bars} == {16}
    assert all("█" in bar and "▒" in bar for bar in bars)


def test_words_of_what_is_not_there() -> None:
    spec = CATALOG["embeddings"]
    assert price_short(spec.price) == "0.1 / n/a"
    assert slo_words(spec) == spec.slo.note
    assert slo_words(CATALOG["qwen-local"]).startswith("p95: TTFT < 250 ms, ITL < 20 ms")
    assert any("throughput" in line for line in unknown(spec))


def test_it_runs_without_pulumi_and_lists_what_lies_over_the_catalog(tmp_path: Path) -> None:
    folder = clone(tmp_path / "clone")
    overlay = folder / "mine.yaml"
    overlay.write_text("models: [{alias: coder-chat, context: 4096}]\n")
    code = (
        "import sys; from ops.cli import main; code = main(['catalog', 'coder-chat']); "
        "sys.exit(code or [m for m in sys.modules if m.partition('.')[0] == 'pulumi'] or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder), "MODELS_LOCAL": str(overlay), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "mine.yaml:1 (context)" in done.stdout
    assert "context 4,096 tokens" in done.stdout
