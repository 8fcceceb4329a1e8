"""`ops fit`: whether a model fits a GPU, where its memory goes, and the nearest change where it does not.

For a model of the catalog, or for any config.json of Hugging Face. Reads files only; needs no GPU, no account
and no pulumi.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import reprlib
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from models.engines.base import Sizing
from models.facts import GIB, Throughput
from models.hf_config import HfModel, UnsupportedModelError, read_config
from models.hf_families import DECODERS, ENCODERS
from models.machines import G2_MACHINES, SYSTEM_MACHINES, Machine
from models.memory.gpus import CARDS, check_method
from models.memory.host import disk_gib, vllm_host_memory
from models.memory.llama_cpp import UBATCH, gguf_memory
from models.memory.remedies import remedies
from models.memory.tei import encoder_gib
from models.memory.versions import DEFAULT_VERSION, VllmVersion, vllm_version
from models.memory.vllm import KV_CACHE_DTYPES, GpuFit, Knobs, Speculation, default_knobs, gpu_fit
from models.memory.weights import disk_bytes
from models.weights import DecoderArchitecture, EncoderArchitecture, Quantization
from ops.errors import OpsError
from ops.fit import speed
from ops.fit.limits import per_prompt, text_only, videos
from ops.fit.profiles import TO_COPY, profile_lines, profiles_here
from ops.wrapping import folded, width
from stacks.problems import Problem, did_you_mean, nearest

Json = bool | int | float | str | None | list["Json"] | dict[str, "Json"]

_MACHINES = SYSTEM_MACHINES | G2_MACHINES
_TEI_BATCH_TOKENS = 16_384  # text-embeddings-inference's own default
_FITS, _DOES_NOT = 0, 2
_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # `MaxLoRARanks` in vllm/config/lora.py
_FEWEST_BITS = 1.5  # of a parameter in files: BitNet stores 1.58
_MOST = 10**15  # of bytes, tokens or sequences: far above any machine, far below what a float holds


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    if value > _MOST:
        raise argparse.ArgumentTypeError(f"{reprlib.repr(value)} is more than {_MOST:,}")
    return value


def _gib(text: str) -> float:
    value = float(text)
    if not 0 < value < 10_000:
        raise argparse.ArgumentTypeError(f"{text} is no amount of memory in GiB")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line; flags named as vLLM's own take their defaults from vLLM or from the catalog entry."""
    parser.add_argument("alias", nargs="?", help="a model of the catalog")
    model = parser.add_argument_group("any other model")
    model.add_argument("--config", type=Path, metavar="FILE", help="its config.json, or the directory it is in")
    model.add_argument("--quantization", choices=[q.value for q in Quantization], help="how weights are stored")
    model.add_argument("--weights-bytes", type=_positive, metavar="N", help="size of the weight files")
    model.add_argument("--like", choices=sorted(DECODERS | ENCODERS), metavar="MODEL_TYPE", help="whose layers it has")
    gpu = parser.add_argument_group("hardware").add_mutually_exclusive_group()
    gpu.add_argument("--gpu", choices=sorted(CARDS), help="default: l4")
    gpu.add_argument("--gpu-memory-gib", type=_gib, metavar="X", help="memory of another GPU, as vLLM prints it")
    gpu.add_argument("--cpu", action="store_true", help="on CPU: llama.cpp (--weights-bytes of the GGUF) or TEI")
    flags = parser.add_argument_group("flags of vLLM")
    flags.add_argument("--utilization", "--gpu-memory-utilization", type=float, metavar="X")
    flags.add_argument("--max-model-len", type=_positive, metavar="N", help="default: the model's own")
    flags.add_argument("--max-num-seqs", type=_positive, metavar="N")
    flags.add_argument("--max-num-batched-tokens", type=_positive, metavar="N")
    flags.add_argument("--tensor-parallel", "--tensor-parallel-size", type=_positive, metavar="N")
    flags.add_argument("--eager", "--enforce-eager", action="store_true", help="no CUDA graphs")
    flags.add_argument("--dtype", choices=["auto", "half", "float16", "bfloat16"], help="default: that of the files")
    flags.add_argument("--kv-cache-dtype", choices=sorted(KV_CACHE_DTYPES), help="default: the model's own")
    flags.add_argument("--max-loras", type=_positive, metavar="N", help="adapters at once, with --enable-lora")
    flags.add_argument("--max-lora-rank", type=_positive, choices=_LORA_RANKS, metavar="N", help="default: 16")
    flags.add_argument("--speculative-method", choices=["ngram", "mtp", "draft"], help="what guesses ahead")
    flags.add_argument("--num-speculative-tokens", type=_positive, metavar="N", help="guessed a step; default: 1")
    flags.add_argument("--draft-config", type=Path, metavar="FILE", help="config.json of a draft model")
    flags.add_argument(
        "--enable-prefix-caching",
        dest="prefix_caching",
        action=argparse.BooleanOptionalAction,
        help="costs where layers keep a state; default: as the version does",
    )
    flags.add_argument("--language-model-only", action="store_true", help="without an encoder of images or sound")
    flags.add_argument("--limit-mm-per-prompt", type=per_prompt, metavar="JSON", help='without videos: {"video": 0}')
    speed.add_arguments(parser, _positive)
    parser.add_argument("--vllm", metavar="VERSION", help="default: the catalog's, 0.23.0")
    parser.add_argument("--machine", choices=list(_MACHINES), help="default: the smallest that holds it")
    parser.add_argument("--format", choices=["text", "json"], default="text")


