"""`models.local.yaml`: what it changes field by field, what it adds, and everything that is wrong with it, by line."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from models import catalog
from models.catalog.overlay import Laid, lay_over, lay_text
from models.engines.llama_cpp import LlamaCppEngine
from models.engines.tei import TeiEngine
from models.engines.vllm import VllmEngine
from models.facts import PerToken
from models.spec import ModelSpec
from tests.catalog import CATALOG, GROUPS
from tests.gguf_entries import GROUPS_WITH_GGUF, WITH_GGUF

FILE = "models.local.yaml"


def laid(text: str) -> Laid:
    return lay_text(CATALOG, GROUPS, text, FILE)


def good(text: str) -> Laid:
    found = laid(text)
    assert found.flaws == []
    return found


def new_entry(**changes: Any) -> dict[str, Any]:
    """A whole entry, of which nothing but what has a default is left out."""
    entry = CATALOG["coder-chat"].model_dump(mode="json")
    entry |= {"alias": "my-model", "served_name": "my-served-model", **changes}
    del entry["group"], entry["slo"], entry["evaluation"], entry["throughput"], entry["engine"]["image"]
    return entry


def as_file(*entries: dict[str, Any]) -> str:
    return yaml.safe_dump({"models": list(entries)}, sort_keys=False)


# --- overriding ------------------------------------------------------------------------------------------------


def test_a_known_alias_has_its_fields_changed_one_by_one_and_the_rest_stays() -> None:
    found = good("models:\n  - alias: coder-chat\n    context: 8192\n    engine: {max_num_seqs: 32}\n")
    before, after = CATALOG["coder-chat"], found.catalog["coder-chat"]
    engine = before.engine.model_copy(update={"max_num_seqs": 32})
    assert after == before.model_copy(update={"context": 8192, "engine": engine})
    assert found.overlaid["coder-chat"].fields == ("engine.max_num_seqs", "context")
    assert str(found.overlaid["coder-chat"]) == f"{FILE}:2"
    assert list(found.catalog) == list(CATALOG)
    assert all(found.catalog[alias] == CATALOG[alias] for alias in CATALOG if alias != "coder-chat")


def test_a_known_model_id_alone_means_its_entry() -> None:
    found = good("models:\n  - model_id: Qwen/Qwen2.5-Coder-7B-Instruct-AWQ\n    price: {output_usd_per_mtok: 2}\n")
    assert found.catalog["coder-chat"].price == PerToken(input_usd_per_mtok=0.5, output_usd_per_mtok=2)


def test_a_list_replaces_and_null_takes_away() -> None:
    found = good("models:\n  - alias: coder-agent\n    engine: {chat_template: null}\n    weights: {files: [x.json]}\n")
    spec = found.catalog["coder-agent"]
    assert isinstance(spec.engine, VllmEngine)
    assert (spec.engine.chat_template, spec.engine.tool_call_parser) == (None, "qwen2_5_coder")
    assert spec.weights is not None
    assert spec.weights.files == ("x.json",)


def test_an_engine_of_another_kind_stands_alone() -> None:
    text = """
models:
  - alias: embeddings
    engine: {kind: tei, cpu: 2}
  - alias: qwen-local
    engine: {kind: llama-cpp, threads: 2, quantization: Q8_0, files: [
      {quantization: Q8_0, file: a.gguf, bytes_on_disk: 500000000, sha256: null}]}
    weights: {format: gguf, quantization: gguf, files: [a.gguf], bytes_on_disk: 500000000}
