"""From what a repository says to an entry: engine, arguments, context, price, and what nobody could know.

Everything is proven by the memory model and by the entry's own checks before it is shown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from models.catalog import CATALOG, GROUPS, SHIPPED
from models.catalog.overlay import LOCAL_GROUP
from models.engines import ENGINES
from models.facts import PerQuery, PerToken, Price
from models.hf_config import HfModel, UnsupportedModelError, parse_config
from models.hf_families import TEXT_OF
from models.hf_fields import part
from models.machines import G2_MACHINES, SYSTEM_MACHINES
from models.prices import list_prices
from models.spec import ModelSpec
from models.tasks import TASKS, Task
from models.throughput import price_per_mtok
from models.weights import DecoderArchitecture, EncoderArchitecture, Quantization
from ops.add.licences import licence_of
from ops.add.parsers import reasoning_parser, tool_parsers
from ops.add.repository import Repository, RepositoryFile
from ops.entry_words import fit_of
from ops.errors import OpsError

Json = dict[str, Any]

_CONTEXTS = (32_768, 16_384, 8192, 4096, 2048)
_AT_ONCE = 4  # requests of the whole context: an editor sends several
_SEQUENCES = (64, 32, 16, 8)
_ENCODER_GIB = 6  # of a pod of the system pool
_THREADS = 4
_REGION, _VCPUS, _OF_VCPUS = "us-central1", 4, "e2-standard-4"
_BESIDE = 1.25  # boot disk, NAT, and what a node keeps for itself
_CODE = re.compile(r"cod(?:e|er|ing)\b|devstral", re.IGNORECASE)  # for editors and agents, images or not
_DOCUMENTS, _DOCUMENT_TOKENS = 20, 256  # of a query that is reranked
_KERNELS = {"awq": "awq_marlin", "gptq": "gptq_marlin", "fp8": "fp8"}
# What vLLM reads beside the weights, as far as a repository has it.
_BESIDE_WEIGHTS = ("*.json", "*.jinja", "merges.txt", "vocab.txt", "*.model", "*.tiktoken")


@dataclass(frozen=True)
class Wanted:
    """What the operator says of the entry; None is left to the proposal."""

    command: str  # that was typed, for remedies
    alias: str | None = None
    task: str | None = None
    group: str | None = None
    context: int | None = None
    quantization: str | None = None  # of a GGUF repository: which file
    gpus: int = 1


@dataclass
class Proposal:
    """An entry, and what of it is a guess."""

    spec: ModelSpec
    notes: list[str] = field(default_factory=list[str])


def propose(found: Repository, wanted: Wanted) -> Proposal:
    """The entry of a repository. Raises OpsError where it cannot be served, with what to do instead."""
    model = _read(found, wanted)
    notes = list(model.notes)
    task = _task(found, model, wanted, notes)
    entry: Json = {
        "alias": wanted.alias or free_alias(found.model_id),
        "group": wanted.group or LOCAL_GROUP,
        "summary": f"{found.model_id.rpartition('/')[2]}: {TASKS[task].summary}",
        "task": task.value,
        "model_id": found.model_id,
        "licence": _licence(found, notes),
        "sources": _sources(found),
    }
    entry["served_name"] = _served_name(found.model_id, entry["alias"])
    if found.header is not None:
        spec = _on_llama_cpp(entry, found, model, wanted)
    elif isinstance(model.architecture, EncoderArchitecture):
        spec = _on_tei(entry, found, model, wanted, notes)
    else:
        spec = _on_vllm(entry, found, model, wanted, notes)
    if spec.price.kind == "per_audio_second":
        notes.append("price: a guess, since no speed in seconds of audio is known here")
    return Proposal(_priced(spec), notes)


def _read(found: Repository, wanted: Wanted) -> HfModel:
    try:
        config = found.header.config() if found.header else found.config or {}
        return parse_config(config)
    except UnsupportedModelError as error:
        flags = " ".join(f"{flag} {value}".strip() for flag, value in error.flags.items())
        fact = str(error).partition("; ")[0]
        raise OpsError(
            f"{found.model_id} cannot be proposed: {fact}",
            f"ops fit --config config.json {flags}   # what it would be; then an entry by hand: docs/entries.md",
        ) from error
    except ValueError as error:
        fact, _, instead = str(error).partition("; ")
        raise OpsError(f"{found.model_id}: {fact}", instead or wanted.command) from error


# --- names, licence, sources ---------------------------------------------------------------------------------------


def free_alias(model_id: str) -> str:
    """A name in small letters, digits and dashes that nobody has."""
    name = re.sub(r"[^a-z0-9]+", "-", model_id.rpartition("/")[2].lower()).strip("-")[:44].strip("-")
    name = name if re.match(r"[a-z]", name) else f"m-{name}".rstrip("-")
    taken = {*CATALOG, *GROUPS, *(spec.served_name for spec in CATALOG.values())}
    return next(n for n in (name, *(f"{name}-{i}" for i in range(2, 10_000))) if n not in taken)


def _served_name(model_id: str, alias: str) -> str:
    """What the engine answers to: never an alias, and nobody else's."""
    taken = {alias, *CATALOG, *(spec.served_name for a, spec in CATALOG.items() if a != alias)}
    short = model_id.rpartition("/")[2]
    return next(n for n in (short, model_id, *(f"{short}-{i}" for i in range(2, 10_000))) if n not in taken)