def run(args: argparse.Namespace) -> int:
    """Print the estimate; 0 if the model fits, 2 if it does not or cannot be judged."""
    try:
        answer = _answer(args)
    except ValueError as error:
        # Of models/, which knows no commands: its text is the fact, "; " and what to give instead.
        fact, _, instead = str(error).partition("; ")
        raise OpsError(fact, _typed(args, instead) or "ops fit --help") from error
    sys.stdout.write((json.dumps(answer.json, indent=2) if args.format == "json" else _on_screen(answer.text)) + "\n")
    return _FITS if answer.fits else _DOES_NOT


_FLAG = re.compile(r"give (?:at most )?(--[a-z-]+) ([a-z0-9.]+)\b")


def _typed(args: argparse.Namespace, instead: str) -> str:
    """What to give instead as this command with it, where it names a flag of this command and a value."""
    named = _FLAG.match(instead)
    if named is None or not hasattr(args, named[1].removeprefix("--").replace("-", "_")):
        return instead
    changes: dict[str, str | None] = {named[1]: named[2]}
    if named[1] == "--gpu":
        changes |= {"--gpu-memory-gib": None, "--dtype": None}
    rest = instead[named.end() :].strip(" ;,")
    return _command(args, changes) + (f"   # {rest}" if rest else "")


def _on_screen(text: str) -> str:
    """As wide as the terminal; what is to be copied, which stands further in, as long as it is."""
    columns = width()
    return "\n".join(line if line.startswith(TO_COPY) else folded(line, columns) for line in text.splitlines())


@dataclass(frozen=True)
class _Subject:
    """The model in question."""

    name: str
    architecture: DecoderArchitecture | EncoderArchitecture
    quantization: Quantization
    weights_bytes: int
    dtype: str
    notes: tuple[str, ...] = ()
    lowest: tuple[int, int] = (0, 0)  # compute capability that its way of storing weights needs
    flags: Mapping[str, int | float | bool | str] = field(default_factory=dict[str, "int | float | bool | str"])
    sizing: Sizing | None = None  # of a catalog entry: its engine's; None: what the architecture suggests
    stated_gib: float | None = None  # host memory, where an engine states it and no model of memory computes it
    throughput: Throughput | None = None  # of a catalog entry: measured, or on CPU assumed


@dataclass(frozen=True)
class _Answer:
    fits: bool
    json: dict[str, Json]
    text: str


