"""The container images that serve models and the gateway, each pinned once."""

from models.facts import Evidence, Image, Source

VLLM = Image(
    registry="docker.io",
    repository="vllm/vllm-openai",
    tag="v0.23.0",
    digest="sha256:6d8429e38e3747723ca07ee1b17972e09bb9c51c4032b266f24fb1cc3b22ed8f",
    # The image's default user is root; 2000:0 is the unprivileged one that it is built for.
    uid=2000,
    gid=0,
    home="/home/vllm",
    # CUDA 13.0; the -cu129 tag runs on older drivers.
    min_driver="580.65",
    compressed_gib=10,
    source=Source(
        facts="user, home, CUDA (verified in docker/Dockerfile); digest (pinned so by 8 public repositories)",
        where="vllm-project/vllm v0.23.0 docker/Dockerfile; size recalled",
        evidence=Evidence.REPORTED,
    ),
)

TEI_CPU = Image(
    registry="ghcr.io",
    repository="huggingface/text-embeddings-inference",
    tag="cpu-1.9.3",
    digest="sha256:ad950d30878eceb72aaf32024d26fa2b1d04a75304fa0b4776b49aa1941fea07",
    # The image's default user is root; it needs nothing of it on an unprivileged port.
    uid=1000,
    gid=1000,
    home="/tmp",  # noqa: S108  a volume of the pod
    compressed_gib=0.7,
    source=Source(
        facts="options (verified in router/src/main.rs); digest (pinned so by 10 public repositories)",
        where="huggingface/text-embeddings-inference v1.9.3; size recalled",
        evidence=Evidence.REPORTED,
    ),
)

LLAMA_CPP = Image(
    registry="ghcr.io",
    repository="ggml-org/llama.cpp",
    tag="server-b11176",
    digest="sha256:6257697a7f5d034b8fb499ddb07af3e250506352f94102054252a23f3b85e0af",
    # The image's default user is root; the server is one program with its libraries in /app, and writes nothing.
    uid=1000,
    gid=1000,
    home="/tmp",  # noqa: S108  a volume of the pod
    compressed_gib=0.4,
    source=Source(
        facts="entry point, user (.devops/cpu.Dockerfile of build 11181); digest (pinned so by 5 public repositories, "
        "two of which looked it up for this tag); size (854 MB on disk by a public report of build 10068)",
        where="ggml-org/llama.cpp; nobody here pulled it",
        evidence=Evidence.REPORTED,
    ),
)

LITELLM = Image(
    registry="ghcr.io",
    repository="berriai/litellm",
    tag="v1.106.2",
    digest=None,
    # Newer images run as 65532 with group 0 owning what must be writable; older ones take any user of group 0.
    uid=65532,
    gid=0,
    home="/app",
    compressed_gib=0.9,
    source=Source(
        facts="version (run from its PyPI package); user, paths, Python inside (Dockerfile of 1.106)",
        where="BerriAI/litellm Dockerfile; the tag itself was not seen; size recalled",
        evidence=Evidence.REPORTED,
    ),
)

POSTGRES = Image(
    registry="docker.io",
    repository="library/postgres",
    tag="17.6",
    digest="sha256:00bc86618629af00d2937fdc5a5d63db3ff8450acf52f0636ec813c7f4902929",
    uid=999,
    gid=999,
    home="/var/lib/postgresql",
    compressed_gib=0.2,
    source=Source(
        facts="digest (pinned so by 6 public repositories); user 999 (recalled)",
        where="docker-library/postgres; size recalled",
        evidence=Evidence.REPORTED,
    ),
)

REGISTRIES = tuple(sorted({image.registry for image in (VLLM, TEI_CPU, LLAMA_CPP, LITELLM, POSTGRES)}))  # host names
