"""`ops add`: from a hub on loopback, a folder or a GGUF file to an entry that plans, shown before it is written."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.catalog.overlay import lay_text
from models.engines.llama_cpp import LlamaCppEngine
from models.engines.tei import TeiEngine
from models.engines.vllm import VllmEngine
from models.spec import ModelSpec
from models.tasks import Task
from ops.add.parsers import tool_parsers
from ops.add.propose import free_alias, quantization_of, trimmed
from ops.cli import main
from ops.overlay_file import with_entry
from tests.catalog import CATALOG, GROUPS
from tests.checkout import PROJECT_DIR
from tests.components.hub import Failure, Hub
from tests.models.hf_configs import CONFIGS

COMMIT = "c0ffee" + "0" * 34
HERMES = "{%- if tools %}<tool_call>{%- endif %}"
_AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}

# config.json as their repositories have it, without what nothing here reads.
QWEN3_8B_AWQ: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "head_dim": 128,
    "hidden_size": 4096,
    "intermediate_size": 12_288,
    "max_position_embeddings": 40_960,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "rope_scaling": None,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "use_sliding_window": False,
    "vocab_size": 151_936,
    "quantization_config": _AWQ | {"modules_to_not_convert": None, "version": "gemm"},
}
DEVSTRAL: dict[str, Any] = CONFIGS["Mistral-Small-3.2"] | {
    "architectures": ["Mistral3ForConditionalGeneration"],
    "dtype": "bfloat16",
    "quantization_config": {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 128, "symmetric": True}}},
        "ignore": ["lm_head", "re:.*vision_tower.*", "re:.*multi_modal_projector.*"],
    },
}
VISION: dict[str, Any] = CONFIGS["Qwen2.5-VL-3B"] | {"architectures": ["Qwen2_5_VLForConditionalGeneration"]}
RERANKER: dict[str, Any] = {
    "architectures": ["XLMRobertaForSequenceClassification"],
    "model_type": "xlm-roberta",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "max_position_embeddings": 8194,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "torch_dtype": "float32",
    "vocab_size": 250_002,
}
EMBEDDER = RERANKER | {"architectures": ["XLMRobertaModel"]}
BASE: dict[str, Any] = QWEN3_8B_AWQ | {"quantization_config": None, "num_hidden_layers": 12, "torch_dtype": "bfloat16"}


def files_of(config: Mapping[str, Any], *, template: str | None = None, **others: bytes | str) -> dict[str, bytes]:
    tokenizer = {"chat_template": template} if template else {}
    texts = {
        "config.json": json.dumps(config),
        "tokenizer_config.json": json.dumps(tokenizer),
        "tokenizer.json": "{}",
        "README.md": "# a model",
    }
    given = {name.replace("__", "/").replace("_DOT_", "."): body for name, body in others.items()}
    return {name: body.encode() if isinstance(body, str) else body for name, body in {**texts, **given}.items()}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with Hub({COMMIT: {}}, default=COMMIT, failures=[]) as made:
        made.about = {"cardData": {"license": "apache-2.0"}, "pipeline_tag": "text-generation", "gated": False}
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        yield made


def offer(hub: Hub, model_id: str, files: Mapping[str, bytes], weights: int, **about: object) -> None:
    """Put a model there, of weights as large as that."""
    hub.repo = model_id
    hub.revisions[COMMIT] = {**files, "model.safetensors": b"weights"} if weights else files
    hub.stated = {"model.safetensors": weights}
    hub.about |= about


@pytest.fixture
def overlay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text("")
    monkeypatch.setenv("MODELS_LOCAL", str(file))
    return file


def add(*arguments: str) -> int:
    return main(["add", *arguments, "--project-dir", str(PROJECT_DIR)])


def entry(overlay: Path, alias: str) -> ModelSpec:
    laid = lay_text(CATALOG, GROUPS, overlay.read_text(), overlay.name)
    assert laid.flaws == []
    return laid.catalog[alias]


# --- four that a new user would try --------------------------------------------------------------------------------


def test_a_model_of_the_hub_becomes_an_entry_that_plans(
    hub: Hub, overlay: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(hub, "Qwen/Qwen3-8B-AWQ", files_of(QWEN3_8B_AWQ, template=HERMES, merges_DOT_txt="a b"), 6_100_000_000)
    assert add("Qwen/Qwen3-8B-AWQ", "--yes") == 0
    told = capsys.readouterr().out
    spec = entry(overlay, "qwen3-8b-awq")
    assert isinstance(spec.engine, VllmEngine)
    assert (spec.task, spec.engine.tool_call_parser, spec.engine.kernel) == (Task.AGENT, "hermes", "awq_marlin")
    assert spec.weights is not None
    assert (spec.weights.revision, spec.weights.bytes_on_disk) == (COMMIT, 6_100_000_000)
    assert spec.weights.files == ("model*.safetensors", "*.json", "merges.txt")
    assert (spec.licence.name, spec.licence.commercial_use) == ("Apache-2.0", True)
    fit = spec.engine.fit(spec)
    assert fit.fits
    assert fit.concurrency >= 4
    assert "+  - alias: qwen3-8b-awq" in told
    assert "stack ai-dev with it enabled plans" in told
    assert "pulumi config set qwen3-8b-awq:enabled true" in told
    assert "its chat template has <tool_call>" in told


def test_a_devstral_is_an_agent_of_mistral_s_parser(hub: Hub, overlay: Path) -> None:
    name = "someone/Devstral-Small-2-24B-Instruct-2512-AWQ-4bit"
    offer(hub, name, files_of(DEVSTRAL, template="{% if tools %}[AVAILABLE_TOOLS]"), 14_100_000_000)
    assert add(name, "--as", "devstral", "--yes") == 0
    spec = entry(overlay, "devstral")
    assert isinstance(spec.engine, VllmEngine)
    assert (spec.task, spec.engine.tool_call_parser) == (Task.AGENT, "mistral")
    assert spec.engine.fit(spec).fits


def test_a_vision_model_keeps_its_encoder(hub: Hub, overlay: Path) -> None:
    offer(hub, "Qwen/Qwen2.5-VL-3B-Instruct", files_of(VISION, template=HERMES), 7_500_000_000)
    assert add("Qwen/Qwen2.5-VL-3B-Instruct", "--yes") == 0
    spec = entry(overlay, "qwen2-5-vl-3b-instruct")
    assert spec.task.value == ("vision" if "vision" in set(Task) else "chat")
    assert spec.weights is not None
    assert spec.weights.architecture.kind == "decoder"
    assert spec.weights.architecture.tower is not None


def test_a_reranker_is_served_where_there_is_a_route_for_it(
    hub: Hub, overlay: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(hub, "BAAI/bge-reranker-v2-m3", files_of(RERANKER), 2_270_000_000, pipeline_tag="text-classification")
    code = add("BAAI/bge-reranker-v2-m3", "--yes")
    if "rerank" not in set(Task):
        assert code == 2
        assert "is for rerank, which nothing serves in this version" in capsys.readouterr().err
        return
    assert code == 0
    spec = entry(overlay, "bge-reranker-v2-m3")
    assert (spec.task.value, spec.price.kind) == ("rerank", "per_query")


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", "coder-chat", "qwen2.5-coder-7b-instruct-awq"])
def test_what_is_in_the_catalog_is_answered_with_the_command_that_enables_it(
    name: str, overlay: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(name) == 0
    told = capsys.readouterr().out
    assert "pulumi config set coder-chat:enabled true && pulumi up" in told
    assert overlay.read_text() == ""


# --- other kinds ---------------------------------------------------------------------------------------------------


def test_an_encoder_is_on_cpu_with_the_pooling_that_its_repository_says(hub: Hub, overlay: Path) -> None:
    pooling = json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})
    files = files_of(EMBEDDER, **{"1_Pooling__config.json": pooling})
    offer(hub, "BAAI/bge-m3", files, 2_270_000_000, pipeline_tag="sentence-similarity")
    assert add("BAAI/bge-m3", "--yes") == 0
    spec = entry(overlay, "bge-m3")
    assert isinstance(spec.engine, TeiEngine)
    assert (spec.task, spec.engine.pooling, spec.served_name) == (Task.EMBEDDING, "cls", "BAAI/bge-m3")
    assert spec.context is not None
    assert spec.context <= 8192
    needs = spec.engine.needs(spec)
    assert needs is not None
    assert needs.gib <= 6


def test_a_base_model_completes(hub: Hub, overlay: Path) -> None:
    offer(hub, "some/Base-3B", files_of(BASE), 6_000_000_000)
    assert add("some/Base-3B", "--yes") == 0
    assert entry(overlay, "base-3b").task is Task.FIM


def head(vocabulary: int = 8) -> bytes:
    """Of a GGUF file of Llama's shape, with more behind it that is cut off."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    numbers = {
        "block_count": 22,
        "embedding_length": 2048,
        "feed_forward_length": 5632,
        "attention.head_count": 32,
        "attention.head_count_kv": 4,
        "context_length": 2048,
    }
    body = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    body += b"".join(text(f"llama.{k}") + struct.pack("<II", 4, v) for k, v in numbers.items())
    body += text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 32_000) + text("<s>") * vocabulary
    return b"GGUF" + struct.pack("<IQQ", 3, 201, 24) + body