def _answer(args: argparse.Namespace) -> _Answer:
    if (args.alias is None) == (args.config is None):
        raise OpsError("one model is to be named: an alias of the catalog, or a config.json", "ops fit coder-chat")
    subject = _from_catalog(args) if args.alias is not None else _from_config(args)
    if subject.stated_gib is not None:
        context = int(subject.flags.get("max_model_len") or subject.architecture.max_positions)
        return _cpu_answer(args, subject, subject.stated_gib, {"stated_gib": subject.stated_gib}, context)
    if isinstance(subject.architecture, EncoderArchitecture):
        return _encoder(args, subject, subject.architecture)
    if args.cpu or subject.sizing is Sizing.LLAMA_CPP:
        return _gguf(args, subject, subject.architecture)
    return _vllm(args, subject, subject.architecture)


def _from_catalog(args: argparse.Namespace) -> _Subject:
    from models.catalog import CATALOG, FLAWS  # noqa: PLC0415  only where an alias is given: it costs start-up time

    if FLAWS:
        raise OpsError(FLAWS[0].message, FLAWS[0].remedy, *(Problem(f.message, f.remedy) for f in FLAWS[1:]))
    spec = CATALOG.get(args.alias)
    if spec is None:
        if args.alias.endswith(".json") or os.path.exists(args.alias):  # noqa: PTH110  Path's raises for a long name
            of_file = argparse.Namespace(**vars(args) | {"alias": None, "config": args.alias})
            raise OpsError(f"{args.alias} is a path, and no model of the catalog is named so", _command(of_file, {}))
        near = nearest(args.alias, CATALOG) or next(iter(CATALOG))
        known = did_you_mean(args.alias, CATALOG)
        raise OpsError(f"no model '{args.alias}' in the catalog; {known}", f"ops fit {near}")
    weights = spec.weights
    if weights is None:
        raise OpsError(f"{spec.alias} runs at its provider and needs no memory here", "ops plan   # what it costs")
    needs = spec.engine.needs(spec)
    quantization = Quantization(args.quantization or weights.quantization)
    size = _given_bytes(args, weights.architecture) or weights.bytes_on_disk
    if quantization is not weights.quantization and not args.weights_bytes:
        size = _computed_bytes(weights.architecture, quantization, weights.dtype)
    return _Subject(
        spec.alias,
        weights.architecture,
        quantization,
        size,
        weights.dtype,
        flags=spec.engine.flags(spec),
        sizing=spec.engine.sizing,
        stated_gib=needs.gib if needs and spec.engine.sizing is None else None,
        throughput=spec.throughput if spec.gpus else spec.expected_throughput,
    )


def _given_bytes(args: argparse.Namespace, arch: DecoderArchitecture | EncoderArchitecture) -> int | None:
    """--weights-bytes, unless it can only be another unit, or the size of one file of several."""
    size = args.weights_bytes
    if size and size * 8 < arch.parameters * _FEWEST_BITS:
        raise OpsError(
            f"--weights-bytes {size} is {size * 8 / arch.parameters:.2g} bits for each of {arch.parameters:,} "
            "parameters, and nobody stores them in so few",
            f"{_command(args, {'--weights-bytes': None})} --weights-bytes N   # in bytes, the sum of its weight files",
        )
    return size


def _computed_bytes(arch: DecoderArchitecture | EncoderArchitecture, q: Quantization, dtype: str) -> int:
    if isinstance(arch, DecoderArchitecture):
        return disk_bytes(arch, q, dtype)
    return arch.parameters * (4 if dtype == "float32" else 2)


def _from_config(args: argparse.Namespace) -> _Subject:
    given = Quantization(args.quantization) if args.quantization else None
    model = _read(args, args.config, given)
    size = _given_bytes(args, model.architecture) or model.weights_bytes
    if size is None:
        raise OpsError(
            f"{args.config} does not give the size of the weight files (of an unusual quantisation)",
            f"{_command(args, {})} --weights-bytes N   # the sum of its weight files",
        )
    name = args.config.name if args.config.is_dir() else str(args.config)
    return _Subject(name, model.architecture, model.quantization, size, model.dtype, model.notes, model.lowest)