def _licence(found: Repository, notes: list[str]) -> Json:
    known = licence_of(found.licence, found.licence_name)
    if known.commercial_use is None:
        notes.append(f"licence {known.name}: nobody here knows whether it allows commercial use, so it counts as not")
    where = f"{found.where}, of {found.model_id}" if found.licence else "nothing that was read says it"
    evidence = "verified" if found.licence else "assumed"
    return {
        "name": known.name,
        "commercial_use": bool(known.commercial_use),
        "terms": known.terms,
        "source": {"facts": "licence", "where": where, "evidence": evidence},
    }


def _sources(found: Repository) -> list[Json]:
    what = "head of the GGUF file" if found.header else "config.json"
    at = f" at {found.revision[:12]}" if found.revision else ""
    read = f"{what} of {found.model_id}{at}, {found.where}, {datetime.now(UTC):%Y-%m-%d}"
    sizes = "verified" if found.whole else "derived"
    return [
        {"facts": "architecture", "where": read, "evidence": "verified"},
        {"facts": "bytes on disk", "where": f"files of {found.model_id}", "evidence": sizes},
        {"facts": "engine, arguments, context, price", "where": "proposed by ops add", "evidence": "assumed"},
    ]


def _task(found: Repository, model: HfModel, wanted: Wanted, notes: list[str]) -> Task:
    """What it is for: as asked, or as its class and the hub's own words say."""
    named = wanted.task or next(_tasks(found, model))
    if named not in TASKS:
        raise OpsError(
            f"{found.model_id} is for {named}, which nothing serves in this version: there are "
            f"{', '.join(sorted(TASKS))}",
            "ops catalog   # what is served",
        )
    if wanted.task is None:
        notes.append(f"task {named}: by its class and files; another by --task")
    return Task(named)


def _tasks(found: Repository, model: HfModel) -> Iterator[str]:
    config = found.config or {}
    classes = " ".join(map(str, config.get("architectures") or []))
    family = str(config.get("model_type", ""))
    if found.pipeline == "text-ranking" or "ForSequenceClassification" in classes:
        yield "rerank"
    if isinstance(model.architecture, EncoderArchitecture):
        yield "embedding"
    if family == "whisper" or found.pipeline == "automatic-speech-recognition":
        yield "transcription"
    if found.pipeline in ("feature-extraction", "sentence-similarity"):
        yield "embedding"
    template = found.header.template if found.header else found.template
    calls = not found.header and tool_parsers(found.model_id, _family(config), template)
    if calls and _CODE.search(found.model_id):
        yield "agent"
    if _tower(model):
        yield "vision" if "vision" in TASKS else "chat"
    if calls:
        yield "agent"
    if template is None and (found.header.whole if found.header else found.whole):
        yield "fim"  # a base model: nothing says how it would be asked in turns
    yield "chat"