"""
    found = good(text)
    tei, gguf = found.catalog["embeddings"].engine, found.catalog["qwen-local"].engine
    assert isinstance(tei, TeiEngine)
    assert (tei.cpu, tei.max_batch_tokens) == (2, 4096)
    assert isinstance(gguf, LlamaCppEngine)
    assert found.overlaid["qwen-local"].fields[0] == "engine"


def test_another_quantisation_of_a_gguf_model_is_another_file_to_stage() -> None:
    text = "models:\n  - alias: small-gguf\n    engine: {quantization: Q8_0}\n"
    found = lay_text(WITH_GGUF, GROUPS_WITH_GGUF, text, FILE)
    assert found.flaws == []
    spec = found.catalog["small-gguf"]
    assert spec.weights is not None
    assert isinstance(spec.engine, LlamaCppEngine)
    chosen = spec.engine.file()
    assert chosen is not None
    assert spec.weights.files == (chosen.file,)
    assert "Q8_0" in chosen.file


def test_another_model_takes_nothing_with_it_that_was_measured_on_the_one_before() -> None:
    other = new_entry(model_id="Qwen/Qwen3-8B-AWQ", served_name="qwen3-8b")
    patch = {key: other[key] for key in ("model_id", "served_name", "weights", "licence", "sources")}
    spec = good(as_file({"alias": "coder-chat", **patch})).catalog["coder-chat"]
    assert spec.evaluation.status == "none"
    assert spec.price == CATALOG["coder-chat"].price


# --- adding ----------------------------------------------------------------------------------------------------


def test_another_alias_is_a_new_entry_in_a_group_of_its_own_behind_the_others() -> None:
    found = good(as_file(new_entry()))
    assert list(found.catalog) == [*CATALOG, "my-model"]
    spec = found.catalog["my-model"]
    assert spec.group == "local"
    assert spec.engine == CATALOG["coder-chat"].engine
    assert found.overlaid["my-model"].what == "new"


def test_an_entry_survives_its_own_form() -> None:
    """What `ops add` writes is what was proposed."""
    for spec in CATALOG.values():
        entry = spec.model_dump(mode="json") | {"alias": "copied", "served_name": "served-copy"}
        made = good(yaml.safe_dump({"models": [entry]})).catalog["copied"]
        assert made == spec.model_copy(update={"alias": "copied", "served_name": "served-copy"})


@pytest.mark.parametrize("text", ["", "models:\n", "models: []\n", "# nothing yet\n", "null\n"])
def test_an_overlay_of_nothing_changes_nothing(text: str) -> None:
    found = good(text)
    assert found.catalog == CATALOG
    assert found.overlaid == {}


# --- what is wrong -----------------------------------------------------------------------------------------------

WRONG = {
    "a field that there is not": (
        "models:\n  - alias: coder-chat\n    contxt: 8192\n",
        3,
        "coder-chat: contxt is no field here; did you mean 'context'?",
    ),
    "one further in": (
        "models:\n  - alias: coder-chat\n    engine:\n      max_seqs: 8\n",
        4,
        "engine.max_seqs is no field here; did you mean 'max_num_seqs'?",
    ),
    "one of an architecture": (
        "models:\n  - alias: coder-chat\n    weights:\n      architecture:\n        layer: 8\n",
        5,
        "weights.architecture.layer is no field here; did you mean 'layers'?",
    ),
    "a word for a number": ("models:\n  - alias: coder-chat\n    context: long\n", 3, "context: should be a valid int"),
    "a number in quotes": (
        'models:\n  - alias: coder-chat\n    context: "8192"\n',
        3,
        "context: should be a valid int",
    ),
    "true for a number": ("models:\n  - alias: coder-chat\n    context: true\n", 3, "context: should be a valid int"),
    "a bound": (
        "models:\n  - alias: coder-chat\n    engine: {gpu_memory_utilization: 1.5}\n",
        3,
        "engine.gpu_memory_utilization: should be less than or equal to 1: 1.5",
    ),
    "an engine that there is not": ("models:\n  - alias: coder-chat\n    engine: {kind: sglang}\n", 3, "'sglang'"),
    "a group that there is not": ("models:\n  - alias: coder-chat\n    group: mine\n", 2, "no group 'mine'"),
    "what the entry as a whole refuses": (
        "models:\n  - alias: coder-chat\n    context: 99999999\n",
        2,
        "context 99999999 exceeds the model's 32768 positions",
    ),
    "a served name that is taken": (
        "models:\n  - alias: coder-chat\n    served_name: qwen2.5-coder-1.5b\n",
        2,
        "served_name 'qwen2.5-coder-1.5b' is taken",
    ),
    "an alias that is misspelt": (
        "models:\n  - alias: coder-caht\n    context: 8192\n",
        2,
        "(or did you mean 'coder-chat'?), so it is a new one, and lacks ",
    ),
    "another alias for a model that is there": (
        "models:\n  - alias: zzz\n    model_id: BAAI/bge-base-en-v1.5\n",
        2,
        "(or did you mean 'embeddings'?)",
    ),
    "another model alone": (
        "models:\n  - alias: coder-chat\n    model_id: Qwen/Other\n",
        3,
        "another model_id is another model, so weights, licence and sources must be said too",
    ),
    "an entry twice": (
        "models:\n  - alias: coder-chat\n    context: 8192\n  - alias: coder-chat\n    context: 4096\n",
        4,
        "is in this file already, in line 2",
    ),
    "no alias": ("models:\n  - context: 8192\n", 2, "add `alias: `"),
    "an alias that is no text": ("models:\n  - alias: [a]\n", 2, "an alias is text"),
    "an alias that is no name": (as_file(new_entry(alias="My Model")), 2, "alias: String should match"),
    "layers that nobody could list": (
        "models:\n  - alias: coder-chat\n    weights: {architecture: {layers: 100000000}}\n",
        3,
        "weights.architecture.layers: should be less than or equal to 1000",
    ),
    "a number beyond all bounds": (
        "models:\n  - alias: coder-chat\n    context: 9999999999999999\n",
        3,
        "is more than",
    ),
    "a text that cannot be shown": ('models:\n  - alias: coder-chat\n    summary: "a\\e[31m"\n', 3, "can be shown"),
    "no list": ("models:\n  coder-chat:\n    context: 1\n", 1, "`models:` is a list"),
    "no entry": ("models:\n  - coder-chat\n", 2, "is no entry"),
    "no mapping": ("- alias: coder-chat\n", 1, "it has to begin with `models:`"),
    "another key": ("modles:\n  - alias: coder-chat\n", 1, "'modles' means nothing here"),
    "a key twice": ("models:\n  - alias: coder-chat\n    context: 1\n    context: 2\n", 4, "there already"),
    "no YAML": ("models:\n  - alias: [\n", 3, "no valid YAML"),
    "an alias of nothing": ("models: *nothing\n", 1, "an alias of nothing"),
    "an anchor in itself": ("models: &a [*a]\n", 1, "contains itself"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_told_with_its_line_and_the_rest_of_the_catalog_stays(wrong: str) -> None:
    text, line, said = WRONG[wrong]
    found = laid(text)
    assert [said in flaw.message for flaw in found.flaws].count(True) == 1, found.flaws
    (flaw,) = [flaw for flaw in found.flaws if said in flaw.message]
    assert flaw.message.startswith(f"{FILE}:{line}: "), flaw.message
    assert flaw.remedy == f"${{EDITOR:-vi}} +{line} {FILE}"
    assert {alias: spec for alias, spec in found.catalog.items() if alias not in found.overlaid} == {
        alias: spec for alias, spec in CATALOG.items() if alias not in found.overlaid
    }


def test_all_that_is_wrong_is_told_at_once() -> None:
    text = """models:
  - alias: coder-chat
    contxt: 1
    engine: {max_num_seqs: none, gpus: 99}
  - alias: coder-fim
    price: {kind: per_mile}
  - nothing
  - alias: qwen-local
    context: 4096