def _read(args: argparse.Namespace, path: Path, given: Quantization | None = None) -> HfModel:
    """The model of a config; what is not covered is refused with the command that makes it so, where there is one."""
    try:
        return read_config(path, quantization=given, like=args.like, language_only=args.language_model_only)
    except UnsupportedModelError as error:
        if not error.flags:
            raise
        flags: dict[str, str | None] = {**error.flags}
        comment = ""
        if nearest_one := flags.get("--quantization"):
            flags["--weights-bytes"], comment = _sized_as(args, path, Quantization(nearest_one))
        raise OpsError(str(error).partition("; ")[0], _command(args, flags) + comment) from error


def _sized_as(args: argparse.Namespace, path: Path, quantization: Quantization) -> tuple[str | None, str]:
    """The size that files of that quantisation would have, to start from."""
    if args.weights_bytes:
        return str(args.weights_bytes), ""
    try:
        model = read_config(path, quantization=quantization, like=args.like, language_only=args.language_model_only)
    except ValueError:
        return None, "   # and --weights-bytes N, the sum of its weight files"
    size = _computed_bytes(model.architecture, quantization, model.dtype)
    return str(size), "   # better: the sum of its weight files"


def _command(args: argparse.Namespace, changes: Mapping[str, str | None]) -> str:
    """This command with flags replaced or added; None takes a flag away."""
    flags = {
        "--config": args.config,
        "--quantization": args.quantization,
        "--weights-bytes": args.weights_bytes,
        "--gpu": args.gpu,
        "--gpu-memory-gib": args.gpu_memory_gib,
        "--utilization": args.utilization,
        "--max-model-len": args.max_model_len,
        "--max-num-seqs": args.max_num_seqs,
        "--max-num-batched-tokens": args.max_num_batched_tokens,
        "--tensor-parallel": args.tensor_parallel,
        "--like": args.like,
        "--dtype": args.dtype,
        "--kv-cache-dtype": args.kv_cache_dtype,
        "--max-loras": args.max_loras,
        "--max-lora-rank": args.max_lora_rank,
        "--speculative-method": args.speculative_method,
        "--num-speculative-tokens": args.num_speculative_tokens,
        "--draft-config": args.draft_config,
        "--limit-mm-per-prompt": args.limit_mm_per_prompt,
        "--prompt-tokens": args.prompt_tokens,
        "--output-tokens": args.output_tokens,
        "--profiles": args.profiles,
        "--vllm": args.vllm,
        "--machine": args.machine,
    } | dict(changes)
    if "--language-model-only" in flags:
        args = argparse.Namespace(**vars(args) | {"language_model_only": True})
        del flags["--language-model-only"]
    words = ["ops", "fit"] + ([args.alias] if args.alias else [])
    for flag, value in flags.items():
        if value is not None:
            words += [flag] if value == "" else [flag, str(value)]
    if args.eager and "--eager" not in flags:
        words.append("--eager")
    words += ["--language-model-only"] if args.language_model_only else []
    if args.prefix_caching is not None:
        words.append("--enable-prefix-caching" if args.prefix_caching else "--no-enable-prefix-caching")
    words += ["--cpu"] if args.cpu else []
    return shlex.join(words)


# --- vLLM on a GPU ------------------------------------------------------------------------------------------


_KNOBS = (
    *("max_model_len", "max_num_seqs", "max_num_batched_tokens", "utilization", "tensor_parallel", "eager"),
    *("kv_cache_dtype", "max_loras", "max_lora_rank", "prefix_caching"),
)