def _tower(model: HfModel) -> bool:
    """Whether it has an encoder of images or sound."""
    return isinstance(model.architecture, DecoderArchitecture) and model.architecture.tower is not None


def _family(config: Json) -> str:
    family, text = str(config.get("model_type", "")), str((part(config, "text_config") or {}).get("model_type", ""))
    return family if family in TEXT_OF or not text else text


# --- vLLM ------------------------------------------------------------------------------------------------------------


def _on_vllm(entry: Json, found: Repository, model: HfModel, wanted: Wanted, notes: list[str]) -> ModelSpec:
    weights = _weights(found, model, wanted, notes)
    method = str((part(found.config or {}, "quantization_config") or {}).get("quant_method", "")).lower()
    engine: Json = {"kind": "vllm", "gpus": wanted.gpus, "kernel": _KERNELS.get(method)}
    parsers = tool_parsers(found.model_id, _family(found.config or {}), found.template)
    if TASKS[Task(entry["task"])].tools:
        if parsers is None:
            notes.append("tool calls: nothing says how it writes them, so none are parsed; set tool_call_parser")
        else:
            engine |= parsers.fields
            notes.append(f"tool calls are parsed by {parsers.fields['tool_call_parser']}: {parsers.why}; not run here")
    known = next(engine.model_fields for engine in ENGINES if engine.name() == "vllm")
    thinks = reasoning_parser(_family(found.config or {}), found.template, engine.get("tool_call_parser"))
    if thinks and "reasoning_parser" in known:
        engine["reasoning_parser"] = thinks
    elif thinks:
        notes.append(f"it thinks before it answers, and that is not told apart (vLLM's parser: {thinks})")
    if _tower(model) and entry["task"] not in ("vision", "transcription") and "language_model_only" in known:
        engine["language_model_only"] = True
        notes.append("its encoder is left out, since the task has no images: --task vision takes it in")
    if entry["task"] == "embedding" and "pooling" in known:
        engine["pooling"] = "last"
        notes.append("pooling last: as embedding models that are decoders do; its model card says")
    if (found.config or {}).get("auto_map"):
        notes.append("its config names code of its own, which is not run: vLLM has to know the model itself")
    return _fitting(entry | {"weights": weights}, engine, model, wanted)


def _fitting(entry: Json, engine: Json, model: HfModel, wanted: Wanted) -> ModelSpec:
    """The longest usual context of which several requests fit; else the longest of which one does."""
    positions = model.architecture.max_positions
    asked = (wanted.context,) if wanted.context else tuple(c for c in _CONTEXTS if c <= positions) or (positions,)
    best: ModelSpec | None = None
    reason = ""
    for sequences in _SEQUENCES:
        for context in asked:
            spec = _valid(entry | {"engine": engine | {"max_num_seqs": sequences}, "context": context}, wanted)
            try:
                fit = spec.engine.fit(spec)
            except ValueError as error:
                reason = str(error).partition("; ")[0]
                continue
            if fit is None:
                return spec
            reason = fit.reason
            if fit.fits and fit.concurrency >= _AT_ONCE:
                return spec
            if fit.fits and best is None:
                best = spec
    if best is not None:
        return best
    raise _too_large(entry, engine, wanted, reason)


def _too_large(entry: Json, engine: Json, wanted: Wanted, reason: str) -> OpsError:
    """With the number of GPUs that hold it, if there is one."""
    for gpus in sorted({m.gpus for m in G2_MACHINES.values() if m.gpus > wanted.gpus}):
        spec = _valid(
            entry
            | {"engine": engine | {"gpus": gpus, "max_num_seqs": _SEQUENCES[-1]}, "context": wanted.context or 4096},
            wanted,
        )
        fit = fit_of(spec)
        if fit and fit.fits:
            return OpsError(
                f"{entry['model_id']} does not fit {wanted.gpus} x L4: {reason}",
                f"{wanted.command} --gpus {gpus}   # and a quota of as many: pulumi config set gpuQuota {gpus}",
            )
    return OpsError(
        f"{entry['model_id']} does not fit {wanted.gpus} x L4: {reason}",
        "ops catalog --fits   # what does; or the same model in fewer bits (AWQ, GPTQ, FP8)",
    )


