"""The container images that serve models and the gateway, each pinned once."""

from models.spec import Evidence, Image, Source

_REFERENCE = "reference deployment, model catalog: vLLM v0.23.0"

VLLM = Image(
    registry="docker.io",
    repository="vllm/vllm-openai",
    tag="v0.23.0",
    digest=None,
    uid=2000,
    gid=0,
    home="/home/vllm",
    min_driver="580.65",
    compressed_gib=10,
    source=Source(
        facts="tag; CUDA 13, hence driver 580.65; user 2000:0 and home of a derived image of mid-2026; size",
        where=f"{_REFERENCE}; FACTS of the project, GKE traps; size recalled",
        evidence=Evidence.MEMORY,
    ),
)

TEI_CPU = Image(
    registry="ghcr.io",
    repository="huggingface/text-embeddings-inference",
    tag="cpu-1.8",
    digest=None,
    uid=1000,
    gid=1000,
    home="/tmp",  # noqa: S108  a mount of its own in the pod
    compressed_gib=0.7,
    source=Source(facts="tag, size", where="recalled", evidence=Evidence.MEMORY),
)

LITELLM = Image(
    registry="ghcr.io",
    repository="berriai/litellm-non_root",
    tag="v1.106.2",
    digest=None,
    uid=65534,
    gid=65534,
    home="/app",
    compressed_gib=0.9,
    source=Source(
        facts="version", where="measured with the PyPI package of that version", evidence=Evidence.MEMORY
    ),
)

POSTGRES = Image(
    registry="docker.io",
    repository="library/postgres",
    tag="17.6",
    digest=None,
    uid=999,
    gid=999,
    home="/var/lib/postgresql",
    compressed_gib=0.2,
    source=Source(
        facts="user 999, major version", where="recalled from the official image", evidence=Evidence.MEMORY
    ),
)