def _knobs(args: argparse.Namespace, subject: _Subject, gpu_gib: float, version: VllmVersion) -> Knobs:
    arch = subject.architecture
    context = min(args.max_model_len or arch.max_positions, arch.max_positions)
    large = False if (args.gpu or "").startswith("a100") else None
    capability = None if args.gpu_memory_gib else CARDS[args.gpu or "l4"].capability
    language_only = args.language_model_only or text_only(args.limit_mm_per_prompt)
    knobs = default_knobs(
        gpu_gib,
        context,
        version=version,
        max_num_seqs=args.max_num_seqs,
        large=large,
        capability=capability,
        tower=None if language_only or not isinstance(arch, DecoderArchitecture) else arch.tower,
    )
    given: dict[str, Any] = {name: subject.flags[name] for name in _KNOBS if name in subject.flags}
    named = {name: getattr(args, name) for name in _KNOBS} | {"eager": args.eager or None}
    given |= {name: value for name, value in named.items() if value is not None}
    return replace(
        knobs,
        **given,
        speculation=_speculation(args, subject),
        language_only=language_only,
        videos=videos(args.limit_mm_per_prompt),
    )


def _speculation(args: argparse.Namespace, subject: _Subject) -> Speculation | None:
    if args.draft_config is not None and args.speculative_method not in (None, "draft"):
        raise OpsError(
            f"--draft-config is of a draft model, and --speculative-method is {args.speculative_method}",
            _command(args, {"--speculative-method": "draft"}),
        )
    named = args.speculative_method or subject.flags.get("speculative_method")
    tokens = args.num_speculative_tokens or int(subject.flags.get("num_speculative_tokens", 1))
    if args.draft_config is not None:
        draft = read_config(args.draft_config)
        if not isinstance(draft.architecture, DecoderArchitecture):
            raise OpsError(f"{args.draft_config} is no decoder, and only those guess ahead", "ops fit --help")
        return Speculation("draft", tokens, draft.architecture, draft.weights_bytes)
    if named == "draft":
        raise OpsError(
            "a draft model guesses ahead, and nobody says which",
            f"{_command(args, {})} --draft-config FILE   # its config.json",
        )
    if named is None:
        if args.num_speculative_tokens is not None:
            raise OpsError(
                "--num-speculative-tokens guesses ahead, and nothing says how",
                _command(args, {"--speculative-method": "ngram"}),
            )
        return None
    return Speculation("mtp" if named == "mtp" else "ngram", tokens)


def _version(args: argparse.Namespace, subject: _Subject) -> VllmVersion:
    named = args.vllm or subject.flags.get("vllm")
    return vllm_version(str(named)) if named else DEFAULT_VERSION