def _weights(found: Repository, model: HfModel, wanted: Wanted, notes: list[str]) -> Json:
    patterns, size = _patterns(found), model.weights_bytes
    listed = sum(f.size for f in found.files if f.name.endswith(".safetensors") and _matches(f, patterns))
    if listed or found.weights_bytes:  # a mirror may list files without their sizes
        size = listed or found.weights_bytes
    else:
        notes.append("size of the weights: computed from the config, since no sizes of files were read")
    if not size:
        raise OpsError(
            f"nothing says how large the weights of {found.model_id} are",
            f"{wanted.command}   # with the folder that has its model.safetensors.index.json, or its files",
        )
    if found.revision is None:
        notes.append("revision: not known, so the default branch is served (ops pin looks it up)")
    return {
        "revision": found.revision,
        "format": "safetensors",
        "quantization": model.quantization.value,
        "dtype": model.dtype,
        "files": patterns,
        "bytes_on_disk": size,
        "architecture": model.architecture.model_dump(mode="json"),
        "gated": found.gated,
    }


def _patterns(found: Repository) -> list[str]:
    """What is staged. Raises OpsError for a repository that has no safetensors of the usual form."""
    if not found.whole:
        # No pattern that may match nothing: staging refuses those.
        return ["*.safetensors", "*.json", *(p for p in _BESIDE_WEIGHTS[1:] if fnmatched(found.names, p))]
    at_root = [f.name for f in found.files if "/" not in f.name]
    stored = [name for name in at_root if name.endswith(".safetensors")]
    usual = [name for name in stored if name.startswith("model")]
    others = [name for name in stored if not name.startswith("consolidated")]
    if not others:
        kinds = sorted({name.rpartition(".")[2] for name in at_root if name.endswith((".bin", ".pt", ".pth"))})
        has = "safetensors of Mistral's own form only" if stored else f"{' and '.join(kinds) or 'no'} weights only"
        raise OpsError(
            f"{found.model_id} has {has}, and safetensors in the form of Hugging Face transformers are served here",
            "ops catalog   # what is served; or a repository that has the same model so converted",
        )
    weights = "model*.safetensors" if usual else "*.safetensors"
    return [weights, *(p for p in _BESIDE_WEIGHTS if fnmatched(at_root, p))]


def fnmatched(names: Iterable[str], pattern: str) -> bool:
    """Whether one of the names matches."""
    return any(fnmatchcase(name, pattern) for name in names)


def _matches(file: RepositoryFile, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(file.name, pattern) for pattern in patterns)


# --- CPU --------------------------------------------------------------------------------------------------------------


