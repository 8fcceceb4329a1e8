"""What the types of a catalog entry refuse, and the images that engines and gateway run in."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from models.engines.vllm import VllmEngine
from models.facts import Evidence, Image, PerAudioSecond, PerQuery, PerToken, Source
from models.images import LITELLM, POSTGRES, TEI_CPU, VLLM
from models.spec import ModelSpec
from models.weights import Weights
from tests.catalog import CATALOG
from tests.guide_entries import RERANKER, SPEECH, VECTORS, VISION

# --- the types refuse what would go wrong later --------------------------------------------------------------------


def rebuilt(entry: str, /, **changes: Any) -> ModelSpec:
    """An entry read again from its data, with changes: validated, unlike a copy."""
    return ModelSpec.model_validate({**CATALOG[entry].model_dump(), **changes})


@pytest.mark.parametrize(
    ("alias", "changes", "said"),
    [
        ("coder-chat", {"served_name": "coder-chat"}, "served_name equals the alias"),
        ("coder-chat", {"context": 65_536}, "exceeds the model's"),
        ("coder-chat", {"context": None}, "context is required"),
        ("coder-chat", {"weights": None}, "weights are for engines that run here"),
        ("coder-chat", {"price": None}, "price"),
        ("coder-chat", {"contxt": 1}, "Extra inputs are not permitted"),
        ("coder-chat", {"alias": "Coder_Chat"}, "alias"),
        ("coder-chat", {"alias": "a" * 51}, "alias"),
        ("coder-chat", {"sources": ()}, "sources"),
        ("coder-chat", {"engine": {"kind": "llamacpp"}}, "engine"),
        ("claude-haiku", {"weights": CATALOG["coder-chat"].weights}, "weights are for engines that run here"),
    ],
)
def test_an_entry_that_cannot_work_is_refused(alias: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        rebuilt(alias, **changes)


@pytest.mark.parametrize(
    ("spec", "changes", "said"),
    [
        (SPEECH, {"defaults": {"temperature": 0.5}}, "defaults are for what generates"),
        (VISION, {"shortest_vector": 32}, "shortest_vector is for embeddings"),
        (VISION, {"weights": VECTORS.weights}, "needs an encoder of images"),
        (VISION, {"engine": {**VISION.engine.model_dump(), "language_model_only": True}}, "needs an encoder of images"),
        (VISION, {"engine": {**VISION.engine.model_dump(), "pooling": "last"}}, "pooling is for embeddings"),
        (VECTORS, {"engine": {**VECTORS.engine.model_dump(), "pooling": None}}, "pooling is for embeddings"),
        (RERANKER, {"engine": {**RERANKER.engine.model_dump(), "pooling": "cls"}}, "pooling is for embeddings"),
        (RERANKER, {"task": "chat"}, "tei serves embedding, rerank"),
        (SPEECH, {"price": {"kind": "per_query", "usd_per_query": 1}}, "sold PerAudioSecond, not PerQuery"),
        (RERANKER, {"price": SPEECH.price}, "sold PerQuery, not PerAudioSecond"),
        (VISION, {"max_parallel": 0}, "max_parallel"),
        (VISION, {"defaults": {"top_k": 5}}, "Extra inputs"),
    ],
)
def test_an_entry_says_nothing_that_is_not_for_its_task(spec: ModelSpec, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ModelSpec.model_validate({**spec.model_dump(), **changes})


@pytest.mark.parametrize("pattern", ["pytorch_model.bin", "*.pt", "*.pth", "model.ckpt", "*"])
def test_files_that_may_be_pickles_are_said_to_be(pattern: str) -> None:
    assert VISION.weights
    stored = VISION.weights.model_dump()
    with pytest.raises(ValidationError, match="say format pickle"):
        Weights.model_validate({**stored, "files": (pattern,)})
    assert Weights.model_validate({**stored, "files": (pattern,), "format": "pickle"})


def test_a_price_of_nothing_is_refused_since_budgets_would_never_bind() -> None:
    for price in (
        lambda: PerToken(input_usd_per_mtok=0, output_usd_per_mtok=1),
        lambda: PerAudioSecond(usd_per_second=0),
        lambda: PerQuery(usd_per_query=0),
    ):
        with pytest.raises(ValidationError):
            price()


@pytest.mark.parametrize(
    ("price", "kind"),
    [
        ({"kind": "per_audio_second", "usd_per_second": 0.1}, "PerAudioSecond"),
        ({"kind": "per_query", "usd_per_query": 0.1}, "PerQuery"),
    ],
)
def test_prices_are_told_apart_by_their_kind_and_chat_is_sold_by_the_token(price: dict[str, Any], kind: str) -> None:
    with pytest.raises(ValidationError, match=f"chat is sold PerToken, not {kind}"):
        rebuilt("coder-chat", price=price)


def test_an_entry_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        CATALOG["coder-chat"].context = 1  # pyright: ignore[reportAttributeAccessIssue]


# --- images --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", [VLLM, TEI_CPU, LITELLM, POSTGRES], ids=lambda i: i.repository)
def test_an_image_is_pinned_by_a_version_and_runs_as_a_numeric_user(image: Image) -> None:
    assert any(character.isdigit() for character in image.tag)
    assert image.uid > 0
    assert image.home.startswith("/")


def test_a_reference_carries_mirror_tag_and_digest() -> None:
    source = Source(facts="all", where="a test", evidence=Evidence.MEMORY)
    digest = "sha256:" + "0" * 64
    image = Image(
        registry="docker.io",
        repository="some/image",
        tag="v1",
        digest=digest,
        uid=1,
        gid=1,
        home="/h",
        compressed_gib=1,
        source=source,
    )
    assert image.reference() == f"docker.io/some/image:v1@{digest}"
    assert image.reference(mirror="mirror/x") == f"mirror/x/some/image:v1@{digest}"
    assert image.model_copy(update={"digest": None}).reference() == "docker.io/some/image:v1"


def test_a_file_for_the_server_that_is_not_there_is_refused_and_not_found_missing_by_an_update() -> None:
    with pytest.raises(ValidationError, match=r"components/serving/files has no my_template.jinja"):
        VllmEngine(image=VLLM, chat_template="my_template.jinja")