def _vllm(args: argparse.Namespace, subject: _Subject, arch: DecoderArchitecture) -> _Answer:
    gpu = args.gpu or "l4"
    gpu_gib = args.gpu_memory_gib or CARDS[gpu].gib
    capability = None if args.gpu_memory_gib else CARDS[gpu].capability
    served_dtype = {"half": "float16", "auto": None}.get(args.dtype, args.dtype)
    if args.machine and (args.gpu_memory_gib or gpu != "l4"):
        raise OpsError(f"--machine {args.machine} has no such GPU", _command(args, {"--machine": None}))
    if capability is not None:
        check_method(capability, subject.lowest, "the way these weights are stored needs")
    version = _version(args, subject)
    knobs = _knobs(args, subject, gpu_gib, version)

    def estimate(with_knobs: Knobs) -> GpuFit:
        return gpu_fit(
            arch,
            quantization=subject.quantization,
            weights_bytes=subject.weights_bytes,
            gpu_gib=gpu_gib,
            knobs=with_knobs,
            dtype=subject.dtype,
            version=version,
            capability=capability,
            served_dtype=served_dtype,
        )

    fit = estimate(knobs)
    host = vllm_host_memory(subject.weights_bytes, knobs.tensor_parallel).total_gib
    on_l4 = args.gpu_memory_gib is None and gpu == "l4"
    candidates = [m for m in G2_MACHINES.values() if m.gpus >= knobs.tensor_parallel] if on_l4 else []
    host_fits, machine = _place(args, host, candidates, knobs.tensor_parallel)
    changes: list[dict[str, Json]] = []
    if not fit.fits:
        for remedy in remedies(
            arch,
            quantization=subject.quantization,
            weights_bytes=subject.weights_bytes,
            gpu_gib=gpu_gib,
            knobs=knobs,
            dtype=subject.dtype,
            version=version,
            capability=capability,
            served_dtype=served_dtype,
        ):
            flags: dict[str, str | None] = {**remedy.flags}
            if CARDS[remedy.flags.get("--gpu", "h100")].capability < subject.lowest:
                continue
            if "--gpu" in flags:
                flags["--gpu-memory-gib"] = None
            if not flags.keys().isdisjoint({"--gpu", "--tensor-parallel"}):
                flags["--machine"] = None
            if "--max-model-len" in flags:
                flags |= dict.fromkeys(speed.REQUEST)  # which would not fit into it
            changes.append(
                {
                    "what": remedy.what,
                    "command": _command(args, flags),
                    "kv_cache_gib": round(remedy.fit.kv_cache_gib, 2),
                    "max_model_len": remedy.fit.max_model_len,
                }
            )
    if not host_fits and machine is not None:
        changes += _bigger_machine(args, machine)
    fits = fit.fits and host_fits
    place = f"{knobs.tensor_parallel} x " if knobs.tensor_parallel > 1 else ""
    place += f"{gpu_gib:g} GiB GPU" if args.gpu_memory_gib else gpu.upper()
    reason = fit.reason if host_fits else _lacking(args, host)
    disk = disk_gib(subject.weights_bytes)
    fast = speed.computed(
        args,
        arch,
        subject.quantization,
        gpu=None if args.gpu_memory_gib else gpu,
        fit=fit,
        knobs=knobs,
        node=machine,
        command=_command,
    )
    known = speed.of_entry(subject.throughput)
    profiles = profiles_here(args.profiles, knobs.tensor_parallel) if args.profiles else []
    answer: dict[str, Json] = {
        "model": subject.name,
        "fits": fits,
        "reason": reason if fit.fits else fit.reason,
        "gpu_memory_gib": fit.total_gib,
        "tensor_parallel": knobs.tensor_parallel,
        "budget_gib": round(fit.budget_gib, 2),
        "weights_gib": round(fit.weights_gib, 2),
        "non_torch_gib": round(fit.non_torch_gib, 2),
        "activation_gib": round(fit.activation_gib, 2),
        "cuda_graph_gib": round(fit.cuda_graph_gib, 2),
        "kv_cache_gib": round(fit.kv_cache_gib, 2),
        "kv_cache_tokens": fit.kv_cache_tokens,
        "requested_max_model_len": fit.requested_len,
        "max_model_len": fit.max_model_len,
        "concurrency": round(fit.concurrency, 2),
        "startup_needed_gib": round(fit.startup.needed_gib, 2),
        "startup_left_gib": round(fit.startup.left_gib, 2),
        "utilization": knobs.utilization,
        "max_num_seqs": knobs.max_num_seqs,
        "max_num_batched_tokens": knobs.max_num_batched_tokens,
        "vllm": f">= {version.name}",
        "host_ram_gib": host,
        "machine": machine.name if machine else None,
        "disk_gib": disk,
        "speed": fast.json,
        "throughput": known.json,
        "profiles": [asdict(profile) for profile in profiles],
        "notes": list(subject.notes),
        "remedies": list[Json](changes),
    }
    prefill = f"chunks of {knobs.max_num_batched_tokens:,} tokens"
    lines = [
        f"{subject.name} on {place}: {'fits' if fits else 'does not fit'}",
        f"  {answer['reason']}",
        "",
        *_bar(fit),
        "",
        f"  longest context that fits: {fit.max_model_len:,} tokens",
        f"  start-up beside the budget: {fit.startup.needed_gib:.2f} of {fit.startup.left_gib:.2f} GiB",
        f"  utilization {knobs.utilization:g}, {knobs.max_num_seqs} sequences, {prefill}, vLLM {version.name} or later",
        *fast.lines,
        *known.lines,
        *profile_lines(profiles),
        *_rest(host, machine, disk, subject.notes, changes),
    ]
    return _Answer(fits, answer, "\n".join(lines))