def test_a_gguf_repository_is_on_llama_cpp_with_all_its_files(
    hub: Hub, overlay: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repo = "someone/Small-GGUF"
    names = ("small.Q4_K_M.gguf", "small.Q8_0.gguf", "small-00001-of-00002.gguf")
    hub.revisions[COMMIT] = {name: head() for name in names}
    hub.stated = {"small.Q4_K_M.gguf": 668_788_096, "small.Q8_0.gguf": 1_170_781_568}
    assert add("someone/Small-GGUF", "--yes", "--as", "small") == 0
    spec = entry(overlay, "small")
    assert isinstance(spec.engine, LlamaCppEngine)
    assert [f.quantization for f in spec.engine.files] == ["Q4_K_M", "Q8_0"]
    assert spec.weights is not None
    assert spec.weights.digests == (("small.Q4_K_M.gguf", "a" * 64),)
    assert spec.weights.architecture.vocab == 32_000
    assert (spec.context, spec.price.kind) == (2048, "per_token")
    assert add("someone/Small-GGUF", "--quantization", "Q5_K_M", "--as", "other", "--yes") == 2
    assert "no file of Q5_K_M, but of q4_k_m, q8_0" in capsys.readouterr().err


def test_a_gguf_file_here_wants_to_know_where_it_is_from(
    tmp_path: Path, overlay: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.Q4_K_M.gguf"
    file.write_bytes(head())
    assert add(str(file), "--yes") == 2
    assert "--model-id ORGANISATION/NAME" in capsys.readouterr().err
    assert add(str(file), "--model-id", "someone/Small-GGUF", "--yes") == 0
    assert entry(overlay, "small-gguf").weights is not None


@pytest.mark.parametrize("body", [b"", b"GGUF", b"GGML" + b"\0" * 40, head()[:40], b"GGUF" + b"\xff" * 60])
def test_what_is_no_gguf_file_is_refused(
    body: bytes, tmp_path: Path, overlay: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.Q4_0.gguf").write_bytes(body)
    assert add(str(tmp_path / "x.Q4_0.gguf"), "--model-id", "a/b", "--yes") == 2
    assert "refused: " in capsys.readouterr().err


# --- without a network ---------------------------------------------------------------------------------------------


def test_offline_it_says_what_to_download_and_takes_the_folder_then(
    tmp_path: Path, overlay: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert add("Qwen/Qwen3-8B-AWQ") == 2
    told = capsys.readouterr().err
    for word in ("config.json", "model.safetensors.index.json", "hf download Qwen/Qwen3-8B-AWQ", "HF_ENDPOINT"):
        assert word in told
    assert "remedy: ops add model --model-id Qwen/Qwen3-8B-AWQ" in told
    folder = tmp_path / "model"
    folder.mkdir()
    index = json.dumps({"metadata": {"total_size": 6_099_000_000}, "weight_map": {}})
    for name, body in files_of(QWEN3_8B_AWQ, template=HERMES, model_DOT_safetensors_DOT_index_DOT_json=index).items():
        (folder / name).write_bytes(body)
    assert add(str(folder), "--model-id", "Qwen/Qwen3-8B-AWQ", "--yes") == 0
    spec = entry(overlay, "qwen3-8b-awq")
    assert spec.weights is not None
    assert (spec.weights.bytes_on_disk, spec.weights.revision) == (6_099_000_000, None)
    assert spec.task is Task.AGENT
    assert "ops pin looks it up" in capsys.readouterr().out


def test_a_config_alone_is_enough_and_says_what_it_computed(
    tmp_path: Path, overlay: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(QWEN3_8B_AWQ | {"_name_or_path": "Qwen/Qwen3-8B-AWQ"}))
    assert add(str(file), "--yes") == 0
    assert "computed from the config" in capsys.readouterr().out
    assert entry(overlay, "qwen3-8b-awq").task is Task.CHAT


# --- what cannot be -------------------------------------------------------------------------------------------------


REFUSED: Mapping[str, tuple[dict[str, bytes], int, str]] = {
    "pickle only": (files_of(QWEN3_8B_AWQ, pytorch_model_DOT_bin=b"x"), 0, "bin weights only"),
    "Mistral's own form only": (files_of(DEVSTRAL, consolidated_DOT_safetensors=b"x"), 0, "Mistral's own form only"),
    "too large": (files_of(QWEN3_8B_AWQ), 60_000_000_000, "does not fit 1 x L4"),
    "an unknown family": (files_of({"model_type": "mamba9", "num_hidden_layers": 1}), 1_000, "none that the memory"),
    "no JSON": (files_of({}) | {"config.json": b"{"}, 1_000, "config.json is no JSON"),
    "no list": (files_of({}) | {"config.json": b"[]"}, 1_000, "some/model"),
    "nothing": ({"README.md": b""}, 0, "nothing says what it is made of"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_served_is_refused_and_nothing_is_written(
    why: str, hub: Hub, overlay: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, weights, said = REFUSED[why]
    offer(hub, "some/model", files, weights)
    assert add("some/model", "--yes") == 2
    told = capsys.readouterr().err
    assert said in told
    assert "remedy: " in told
    assert overlay.read_text() == ""


def test_more_gpus_are_proposed_where_they_hold_it(hub: Hub, overlay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    offer(hub, "some/model", files_of(QWEN3_8B_AWQ), 24_000_000_000)
    assert add("some/model", "--yes") == 2
    assert "remedy: ops add some/model --gpus 2" in capsys.readouterr().err


def test_a_mirror_that_states_no_sizes_is_believed_about_the_index(hub: Hub, overlay: Path) -> None:
    index = json.dumps({"metadata": {"total_size": 6_099_000_000}, "weight_map": {}})
    files = files_of(QWEN3_8B_AWQ, model_DOT_safetensors_DOT_index_DOT_json=index)
    offer(hub, "some/model", files, 1)
    hub.stated, hub.states_blobs = {}, False
    assert add("some/model", "--yes") == 0
    spec = entry(overlay, "model")
    assert spec.weights is not None
    assert spec.weights.bytes_on_disk == 6_099_000_000


def test_an_address_with_a_password_is_refused_and_not_told(
    overlay: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://someone:hunter2@127.0.0.1:9")
    assert add("some/model") == 2
    assert "hunter2" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "said"), [(401, "gated, private, or misspelt"), (404, "does not know"), (429, "it answers 429")]
)
def test_what_the_hub_refuses_is_told(
    status: int, said: str, hub: Hub, overlay: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(hub, "some/model", files_of(QWEN3_8B_AWQ), 6_000_000_000)
    hub.failures.append(Failure("/api/models", status=status, times=9))
    assert add("some/model", "--yes") == 2
    assert said in capsys.readouterr().err


def test_the_token_is_shown_to_the_hub_alone_and_nowhere_told(
    hub: Hub, overlay: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    offer(hub, "some/model", files_of(QWEN3_8B_AWQ), 6_000_000_000, gated="manual")
    assert add("some/model", "--yes") == 0
    assert hub.authorizations == {"Bearer hf_secretsecretsecret"}
    assert not any("hf_secret" in seen for seen in hub.seen_elsewhere)
    captured = capsys.readouterr()
    assert "hf_secret" not in captured.out + captured.err + overlay.read_text()
    spec = entry(overlay, "model")
    assert spec.weights is not None
    assert spec.weights.gated


def test_an_unknown_licence_counts_as_none_for_commerce_and_says_so(
    hub: Hub, overlay: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = {"cardData": {"license": "other", "license_name": "my-terms"}}
    offer(hub, "some/model", files_of(QWEN3_8B_AWQ), 6_000_000_000, **about)
    assert add("some/model", "--yes") == 0
    assert "licence my-terms: nobody here knows" in capsys.readouterr().out
    assert not entry(overlay, "model").licence.commercial_use


@pytest.mark.parametrize(
    "name", ["nonsense", "a/b/c", "./no/such.json", "missing.gguf", "/no/where", "ü/ö", "", "a/b?x=1", "a/..", "a b/c"]
)
def test_what_is_no_model_is_refused(name: str, overlay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert add(name, "--yes") == 2
    assert "refused: " in capsys.readouterr().err


# --- the two procedures of day two -----------------------------------------------------------------------------------


def test_the_model_of_an_endpoint_is_changed_and_the_endpoint_stays(
    hub: Hub, overlay: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(hub, "Qwen/Qwen3-8B-AWQ", files_of(QWEN3_8B_AWQ, template=HERMES), 6_100_000_000)
    assert add("Qwen/Qwen3-8B-AWQ", "--replace", "coder-chat", "--yes") == 0
    before, after = CATALOG["coder-chat"], entry(overlay, "coder-chat")
    same = ("alias", "group", "task", "price")
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
    assert after.model_id == "Qwen/Qwen3-8B-AWQ"
    assert after.evaluation.status == "none"
    told = capsys.readouterr().out
    assert "in place of Qwen/Qwen2.5-Coder-7B-Instruct-AWQ as coder-chat" in told
    # Again, with another: in place of the first, not beside it.
    offer(hub, "some/model", files_of(BASE, template=HERMES), 3_000_000_000)
    assert add("some/model", "--replace", "coder-chat", "--yes") == 0
    assert entry(overlay, "coder-chat").model_id == "some/model"
    assert overlay.read_text().count("alias: coder-chat") == 1


def test_nothing_of_the_model_before_is_left_behind(hub: Hub, overlay: Path) -> None:
    """Its experts, its tower, its parser: what the new one has not is taken away."""
    offer(hub, "some/model", files_of(BASE, template=HERMES), 3_000_000_000)
    assert add("some/model", "--replace", "coder-agent", "--yes") == 0
    spec = entry(overlay, "coder-agent")
    assert isinstance(spec.engine, VllmEngine)
    assert (spec.engine.tool_call_parser, spec.engine.tool_parser_plugin, spec.engine.chat_template) == (
        "hermes",
        None,
        None,
    )


def test_another_kind_of_model_does_not_take_over_an_endpoint(
    hub: Hub, overlay: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(hub, "BAAI/bge-m3", files_of(EMBEDDER), 2_270_000_000)
    assert add("BAAI/bge-m3", "--replace", "coder-chat", "--yes") == 2
    assert "refused: " in capsys.readouterr().err
    assert overlay.read_text() == ""


@pytest.mark.parametrize("alias", ["claude-haiku", "embeddings"])
def test_another_engine_does_not_either(
    alias: str, hub: Hub, overlay: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(hub, "some/model", files_of(BASE, template=HERMES), 3_000_000_000)
    assert add("some/model", "--replace", alias, "--yes", "--task", "chat") == 2
    assert "remedy: ops add some/model --as model" in capsys.readouterr().err
    assert overlay.read_text() == ""


def test_an_endpoint_of_a_taken_name_is_refused(hub: Hub, overlay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert add("some/model", "--as", "coder-chat") == 2
    assert "ops add some/model --replace coder-chat" in capsys.readouterr().err


# --- shown before it is written --------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_nothing_is_written_where_nobody_agreed(
    flags: tuple[str, ...], hub: Hub, overlay: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(hub, "some/model", files_of(QWEN3_8B_AWQ), 6_000_000_000)
    assert add("some/model", *flags) == (0 if flags else 1)
    assert "+  - alias: model" in capsys.readouterr().out
    assert overlay.read_text() == ""


@pytest.mark.parametrize(("answer", "written"), [("y\n", True), ("\n", False), ("no\n", False), ("", False)])
def test_on_a_terminal_it_asks(
    answer: str, written: bool, hub: Hub, overlay: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    offer(hub, "some/model", files_of(QWEN3_8B_AWQ), 6_000_000_000)
    assert add("some/model") == (0 if written else 1)
    assert bool(overlay.read_text()) is written


FORMS = {
    "nothing": "",
    "a comment": "# mine\n",
    "an empty list": "models:\n",
    "a list of nothing": "models: []  # none\n",
    "another entry": "models:\n  - alias: coder-chat\n    context: 8192  # short\n",
    "a list at the margin": "models:\n- alias: coder-chat\n  context: 8192\n",
    "a list far in": "models:\n      - alias: coder-chat\n        context: 8192\n",
    "no line end": "models:\n  - alias: coder-chat\n    context: 8192",
    "blank lines": "\n\nmodels:\n\n  - alias: coder-chat\n    context: 8192\n\n\n# the end\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_what_stands_in_the_file_stays_as_it_is(form: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(FORMS[form])
    spec = CATALOG["coder-fim"].model_copy(update={"alias": "mine", "served_name": "mine-served"})
    edit = with_entry(file, trimmed(spec), spec)
    kept = [line for line in FORMS[form].splitlines() if line.strip() and not line.startswith("models:")]
    assert all(line in edit.after.splitlines() for line in kept)
    edit.write()
    assert entry(file, "mine") == spec
    assert list(tmp_path.iterdir()) == [file]


def test_a_form_that_is_not_edited_is_left_to_its_author_with_the_entry(
    hub: Hub, overlay: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "models: [{alias: coder-chat, context: 8192}]\n"
    overlay.write_text(text)
    offer(hub, "some/model", files_of(QWEN3_8B_AWQ), 6_000_000_000)
    assert add("some/model", "--yes") == 2
    assert "alias: model" in capsys.readouterr().err
    assert overlay.read_text() == text


@pytest.mark.parametrize("alias", CATALOG)
def test_the_form_of_an_entry_says_all_of_it(alias: str) -> None:
    spec = CATALOG[alias].model_copy(update={"alias": "mine", "served_name": "mine-served"})
    made = lay_text({}, GROUPS, yaml.safe_dump({"models": [trimmed(spec)]}), "x")
    assert made.flaws == []
    assert made.catalog["mine"] == spec


# --- parts -----------------------------------------------------------------------------------------------------------


def test_every_parser_that_is_proposed_is_one_of_vllm_or_ours() -> None:
    fixture = Path(__file__).parents[1] / "components" / "fixtures" / "vllm-0.23.0-args.json"
    known = {*json.loads(fixture.read_text())["toolCallParsers"], "qwen2_5_coder"}
    templates = (
        "<|channel|>",
        "<function=",
        "[TOOL_CALLS]",
        "<|python_tag|>",
        "<arg_key>",
        "<tool_call>",
        "<|tool_call|>",
    )
    for family in ("gpt_oss", "mistral", "mistral3", "ministral3", "seed_oss", "gemma4", "olmo3", "qwen3"):
        for template in templates:
            found = tool_parsers("some/model", family, f"tools {template}")
            assert found is not None
            assert found.fields["tool_call_parser"] in known
    ours = tool_parsers("Qwen/Qwen2.5-Coder-14B-Instruct-AWQ", "qwen2", None)
    assert ours is not None
    assert ours.fields["tool_call_parser"] == "qwen2_5_coder"
    assert tool_parsers("some/model", "llama", "no such thing") is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama-2-7b-chat.Q4_K_M.gguf", "Q4_K_M"),
        ("Phi-3-mini-4k-instruct-q4.gguf", "q4"),
        ("Phi-3-mini-4k-instruct-fp16.gguf", "fp16"),
        ("qwen2.5-coder-7b-instruct-iq3_xs.gguf", "iq3_xs"),
        ("model-BF16.gguf", "BF16"),
        ("model.gguf", None),
    ],
)
def test_a_file_s_name_says_its_quantisation(name: str, expected: str | None) -> None:
    assert quantization_of(name) == expected


def test_an_alias_is_a_free_name() -> None:
    assert free_alias("Qwen/Qwen3-8B-AWQ") == "qwen3-8b-awq"
    assert free_alias("x/coder-chat") == "coder-chat-2"
    assert free_alias("x/7B") == "m-7b"
    assert free_alias("x/" + "a" * 90) == "a" * 44
