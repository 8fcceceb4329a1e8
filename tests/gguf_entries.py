"""A model in a GGUF file for the tests of behaviour, beside the entries of tests/catalog.py, which stay as they are."""

from __future__ import annotations

from collections.abc import Mapping

from models.catalog import Group
from models.engines.llama_cpp import GgufFile, LlamaCppEngine, weights_of
from models.facts import Evidence, Image, Licence, PerToken, Source
from models.spec import ModelSpec
from models.tasks import Task
from models.weights import DecoderArchitecture, Quantization, Weights
from ops.config_files import load
from stacks.settings import RawConfig
from tests.catalog import CATALOG, GROUPS
from tests.checkout import PROJECT_DIR
from tests.support import Records, recorded_with_catalog

ALIAS = "small-gguf"
_SOURCE = Source(facts="all", where="a test", evidence=Evidence.ASSUMED)
FILES = (
    GgufFile(quantization="Q4_K_M", file="small.Q4_K_M.gguf", bytes_on_disk=700_000_000, sha256="4" * 64),
    GgufFile(quantization="Q5_K_M", file="small.Q5_K_M.gguf", bytes_on_disk=800_000_000, sha256="5" * 64),
    GgufFile(quantization="Q8_0", file="small.Q8_0.gguf", bytes_on_disk=4_500_000_000, sha256=None),
)
_WEIGHTS = Weights(
    revision="c" * 40,
    format="gguf",
    quantization=Quantization.GGUF,
    dtype="float16",
    files=(FILES[0].file,),
    bytes_on_disk=FILES[0].bytes_on_disk,
    architecture=DecoderArchitecture(
        parameters=1_100_000_000,
        layers=22,
        heads=32,
        kv_heads=4,
        head_dim=64,
        hidden=2048,
        ffn=5632,
        vocab=32_000,
        max_positions=2048,
    ),
)
SPEC = ModelSpec(
    alias=ALIAS,
    group="gguf",
    summary="a model of a test",
    task=Task.CHAT,
    model_id="Somebody/Small-Chat-GGUF",
    served_name="small-chat",
    engine=LlamaCppEngine(
        image=Image(
            registry="ghcr.io",
            repository="somebody/llama.cpp",
            tag="server-b1",
            digest="sha256:" + "d" * 64,
            uid=1000,
            gid=1000,
            home="/tmp",  # noqa: S108  a volume of the pod
            compressed_gib=0.4,
            source=_SOURCE,
        ),
        files=FILES,
        quantization="Q4_K_M",
        threads=2,
        parallel=4,
    ),
    context=2000,
    weights=weights_of(_WEIGHTS, FILES[0]),
    price=PerToken(input_usd_per_mtok=1.05, output_usd_per_mtok=1.95),
    licence=Licence(name="Apache-2.0", commercial_use=True, source=_SOURCE),
    sources=(_SOURCE,),
)
WITH_GGUF: Mapping[str, ModelSpec] = {**CATALOG, ALIAS: SPEC}
GROUPS_WITH_GGUF: Mapping[str, Group] = {**GROUPS, "gguf": Group(summary="models of a test")}


def raw(*assignments: str, stack: str = "local") -> RawConfig:
    """The config of a stack of tests/project with the model's group on and whatever it costs."""
    whatever = () if stack == "local" else ("maxHourlyUsd=100", "maxMonthlyUsd=100000")
    return load(PROJECT_DIR, stack, ("groups.gguf=true", *whatever, *assignments))


def recorded_with_gguf(*assignments: str, stack: str = "local") -> Records:
    """What the program registers for it."""
    return recorded_with_catalog(raw(*assignments, stack=stack), WITH_GGUF, GROUPS_WITH_GGUF)