"""
    found = laid(text)
    assert [flaw.message.split(":")[1] for flaw in found.flaws] == ["4", "4", "3", "6", "7"]
    assert found.catalog["qwen-local"].context == 4096


def test_a_bomb_of_aliases_is_refused_before_it_is_built() -> None:
    levels = "".join(f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    started = time.monotonic()
    found = laid(f"models:\n  a0: &a0 [1]\n{levels}")
    assert "aliases counted" in found.flaws[0].message
    assert time.monotonic() - started < 5


HOSTILE = [
    *(
        f"models:\n  - alias: coder-chat\n    {name}: {value}\n"
        for name in ModelSpec.model_fields
        for value in (
            "null",
            "1",
            "-1",
            "[]",
            "{}",
            "''",
            "[[[1]]]",
            "2026-01-01",
            "!!binary aGk=",
            "{kind: null}",
            "1e300",
            "true",
        )
    ),
    "[" * 5000,
    "{" * 5000,
    "models:\n" + "  - alias: coder-chat\n" * 2000,
    "\x00",
    "%YAML 9.9\n---\na: 1\n",
    "models:\n  - ? [a]\n    : 1\n",
    "models:\n  - 1: 2\n",
    "models:\n  - <<: {alias: coder-chat}\n    contxt: 1\n",
    "--- 1\n--- 2\n",
    "models:\n  - alias: coder-chat\n    weights: {architecture: {kind: encoder}}\n",
    "models:\n  - alias: embeddings\n    engine: {cpu: 1e-300}\n",
    "models:\n  - alias: coder-chat\n    engine: {kind: external, provider: anthropic}\n",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_file_ends_in_a_traceback(text: str) -> None:
    found = laid(text)
    assert all(flaw.message.startswith(f"{FILE}:") for flaw in found.flaws)


def test_a_merge_of_yaml_is_told_where_it_is_merged() -> None:
    found = laid("models:\n  - <<: {alias: coder-chat}\n    contxt: 1\n")
    assert found.flaws[0].message.startswith(f"{FILE}:3: coder-chat: contxt")


# --- which file ----------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MODELS_LOCAL")
    monkeypatch.setattr(catalog, "_CHECKOUT", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", catalog.OVERLAYS)
def test_either_ending_is_read(checkout: Path, name: str) -> None:
    (checkout / name).write_text("models: [{alias: coder-chat, context: 4096}]\n")
    found, overlaid, flaws = catalog.with_overlay(CATALOG, GROUPS)
    assert (found["coder-chat"].context, flaws) == (4096, ())
    assert overlaid["coder-chat"].file == name


def test_of_two_neither_is_read(checkout: Path) -> None:
    for name in catalog.OVERLAYS:
        (checkout / name).write_text("models:\n")
    found, _, flaws = catalog.with_overlay(CATALOG, GROUPS)
    assert found is CATALOG
    assert "are both there" in flaws[0].message


def test_without_one_the_catalog_is_itself(checkout: Path) -> None:
    assert catalog.with_overlay(CATALOG, GROUPS) == (CATALOG, {}, ())


def test_the_environment_names_another_or_none(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / "models.local.yaml").write_text("models: [{alias: coder-chat, context: 4096}]\n")
    other = checkout / "other.yaml"
    other.write_text("models: [{alias: coder-chat, context: 2048}]\n")
    monkeypatch.setenv("MODELS_LOCAL", str(other))
    assert catalog.with_overlay(CATALOG, GROUPS)[0]["coder-chat"].context == 2048
    monkeypatch.setenv("MODELS_LOCAL", "")
    assert catalog.with_overlay(CATALOG, GROUPS)[0] is CATALOG


@pytest.mark.parametrize("make", ["directory", "dangling", "binary"])
def test_what_cannot_be_read_is_told(tmp_path: Path, make: str) -> None:
    path = tmp_path / "mine.yaml"
    match make:
        case "directory":
            path.mkdir()
        case "dangling":
            path.symlink_to(tmp_path / "nowhere")
        case _:
            path.write_bytes(b"\xff\xfe")
    found = lay_over(CATALOG, GROUPS, path)
    assert "cannot be read" in found.flaws[0].message
    assert found.catalog == CATALOG


def test_the_form_of_the_catalog_is_json(tmp_path: Path) -> None:
    entry = new_entry()
    (tmp_path / FILE).write_text(json.dumps({"models": [entry]}))  # JSON is YAML
    assert lay_over(CATALOG, GROUPS, tmp_path / FILE).flaws == []
