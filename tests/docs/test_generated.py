"""Pages and pictures that `make docs` makes: fresh here, and never red for somebody's own models or stack."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs.generate import __main__ as generate
from docs.generate.diagrams import data_path, states
from docs.generate.pages import DOCS, made
from docs.generate.pictures import cost_rows, cost_words, memory
from docs.generate.shown import Shown
from models.facts import PerAudioSecond, PerQuery, PerToken
from models.spec import ModelSpec
from ops.config_files import load
from ops.entry_words import price_words
from stacks.plan import State
from tests.catalog import CATALOG, GROUPS
from tests.checkout import CHECKOUT, PROJECT_DIR

SHOWN = Shown(catalog=CATALOG, groups=GROUPS, raw=load(PROJECT_DIR, "ai-dev"))
SVG = "{http://www.w3.org/2000/svg}"


def with_another_model() -> Mapping[str, ModelSpec]:
    mine = CATALOG["coder-chat"].model_copy(update={"alias": "my-model", "served_name": "mine"})
    return {**CATALOG, "my-model": mine}


def test_what_lies_in_docs_is_what_the_program_makes() -> None:
    """In a clone with other models, another stack or another engine it is told, and nothing fails."""
    done = subprocess.run(
        [sys.executable, "-m", "docs.generate", "--check"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if done.stdout:
        pytest.skip(done.stdout.strip())


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """docs/ of somebody who has the tests' catalog and stack, freshly made."""
    folder = tmp_path / "docs"
    shutil.copytree(DOCS, folder, ignore=shutil.ignore_patterns("generate"))
    for name in ("Pulumi.yaml", "Pulumi.ai-dev.yaml"):
        shutil.copy(PROJECT_DIR / name, tmp_path)
    monkeypatch.setattr(generate, "DOCS", folder)
    monkeypatch.setattr(generate, "CATALOG", CATALOG)
    monkeypatch.setattr(generate, "GROUPS", GROUPS)
    assert generate.main([]) == 0
    return folder


def test_made_twice_it_is_the_same_and_nothing_is_written(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert generate.main([]) == 0
    assert capsys.readouterr().out == ""
    assert generate.main(["--check"]) == 0


@pytest.mark.parametrize(
    ("page", "old"),
    [
        ("engines.md", "vLLM's OpenAI server"),
        ("catalog.md", "Apache-2.0"),
        ("design.md", "flowchart LR"),  # of these two the marked blocks alone are the program's
        ("costs.md", "$115.01"),
        ("pictures/memory.svg", "KV cache"),
    ],
)
def test_what_somebody_edited_is_stale(docs: Path, page: str, old: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = docs / page
    before = path.read_text()
    assert old in before
    path.write_text(before.replace(old, "something else", 1))
    assert generate.main(["--check"]) == 1
    assert f"docs/{page}" in capsys.readouterr().err


def test_the_words_around_a_block_are_their_authors(docs: Path) -> None:
    path = docs / "design.md"
    path.write_text(path.read_text().replace("# How it is designed", "# Designed so", 1))
    assert generate.main(["--check"]) == 0


def test_another_model_is_told_fails_nothing_and_is_in_the_pages_once_they_are_made(
    docs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "CATALOG", with_another_model())
    assert generate.main(["--check"]) == 0
    assert "make docs" in capsys.readouterr().out
    assert "my-model" not in (docs / "catalog.md").read_text()
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    assert "my-model" in (docs / "catalog.md").read_text()
    assert "my-model" in (docs / "pictures" / "memory.svg").read_text()


def test_a_stack_of_ones_own_is_told_too(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = docs.parent / "Pulumi.ai-dev.yaml"
    file.write_text(file.read_text().replace("gcp:zone: us-central1-a", "gcp:zone: europe-west4-a"))
    assert generate.main(["--check"]) == 0
    assert "make docs" in capsys.readouterr().out


def test_without_the_stack_the_pages_stay_as_they_are(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (docs.parent / "Pulumi.ai-dev.yaml").unlink()
    before = (docs / "catalog.md").read_text()
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    assert "left as it is" in capsys.readouterr().out
    assert (docs / "catalog.md").read_text() == before


def test_a_catalog_without_a_gpu_model_has_pages_too() -> None:
    pages = made(replace(SHOWN, catalog={"embeddings": CATALOG["embeddings"]}), DOCS)
    assert ElementTree.fromstring(pages["pictures/memory.svg"]) is not None  # noqa: S314  our own
    assert "off --> up" in pages["design.md"]


@pytest.mark.parametrize("name", ["pictures/memory.svg", "pictures/costs.svg"])
def test_a_picture_is_an_svg_that_follows_the_readers_setting_and_says_what_it_shows(name: str) -> None:
    text = made(SHOWN, DOCS)[name]
    root = ElementTree.fromstring(text)  # noqa: S314  our own
    assert root.tag == f"{SVG}svg"
    title = root.find(f"{SVG}title")
    assert title is not None
    assert title.text
    assert "prefers-color-scheme: dark" in text


def test_a_bar_is_as_long_as_the_gpu_has_memory() -> None:
    root = ElementTree.fromstring(memory(CATALOG))  # noqa: S314  our own
    rows: dict[str, float] = {}
    for rect in root.findall(f"{SVG}rect"):
        if rect.find(f"{SVG}title") is not None:  # of the legend has none
            rows[rect.attrib["y"]] = rows.get(rect.attrib["y"], 0) + float(rect.attrib["width"])
    assert len(rows) == sum(1 for spec in CATALOG.values() if spec.gpus)
    assert max(rows.values()) - min(rows.values()) < 0.5


def test_the_ways_of_data_are_those_of_the_policies() -> None:
    drawn = data_path(SHOWN)
    assert 'clients -->|"4000"| gateway_litellm' in drawn
    assert 'gateway_litellm_keys -->|"4000"| gateway_litellm' in drawn
    for engine in {type(spec.engine) for spec in SHOWN.catalog.values()}:
        if engine.runs_here:
            assert f'gateway_litellm -->|"8000"| serving_{engine.name()}' in drawn
    assert "gateway_litellm_keys --> gateway_litellm_db" not in drawn
    assert 'clients -->|"8000"' not in drawn


def test_the_states_are_those_that_the_program_judges() -> None:
    drawn = states(SHOWN)
    for way in ("disabled --> off", "off --> up", "up --> off", "off --> disabled", "up --> refused"):
        assert way in drawn
    assert {State.UP, State.OFF, State.DISABLED} <= {State(word) for word in drawn.split() if word in set(State)}


def test_costs_are_those_of_the_plan_whatever_is_up_and_whatever_the_budget() -> None:
    rows = {(label, bought): cost_words(bill, worst=worst) for label, bought, bill, worst in cost_rows(SHOWN)}
    assert rows["idle: every model at zero", ""] == "$115.01 a month"
    assert rows["worst case", "on demand"] == "$749.18 a month"
    up = {**SHOWN.raw.values, "coder-chat:replicas": "1", "ai-platform:maxMonthlyUsd": "1"}
    busy = replace(SHOWN, raw=replace(SHOWN.raw, values=up))
    assert [cost_words(b, worst=w) for _, _, b, w in cost_rows(busy)] == list(rows.values())


def test_every_kind_of_price_has_words() -> None:
    assert price_words(PerToken(input_usd_per_mtok=0.5, output_usd_per_mtok=1.5)) == (
        "$0.5 a million input tokens, $1.5 a million output tokens"
    )
    assert price_words(PerAudioSecond(usd_per_second=0.001)) == "$0.001 a second of audio"
    assert price_words(PerQuery(usd_per_query=0.002)) == "$0.002 a request"
