"""A model of each kind that tests/catalog.py has none of, for the tests of behaviour: its entries stay as they are."""

from __future__ import annotations

from collections.abc import Mapping

from models.catalog import Group
from models.engines.tei import TeiEngine
from models.engines.vllm import VllmEngine
from models.facts import Defaults, Evidence, Licence, PerAudioSecond, PerQuery, PerToken, Source
from models.images import TEI_CPU, VLLM
from models.spec import ModelSpec
from models.tasks import Task
from models.weights import DecoderArchitecture, EncoderArchitecture, Quantization, Tower, Weights
from models.whisper import whisper
from ops.config_files import load
from tests.catalog import CATALOG, GROUPS
from tests.checkout import PROJECT_DIR
from tests.support import Records, recorded_with_catalog

_SOURCE = Source(facts="all", where="a test", evidence=Evidence.ASSUMED)
_LICENCE = Licence(name="Apache-2.0", commercial_use=True, source=_SOURCE)
_DECODER = DecoderArchitecture(
    parameters=494_000_000,
    layers=24,
    heads=14,
    kv_heads=2,
    head_dim=64,
    hidden=896,
    ffn=4864,
    vocab=151_936,
    max_positions=32_768,
)
_ENCODER = EncoderArchitecture(
    parameters=33_000_000, layers=12, heads=12, hidden=384, ffn=1536, vocab=30_522, max_positions=512
)
_SPEECH = whisper(hidden=384, layers=4, heads=6, ffn=1536, vocab=51_865)


def _weights(architecture: DecoderArchitecture | EncoderArchitecture, dtype: str = "bfloat16") -> Weights:
    return Weights.model_validate(
        {
            "revision": "c" * 40,
            "format": "safetensors",
            "quantization": Quantization.NONE,
            "dtype": dtype,
            "files": ("*.safetensors", "*.json"),
            "bytes_on_disk": architecture.parameters * 2,
            "architecture": architecture,
        }
    )


VISION = ModelSpec(
    alias="small-vision",
    group="guide",
    summary="a model of a test that reads images",
    task=Task.VISION,
    model_id="Somebody/Small-Vision",
    served_name="small-vl",
    engine=VllmEngine(image=VLLM),
    context=8192,
    weights=_weights(
        _DECODER.model_copy(
            update={"tower": Tower(parameters=400_000_000, tokens=1024, patches=4096, width=2048, split=8192)}
        )
    ),
    price=PerToken(input_usd_per_mtok=0.7, output_usd_per_mtok=1.3),
    defaults=Defaults(temperature=0.7, top_p=0.9, max_tokens=512),
    max_parallel=2,
    licence=_LICENCE,
    sources=(_SOURCE,),
)
VECTORS = ModelSpec(
    alias="small-vectors",
    group="guide",
    summary="a model of a test that embeds, on a GPU, in vectors that clients may cut",
    task=Task.EMBEDDING,
    model_id="Somebody/Small-Embedding",
    served_name="small-embedding",
    engine=VllmEngine(image=VLLM, pooling="last"),
    context=8192,
    weights=_weights(_DECODER),
    price=PerToken(input_usd_per_mtok=0.3, output_usd_per_mtok=0),
    shortest_vector=32,
    licence=_LICENCE,
    sources=(_SOURCE,),
)
RERANKER = ModelSpec(
    alias="small-reranker",
    group="guide",
    summary="a model of a test that ranks texts",
    task=Task.RERANK,
    model_id="Somebody/Small-Reranker",
    served_name="small-ranker",
    engine=TeiEngine(image=TEI_CPU, pooling=None, max_batch_tokens=1024, cpu=0.5),
    context=512,
    weights=_weights(_ENCODER, "float32"),
    price=PerQuery(usd_per_query=0.0013),
    licence=_LICENCE,
    sources=(_SOURCE,),
)
SPEECH = ModelSpec(
    alias="small-speech",
    group="guide",
    summary="a model of a test that hears",
    task=Task.TRANSCRIPTION,
    model_id="Somebody/small-whisper",
    served_name="small-whisper",
    engine=VllmEngine(image=VLLM, dtype="float16"),
    context=448,
    weights=_weights(_SPEECH, "float32"),
    price=PerAudioSecond(usd_per_second=0.00017),
    licence=_LICENCE,
    sources=(_SOURCE,),
)
ENTRIES: Mapping[str, ModelSpec] = {spec.alias: spec for spec in (VISION, VECTORS, RERANKER, SPEECH)}
WITH_GUIDE: Mapping[str, ModelSpec] = {**CATALOG, **ENTRIES}
GROUPS_WITH_GUIDE: Mapping[str, Group] = {**GROUPS, "guide": Group(summary="models of a test")}


def recorded_with_guide(stack: str) -> Records:
    """What the program registers for a stack of tests/project with all of them, whatever it costs."""
    whatever = () if stack == "local" else ("maxHourlyUsd=100", "maxMonthlyUsd=100000")
    raw = load(PROJECT_DIR, stack, ("groups.guide=true", *whatever))
    return recorded_with_catalog(raw, WITH_GUIDE, GROUPS_WITH_GUIDE)