_WIDTH = 60


def _bar(fit: GpuFit) -> list[str]:
    """One letter a share of the GPU, and what each letter stands for."""
    outside = fit.total_gib - fit.budget_gib
    parts = (
        ("W", "weights", fit.weights_gib),
        ("N", "CUDA libraries, buffers", fit.non_torch_gib),
        ("A", "activation peak", fit.activation_gib),
        ("G", "CUDA graphs", fit.cuda_graph_gib),
        ("K", "KV cache", max(fit.kv_cache_gib, 0)),
        (".", "left alone (utilization)", outside),
    )
    # Every part shows, be it small; the largest one pays for that.
    scale = _WIDTH / max(fit.total_gib, sum(gib for _, _, gib in parts))
    shares = {letter: max(1, round(gib * scale)) for letter, _, gib in parts if gib}
    largest = max(shares, key=shares.__getitem__)
    shares[largest] -= sum(shares.values()) - _WIDTH
    drawn = "".join(letter * share for letter, share in shares.items())
    lines = [f"  [{drawn}] {fit.total_gib:.2f} GiB"]
    lines += [f"   {letter} {name:<26}{gib:6.2f} GiB" for letter, name, gib in parts if gib]
    if fit.kv_cache_gib < 0:
        lines.append(f"   ! lacking{-fit.kv_cache_gib:24.2f} GiB")
    return lines


# --- where it runs, and what is printed with every answer ------------------------------------------------------


def _place(
    args: argparse.Namespace, host_gib: float, candidates: list[Machine], gpus: int = 0
) -> tuple[bool, Machine | None]:
    """Whether the named machine holds the load, and the machine to take: the named one or the smallest."""
    holding = next((m for m in candidates if m.pod_gib >= host_gib), None)
    if args.machine is None:
        return True, holding
    named = _MACHINES[args.machine]
    if named.gpus < gpus:
        enough = next((m.name for m in G2_MACHINES.values() if m.gpus >= gpus), None)
        raise OpsError(
            f"{named.name} has {named.gpus} GPUs and {gpus} are needed", _command(args, {"--machine": enough})
        )
    if named.pod_gib >= host_gib:
        return True, named
    return False, holding


def _lacking(args: argparse.Namespace, host_gib: float) -> str:
    left = _MACHINES[args.machine].pod_gib
    return f"loading needs {host_gib:.1f} GiB of host memory and {args.machine} leaves {left:.1f} GiB for a pod"


def _bigger_machine(args: argparse.Namespace, machine: Machine) -> list[dict[str, Json]]:
    return [{"what": f"a {machine.name}", "command": _command(args, {"--machine": machine.name})}]


def _rest(
    host: float, machine: Machine | None, disk: int, notes: tuple[str, ...], changes: list[dict[str, Json]]
) -> list[str]:
    on = f"; smallest machine: {machine.name}" if machine else ""
    lines = [f"  host memory {host:.1f} GiB while loading{on}; disk {disk} GiB"]
    lines += [f"  note: {note}" for note in notes]
    if changes:
        lines += ["", "  nearest changes that fit:"]
        lines += [f"    {change['what']}:\n{TO_COPY}{change['command']}" for change in changes]
    return lines


# --- CPU rows ---------------------------------------------------------------------------------------------------


