"""The rows that the reference deployment documents, as the shipped catalog has them. Other entries are not looked at.

A deployment of your own that changes one of them on purpose deletes its row here.
"""

from __future__ import annotations

import pytest

from models.cpu_registry import RECOMMENDED, STATED, Recommended, longest_context
from models.facts import PerToken
from tests.shipped import CATALOG

# alias: group, engine, context, price in and out per million tokens
ROWS: dict[str, tuple[str, str, int | None, float, float]] = {
    "qwen-local": ("baseline", "vllm", 8192, 0.5, 1.5),
    "coder-chat": ("coding-assistant", "vllm", 16_384, 0.5, 1.5),
    "coder-fim": ("coding-assistant", "vllm", 8192, 0.2, 0.4),
    "coder-agent": ("coding-assistant", "vllm", 16_384, 0.5, 1.5),
    "coder-mini": ("coding-assistant", "vllm", 16_384, 0.5, 1.5),
    "embeddings": ("retrieval", "tei", 512, 0.1, 0),
    "claude-haiku": ("providers", "external", None, 1, 5),
}


@pytest.mark.parametrize("alias", ROWS)
def test_a_row_of_the_reference_deployment_is_catalogued_as_documented(alias: str) -> None:
    assert alias in CATALOG, (
        f"{alias} of the reference deployment is gone; on purpose? then delete its row in this file"
    )
    spec = CATALOG[alias]
    assert isinstance(spec.price, PerToken)
    prices = (spec.price.input_usd_per_mtok, spec.price.output_usd_per_mtok)
    found = (spec.group, spec.engine.name(), spec.context, *prices)
    assert found == ROWS[alias], f"{alias} differs from its documentation; on purpose? then delete its row in this file"


# alias: model, context, file at the recommended quantisation, as the repository spells it
REGISTRY = {
    "tinyllama": ("TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF", 2048, "tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf"),
    "phi-3-mini": ("microsoft/Phi-3-mini-4k-instruct-gguf", 4096, "Phi-3-mini-4k-instruct-q4.gguf"),
    "llama-2-7b": ("TheBloke/Llama-2-7B-Chat-GGUF", 4096, "llama-2-7b-chat.Q4_K_M.gguf"),
}


@pytest.mark.parametrize("alias", REGISTRY)
def test_a_model_of_the_cpu_registry_is_catalogued_under_the_names_that_its_hub_knows(alias: str) -> None:
    assert alias in CATALOG, f"{alias} of the CPU registry is gone; on purpose? then delete its row in this file"
    spec = CATALOG[alias]
    assert spec.weights
    assert (spec.model_id, spec.context, *spec.weights.files) == REGISTRY[alias]
    assert (spec.group, spec.engine.name()) == ("gguf", "llama-cpp")
    assert alias in {row.alias for row in STATED}


@pytest.mark.parametrize("row", RECOMMENDED, ids=lambda row: row.machine.name)
def test_a_recommended_machine_holds_its_models_but_for_8_gib_with_llama_2(row: Recommended) -> None:
    for spec in (CATALOG[alias] for alias in row.aliases if alias in CATALOG):
        holds = longest_context(spec, row.machine) == spec.context
        assert holds == (not (spec.alias == "llama-2-7b" and row.machine.memory_gib <= 8)), spec.alias
