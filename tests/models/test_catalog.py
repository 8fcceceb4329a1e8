"""The catalog as data: complete, consistent, sourced, and equal to the reference deployment."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from models.catalog import CATALOG, GROUPS
from models.engines.external import ExternalProvider
from models.engines.tei import TeiEngine
from models.engines.vllm import VllmEngine
from models.facts import Evidence, Image, PerAudioSecond, PerQuery, PerToken, Price, Source
from models.images import LITELLM, POSTGRES, TEI_CPU, VLLM
from models.spec import ModelSpec
from models.weights import DecoderArchitecture, Quantization

every_entry = pytest.mark.parametrize("alias", list(CATALOG))
every_stored = pytest.mark.parametrize("alias", [a for a, s in CATALOG.items() if s.weights is not None])

# alias: group, engine, context, price in and out per million tokens; what the reference deployment documents.
REFERENCE: dict[str, tuple[str, str, int | None, float, float]] = {
    "qwen-local": ("baseline", "vllm", 8192, 0.5, 1.5),
    "coder-chat": ("coding-assistant", "vllm", 16_384, 0.5, 1.5),
    "coder-fim": ("coding-assistant", "vllm", 8192, 0.2, 0.4),
    "coder-agent": ("coding-assistant", "vllm", 16_384, 0.5, 1.5),
    "coder-mini": ("coding-assistant", "vllm", 16_384, 0.5, 1.5),
    "embeddings": ("retrieval", "tei", 512, 0.1, 0),
    "claude-haiku": ("providers", "external", None, 1, 5),
}


def test_the_reference_deployment_is_catalogued_whole() -> None:
    found: dict[str, Any] = {}
    for alias, spec in CATALOG.items():
        assert isinstance(spec.price, PerToken)
        prices = (spec.price.input_usd_per_mtok, spec.price.output_usd_per_mtok)
        found[alias] = (spec.group, spec.engine.kind, spec.context, *prices)
    assert found == REFERENCE


@every_entry
def test_an_entry_is_under_its_alias_and_in_a_group_that_exists(alias: str) -> None:
    spec = CATALOG[alias]
    assert spec.alias == alias
    assert spec.group in GROUPS


@every_entry
def test_the_served_name_is_never_the_alias_and_is_nobody_else_s(alias: str) -> None:
    names = [spec.served_name for spec in CATALOG.values()]
    assert CATALOG[alias].served_name not in CATALOG
    assert names.count(CATALOG[alias].served_name) == 1


@every_entry
def test_names_derived_from_an_alias_are_names_that_kubernetes_takes(alias: str) -> None:
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", alias)
    assert len(f"{alias}-model-cache") <= 63


@every_entry
def test_every_entry_says_where_its_facts_come_from(alias: str) -> None:
    facts = " ".join(source.facts for source in CATALOG[alias].sources)
    assert "price" in facts
    assert "context" in facts
    if CATALOG[alias].weights is not None:
        assert "architecture" in facts
        assert "bytes on disk" in facts


@every_stored
def test_a_revision_is_a_whole_commit_or_openly_unknown(alias: str) -> None:
    weights = CATALOG[alias].weights
    assert weights is not None
    assert weights.revision is None or re.fullmatch(r"[0-9a-f]{40}", weights.revision)
    if weights.revision is not None:
        assert any("revision" in source.facts for source in CATALOG[alias].sources)


@every_stored
def test_the_engine_s_files_are_listed_and_pickles_are_not(alias: str) -> None:
    weights = CATALOG[alias].weights
    assert weights is not None
    assert any("safetensors" in pattern or "gguf" in pattern for pattern in weights.files)
    assert not any(re.search(r"\.(bin|pt|pth)$|^\*$", pattern) for pattern in weights.files)


@every_stored
def test_size_on_disk_and_parameters_agree(alias: str) -> None:
    weights = CATALOG[alias].weights
    assert weights is not None
    width = {"float32": 4, "float16": 2, "bfloat16": 2}[weights.dtype]
    bytes_per_parameter = weights.bytes_on_disk / weights.architecture.parameters
    if weights.quantization is Quantization.NONE:
        assert bytes_per_parameter == pytest.approx(width, rel=0.02)
    else:
        assert 0.5 < bytes_per_parameter < 1


@every_stored
def test_attention_of_a_decoder_adds_up(alias: str) -> None:
    weights = CATALOG[alias].weights
    assert weights is not None
    architecture = weights.architecture
    if isinstance(architecture, DecoderArchitecture):
        assert architecture.heads % architecture.kv_heads == 0
        assert architecture.heads * architecture.head_dim == architecture.hidden


@pytest.mark.parametrize("alias", [a for a, s in CATALOG.items() if isinstance(s.engine, VllmEngine)])
def test_a_kernel_fits_the_weights(alias: str) -> None:
    spec = CATALOG[alias]
    assert isinstance(spec.engine, VllmEngine)
    assert spec.weights is not None
    kernels = {Quantization.NONE: None, Quantization.AWQ: "awq_marlin"}
    assert spec.engine.kernel == kernels[spec.weights.quantization]


def test_only_the_group_that_waits_for_its_egress_is_unavailable() -> None:
    assert [name for name, group in GROUPS.items() if group.unavailable] == ["providers"]
    assert {spec.group for spec in CATALOG.values() if isinstance(spec.engine, ExternalProvider)} == {"providers"}
    assert {spec.group for spec in CATALOG.values()} == set(GROUPS)


# --- the types refuse what would go wrong later --------------------------------------------------------------------


def rebuilt(entry: str, /, **changes: Any) -> ModelSpec:
    """An entry read again from its data, with changes: validated, unlike a copy."""
    return ModelSpec.model_validate({**CATALOG[entry].model_dump(), **changes})


@every_entry
def test_an_entry_survives_being_written_and_read(alias: str) -> None:
    assert ModelSpec.model_validate_json(CATALOG[alias].model_dump_json()) == CATALOG[alias]


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


def test_a_price_of_nothing_is_refused_since_budgets_would_never_bind() -> None:
    for price in (
        lambda: PerToken(input_usd_per_mtok=0, output_usd_per_mtok=1),
        lambda: PerAudioSecond(usd_per_second=0),
        lambda: PerQuery(usd_per_query=0),
    ):
        with pytest.raises(ValidationError):
            price()


def test_prices_are_told_apart_by_their_kind() -> None:
    for price in ({"kind": "per_audio_second", "usd_per_second": 0.1}, {"kind": "per_query", "usd_per_query": 0.1}):
        assert TypeAdapter[Any](Price).validate_python(price).kind == price["kind"]
        with pytest.raises(ValidationError, match="chat is sold PerToken"):
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


def test_a_gpu_image_says_which_driver_its_cuda_needs() -> None:
    for spec in CATALOG.values():
        if isinstance(spec.engine, VllmEngine):
            assert spec.engine.image.min_driver is not None
        elif isinstance(spec.engine, TeiEngine):
            assert spec.engine.image.min_driver is None