def _on_tei(entry: Json, found: Repository, model: HfModel, wanted: Wanted, notes: list[str]) -> ModelSpec:
    arch = model.architecture
    names = {f.name: f for f in found.files}
    onnx = names.get("onnx/model.onnx")
    stored = [f for f in found.files if "/" not in f.name and f.name.endswith(".safetensors")]
    if found.whole and not onnx and not stored:
        raise OpsError(f"{found.model_id} has neither onnx/model.onnx nor safetensors", "ops catalog --task embedding")
    size = onnx.size if onnx else sum(f.size for f in stored) or model.weights_bytes or arch.parameters * 4
    beside = [p for p in ("vocab.txt", "*.model") if fnmatched(names or found.names, p)]
    weights = {
        "revision": found.revision,
        "format": "onnx" if onnx else "safetensors",
        "quantization": Quantization.NONE.value,
        "dtype": "float32",
        "files": ["onnx/model.onnx" if onnx else "*.safetensors", "*.json", *beside],
        "bytes_on_disk": size,
        "architecture": arch.model_dump(mode="json"),
        "gated": found.gated,
    }
    # Positions of RoBERTa begin behind the padding.
    offset = 2 if "roberta" in str((found.config or {}).get("model_type", "")) else 0
    longest = arch.max_positions - offset
    engine: Json = {"kind": "tei", "cpu": 0.5 if arch.parameters < 200_000_000 else 2, "pooling": None}
    if entry["task"] == "embedding":
        engine["pooling"] = _pooling(found, notes)
    contexts = [wanted.context] if wanted.context else [c for c in (8192, *_CONTEXTS[3:], 1024, 512) if c <= longest]
    for context in contexts or [longest]:
        spec = _valid(
            entry
            | {"weights": weights, "context": context, "engine": engine | {"max_batch_tokens": max(context, 2048)}},
            wanted,
        )
        needs = spec.engine.needs(spec)
        if needs and (needs.gib <= _ENCODER_GIB or wanted.context):
            return spec
    raise OpsError(
        f"{found.model_id} needs more than {_ENCODER_GIB} GiB on CPU whatever the context",
        f"{wanted.command} --context 512   # takes it all the same",
    )


def _pooling(found: Repository, notes: list[str]) -> str:
    modes = {
        "pooling_mode_cls_token": "cls",
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_lasttoken": "last-token",
    }
    for name, mode in modes.items():
        if found.pooling.get(name):
            return mode
    notes.append("pooling mean: no 1_Pooling/config.json says; its model card does")
    return "mean"


def _on_llama_cpp(entry: Json, found: Repository, model: HfModel, wanted: Wanted) -> ModelSpec:
    files = [
        {
            "quantization": quantization_of(f.name) or "unnamed",
            "file": f.name,
            "bytes_on_disk": f.size,
            "sha256": f.sha256,
        }
        for f in found.gguf
    ]
    files = list({f["quantization"]: f for f in files}.values())  # one of a kind
    chosen = chosen_file(found, wanted)
    first = next(f for f in files if f["file"] == chosen.name)
    context = wanted.context or max(c for c in (*_CONTEXTS[2:], 1024, 512, 1) if c <= model.architecture.max_positions)
    weights = {
        "revision": found.revision,
        "format": "gguf",
        "quantization": Quantization.GGUF.value,
        "dtype": "float16",
        "files": [chosen.name],
        "digests": [[chosen.name, chosen.sha256]] if chosen.sha256 else [],
        "bytes_on_disk": chosen.size,
        "architecture": model.architecture.model_dump(mode="json"),
        "gated": found.gated,
    }
    engine = {
        "kind": "llama-cpp",
        "files": [first, *(f for f in files if f is not first)],
        "quantization": first["quantization"],
        "threads": _THREADS,
    }
    return _valid(entry | {"weights": weights, "engine": engine, "context": context}, wanted)


def quantization_of(name: str) -> str | None:
    """Of "qwen3-8b-q4_k_m.gguf": "q4_k_m", as it is spelt there."""
    found = re.search(
        r"(?:^|[.-])((?:iq|q)\d\w*|bf16|fp?16|fp?32)(?=[.-]|$)", name.removesuffix(".gguf"), re.IGNORECASE
    )
    return found[1] if found else None


def chosen_file(found: Repository, wanted: Wanted) -> RepositoryFile:
    """The file that is served: that of the quantisation asked for, else Q4_K_M, else the first. Raises OpsError."""
    by_name = {(quantization_of(f.name) or "unnamed").lower(): f for f in found.gguf}
    if not by_name:
        raise OpsError(f"{found.model_id} has no GGUF file that is a whole model", "ops catalog --group gguf")
    asked = (wanted.quantization or "").lower()
    if asked and asked not in by_name:
        raise OpsError(
            f"{found.model_id} has no file of {wanted.quantization}, but of {', '.join(by_name)}",
            f"{wanted.command} --quantization {next(iter(by_name))}",
        )
    return by_name.get(asked or "q4_k_m") or next(iter(by_name.values()))


# --- the whole entry --------------------------------------------------------------------------------------------------

