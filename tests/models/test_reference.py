"""The rows that the reference deployment documents, as the shipped catalog has them. Other entries are not looked at.

A deployment of your own that changes one of them on purpose deletes its row here.
"""

from __future__ import annotations

import pytest

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
