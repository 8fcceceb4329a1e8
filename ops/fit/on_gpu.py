"""The answer of `ops fit` for vLLM on a GPU."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from models.hf_config import UnsupportedModelError, read_config
from models.machines import G2_MACHINES
from models.memory.gpus import CARDS, check_method
from models.memory.host import disk_gib, vllm_host_memory
from models.memory.remedies import Remedy, remedies
from models.memory.versions import DEFAULT_VERSION, VllmVersion, vllm_version
from models.memory.vllm import GpuFit, Knobs, Speculation, default_knobs, gpu_fit
from models.weights import DecoderArchitecture
from ops.errors import OpsError
from ops.fit import speed
from ops.fit.answer import Answer, Json, bigger_machine, lacking, place_on, rest_lines
from ops.fit.flags import command_line
from ops.fit.limits import text_only, videos
from ops.fit.profiles import profile_lines, profiles_here
from ops.fit.subject import Subject

_KNOBS = (
    *("max_model_len", "max_num_seqs", "max_num_batched_tokens", "utilization", "tensor_parallel", "eager"),
    *("kv_cache_dtype", "max_loras", "max_lora_rank", "prefix_caching"),
)


def _knobs(args: argparse.Namespace, subject: Subject, gpu_gib: float, version: VllmVersion) -> Knobs:
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
    named = {name: getattr(args, name) for name in _KNOBS} | {
        "eager": args.eager or None,
        "compiled": args.compiled or None,
    }
    given |= {name: value for name, value in named.items() if value is not None}
    if subject.fp8_cache and version.cache_of_files and given.get("kv_cache_dtype", "auto") == "auto":
        given["kv_cache_dtype"] = "fp8"
    return replace(
        knobs,
        **given,
        speculation=_speculation(args, subject),
        language_only=language_only,
        videos=videos(args.limit_mm_per_prompt),
    )


def _speculation(args: argparse.Namespace, subject: Subject) -> Speculation | None:
    if args.draft_config is not None and args.speculative_method not in (None, "draft"):
        raise OpsError(
            f"--draft-config is of a draft model, and --speculative-method is {args.speculative_method}",
            command_line(args, {"--speculative-method": "draft"}),
        )
    named = args.speculative_method or subject.flags.get("speculative_method")
    tokens = args.num_speculative_tokens or int(subject.flags.get("num_speculative_tokens", 1))
    if args.draft_config is not None:
        try:
            draft = read_config(args.draft_config)
        except UnsupportedModelError as error:  # whose flags would be the served model's
            raise OpsError(
                f"--draft-config {args.draft_config}: {str(error).partition('; ')[0]}",
                command_line(args, {"--draft-config": None, "--speculative-method": "ngram"}),
            ) from error
        if not isinstance(draft.architecture, DecoderArchitecture):
            raise OpsError(f"{args.draft_config} is no decoder, and only those guess ahead", "ops fit --help")
        return Speculation("draft", tokens, draft.architecture, draft.weights_bytes)
    if named == "draft":
        raise OpsError(
            "a draft model guesses ahead, and nobody says which",
            f"{command_line(args, {})} --draft-config FILE   # its config.json",
        )
    if named is None:
        if args.num_speculative_tokens is not None:
            raise OpsError(
                "--num-speculative-tokens guesses ahead, and nothing says how",
                command_line(args, {"--speculative-method": "ngram"}),
            )
        return None
    return Speculation("mtp" if named == "mtp" else "ngram", tokens)


def _version(args: argparse.Namespace, subject: Subject) -> VllmVersion:
    named = args.vllm or subject.flags.get("vllm")
    return vllm_version(str(named)) if named else DEFAULT_VERSION


def on_gpu(args: argparse.Namespace, subject: Subject, arch: DecoderArchitecture) -> Answer:
    gpu = args.gpu or "l4"
    gpu_gib = args.gpu_memory_gib or CARDS[gpu].gib
    capability = None if args.gpu_memory_gib else CARDS[gpu].capability
    served_dtype = {"half": "float16", "auto": None}.get(args.dtype, args.dtype)
    if args.machine and (args.gpu_memory_gib or gpu != "l4"):
        raise OpsError(f"--machine {args.machine} has no such GPU", command_line(args, {"--machine": None}))
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
    notes = subject.notes
    if knobs.kv_cache_dtype == "fp8" and args.kv_cache_dtype in (None, "auto") and subject.fp8_cache:
        notes += ("its files ask for a KV cache in 8 bits; --kv-cache-dtype bfloat16 keeps it whole",)
    host = vllm_host_memory(subject.weights_bytes, knobs.tensor_parallel).total_gib
    on_l4 = args.gpu_memory_gib is None and gpu == "l4"
    candidates = [m for m in G2_MACHINES.values() if m.gpus >= knobs.tensor_parallel] if on_l4 else []
    host_fits, machine = place_on(args, host, candidates, knobs.tensor_parallel)
    changes: list[dict[str, Json]] = []
    if not fit.fits:
        found = remedies(
            arch,
            quantization=subject.quantization,
            weights_bytes=subject.weights_bytes,
            gpu_gib=gpu_gib,
            knobs=knobs,
            dtype=subject.dtype,
            version=version,
            capability=capability,
            served_dtype=served_dtype,
        )
        changes = [_change(args, r) for r in found if CARDS[r.flags.get("--gpu", "h100")].capability >= subject.lowest]
    if not host_fits and machine is not None:
        changes += bigger_machine(args, machine)
    fits = fit.fits and host_fits
    place = f"{knobs.tensor_parallel} x " if knobs.tensor_parallel > 1 else ""
    place += f"{gpu_gib:g} GiB GPU" if args.gpu_memory_gib else gpu.upper()
    reason = fit.reason if host_fits else lacking(args, host)
    disk = disk_gib(subject.weights_bytes)
    fast = speed.computed(
        args,
        arch,
        subject.quantization,
        gpu=None if args.gpu_memory_gib else gpu,
        fit=fit,
        knobs=knobs,
        node=machine,
        command=command_line,
    )
    known = speed.of_entry(subject.throughput)
    profiles = (
        profiles_here(args.profiles, knobs.tensor_parallel, arch.heads, partial(command_line, args))
        if args.profiles
        else []
    )
    answer: dict[str, Json] = {
        "model": subject.name,
        "fits": fits,
        "reason": reason if fit.fits else fit.reason,
        **_figures(fit, knobs, version),
        "host_ram_gib": host,
        "machine": machine.name if machine else None,
        "disk_gib": disk,
        "speed": fast.json,
        "throughput": known.json,
        "profiles": [asdict(profile) for profile in profiles],
        "notes": list(notes),
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
        *rest_lines(host, machine, disk, notes, changes),
    ]
    return Answer(fits, answer, "\n".join(lines))


def _change(args: argparse.Namespace, remedy: Remedy) -> dict[str, Json]:
    """A change that fits, as the command that shows it."""
    flags: dict[str, str | None] = {**remedy.flags}
    if "--gpu" in flags:
        flags["--gpu-memory-gib"] = None
    if not flags.keys().isdisjoint({"--gpu", "--tensor-parallel"}):
        flags["--machine"] = None
    if "--max-model-len" in flags:
        flags |= dict.fromkeys(speed.REQUEST)  # which would not fit into it
    return {
        "what": remedy.what,
        "command": command_line(args, flags),
        "kv_cache_gib": round(remedy.fit.kv_cache_gib, 2),
        "max_model_len": remedy.fit.max_model_len,
    }


def _figures(fit: GpuFit, knobs: Knobs, version: VllmVersion) -> dict[str, Json]:
    """What the memory model says, and for which flags."""
    return {
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
    }


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