_ANY_PRICE: Mapping[type[Price], Json] = {
    PerToken: {"kind": "per_token", "input_usd_per_mtok": 1, "output_usd_per_mtok": 1},
    PerQuery: {"kind": "per_query", "usd_per_query": 1},
}


def _valid(entry: Json, wanted: Wanted) -> ModelSpec:
    """The entry, with a price of the right kind. Raises OpsError for what no entry may be."""
    kind = TASKS[Task(entry["task"])].prices[0]
    price = _ANY_PRICE.get(kind, {"kind": "per_audio_second", "usd_per_second": 0.0001})
    try:
        return ModelSpec.model_validate({"price": price, **entry})
    except ValidationError as error:
        one = error.errors()[0]
        name = ".".join(map(str, one["loc"]))
        raise OpsError(
            f"{entry['model_id']} makes no entry: {name}{': ' if name else ''}"
            f"{one['msg'].removeprefix('Value error, ')}",
            f"{wanted.command} --help",
        ) from error


def _priced(spec: ModelSpec) -> ModelSpec:
    """At what others of its kind are sold at, and not below what it costs where it is never idle."""
    try:
        rate = spec.expected_throughput
    except ValueError:
        rate = None
    hourly = usd_per_hour(spec)
    cost = hourly / (rate.tokens_per_second * 3600) if rate and hourly else None  # of a token
    if isinstance(spec.price, PerQuery):
        usd = (cost or 1e-7) * _DOCUMENTS * _DOCUMENT_TOKENS
        return spec.model_copy(update={"price": PerQuery(usd_per_query=float(f"{usd:.2g}"))})
    if not isinstance(spec.price, PerToken):
        return spec
    price = _usual(spec)
    mixed = price_per_mtok(price, rate.at) if rate else None
    if cost and mixed and mixed < cost * 1e6:
        price = _scaled(price, cost * 1e6 / mixed)
    return spec.model_copy(update={"price": price})


def _usual(spec: ModelSpec) -> PerToken:
    generates = TASKS[spec.task].generates
    for other in SHIPPED.values():
        alike = type(other.engine) is type(spec.engine) and TASKS[other.task].generates is generates
        if alike and isinstance(other.price, PerToken):
            return other.price.model_copy(update={"cached_input_usd_per_mtok": None})
    return PerToken(input_usd_per_mtok=0.5, output_usd_per_mtok=1.5 if generates else 0)


def _scaled(price: PerToken, factor: float) -> PerToken:
    def up(usd: float) -> float:
        return math.ceil(usd * factor * 100) / 100

    return PerToken(input_usd_per_mtok=up(price.input_usd_per_mtok), output_usd_per_mtok=up(price.output_usd_per_mtok))


def usd_per_hour(spec: ModelSpec) -> float | None:
    """Of one replica by the price list: the whole GPU node, or its share of the system pool. None: no price known."""
    needs = spec.engine.needs(spec)
    if needs is None:
        return None
    if spec.gpus:
        machine = next((m for m in G2_MACHINES.values() if needs.lacking(m) is None), None)
        price = list_prices().find(machine.name, _REGION) if machine else None
        return price.usd if price else None
    price = list_prices().find(_OF_VCPUS, _REGION)
    vcpus = max(needs.cpu, needs.gib / SYSTEM_MACHINES[_OF_VCPUS].pod_gib * _VCPUS)
    return price.usd / _VCPUS * vcpus * _BESIDE if price else None


# --- its form ----------------------------------------------------------------------------------------------------


def trimmed(model: BaseModel) -> Json:
    """An entry, or a part of one, without what has its default; its kind stays."""
    found: Json = {}
    for name, about in type(model).model_fields.items():
        value = getattr(model, name)
        if name != "kind" and not about.is_required() and value == about.get_default(call_default_factory=True):
            continue
        found[name] = _plain(value)
    return found


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return trimmed(value)
    if isinstance(value, tuple | list):
        return [_plain(one) for one in cast("Sequence[object]", value)]
    return value.value if isinstance(value, Enum) else value