def _cpu_answer(
    args: argparse.Namespace, subject: _Subject, host: float, parts: Mapping[str, float], context: int
) -> _Answer:
    speed.refuse_on_cpu(args, _command)
    fits, machine = _place(args, host, list(SYSTEM_MACHINES.values()))
    fits = fits and machine is not None
    disk = disk_gib(subject.weights_bytes)
    changes = _bigger_machine(args, machine) if not fits and machine else []
    if args.machine and not fits:
        reason = _lacking(args, host)
    elif machine is None:
        reason = f"{host:.1f} GiB of host memory are more than any machine of the system pool leaves"
    else:
        reason = f"{machine.name} leaves {machine.pod_gib:.1f} GiB for pods"
    kv = parts.get("kv_cache_gib", 0.0)
    known = speed.of_entry(subject.throughput)
    answer: dict[str, Json] = {
        "model": subject.name,
        "fits": fits,
        "reason": reason,
        **{name: round(gib, 2) for name, gib in parts.items()},
        "kv_cache_gib": round(kv, 2),
        "kv_cache_tokens": context if kv else 0,
        "max_model_len": context,
        "host_ram_gib": host,
        "machine": machine.name if machine else None,
        "disk_gib": disk,
        "throughput": known.json,
        "notes": list(subject.notes),
        "remedies": list[Json](changes),
    }
    lines = [
        f"{subject.name} on CPU: {'fits' if fits else 'does not fit'}",
        f"  {reason}",
        "",
        *(f"   {name.removesuffix('_gib').replace('_', ' '):<26}{gib:6.2f} GiB" for name, gib in parts.items()),
        "",
        *known.lines,
        *_rest(host, machine, disk, subject.notes, changes),
    ]
    return _Answer(fits, answer, "\n".join(lines))


def _encoder(args: argparse.Namespace, subject: _Subject, arch: EncoderArchitecture) -> _Answer:
    given = "--gpu" if args.gpu else "--gpu-memory-gib" if args.gpu_memory_gib else None
    if given:
        raise OpsError(
            f"{subject.name} is an encoder, which text-embeddings-inference serves on CPU here: {given} has no effect",
            _command(args, {given: None}),
        )
    batch = int(args.max_num_batched_tokens or subject.flags.get("max_num_batched_tokens") or _TEI_BATCH_TOKENS)
    context = _context(args, subject, arch)
    total = encoder_gib(arch, max_batch_tokens=batch, context=context)
    weights = arch.parameters * 4 / GIB
    parts = {"weights_gib": weights, "activation_and_process_gib": total - weights}
    return _cpu_answer(args, subject, math.ceil(total * 10) / 10, parts, context)


def _context(args: argparse.Namespace, subject: _Subject, arch: DecoderArchitecture | EncoderArchitecture) -> int:
    """What a request may span on CPU, where an engine would cut what is longer."""
    context = int(args.max_model_len or subject.flags.get("max_model_len") or arch.max_positions)
    if context > arch.max_positions:
        raise OpsError(
            f"--max-model-len {context} exceeds the model's {arch.max_positions} positions",
            _command(args, {"--max-model-len": str(arch.max_positions)}),
        )
    return context


def _gguf(args: argparse.Namespace, subject: _Subject, arch: DecoderArchitecture) -> _Answer:
    if not args.weights_bytes and subject.sizing is not Sizing.LLAMA_CPP:
        raise OpsError(
            "--cpu serves a GGUF file with llama.cpp, and its size is not given",
            f"{_command(args, {})} --weights-bytes N   # the size of the file",
        )
    context = _context(args, subject, arch)
    memory = gguf_memory(
        arch,
        file_bytes=subject.weights_bytes,
        context=context,
        slots=int(subject.flags.get("parallel", 1)),
        batch_tokens=int(subject.flags.get("batch_tokens", UBATCH)),
        prompt_cache_mib=int(subject.flags.get("prompt_cache_mib", 0)),
    )
    parts = {
        "weights_gib": memory.file_gib,
        "kv_cache_gib": memory.kv_cache_gib,
        "compute_gib": memory.compute_gib,
        **({"prompt_cache_gib": memory.prompt_cache_gib} if memory.prompt_cache_gib else {}),
        "process_gib": memory.process_gib,
    }
    return _cpu_answer(args, subject, math.ceil(memory.total_gib * 10) / 10, parts, context)
