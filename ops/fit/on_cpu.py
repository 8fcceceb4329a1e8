"""The answer of `ops fit` for what runs on CPU: text-embeddings-inference, llama.cpp, and engines that state it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping

from models.engines.base import Sizing
from models.facts import GIB
from models.machines import SYSTEM_MACHINES
from models.memory.host import disk_gib
from models.memory.llama_cpp import UBATCH, gguf_memory
from models.memory.tei import encoder_gib
from models.weights import DecoderArchitecture, EncoderArchitecture
from ops.errors import OpsError
from ops.fit import speed
from ops.fit.answer import Answer, Json, bigger_machine, lacking, place_on, rest_lines
from ops.fit.flags import command_line
from ops.fit.subject import Subject

# Flags of `ops fit` that say something of a GPU alone.
_OF_A_GPU = (
    *("--gpu", "--gpu-memory-gib", "--utilization", "--tensor-parallel", "--eager", "--compiled", "--kv-cache-dtype"),
    *("--max-loras", "--speculative-method"),
)
_TEI_BATCH_TOKENS = 16_384  # text-embeddings-inference's own default


# Flags of vLLM that no engine on CPU has.
_OF_VLLM = (
    *(
        "--utilization",
        "--max-num-seqs",
        "--tensor-parallel",
        "--eager",
        "--compiled",
        "--dtype",
        "--kv-cache-dtype",
        "--max-loras",
    ),
    *("--max-lora-rank", "--speculative-method", "--num-speculative-tokens", "--draft-config", "--limit-mm-per-prompt"),
    "--vllm",
)


def _refuse_flags(args: argparse.Namespace, subject: Subject) -> None:
    """Raise OpsError for flags of vLLM where another engine serves, rather than pass over them."""
    given = [flag for flag in _OF_VLLM if getattr(args, flag.removeprefix("--").replace("-", "_"))]
    if args.prefix_caching is not None:
        given.append("--enable-prefix-caching" if args.prefix_caching else "--no-enable-prefix-caching")
        args = argparse.Namespace(**vars(args) | {"prefix_caching": None})
    if given:
        raise OpsError(
            f"{' and '.join(given)}: flags of vLLM, and {subject.name} is served on CPU by another engine",
            command_line(args, dict.fromkeys(given)),
        )


def on_cpu(args: argparse.Namespace, subject: Subject, host: float, parts: Mapping[str, float], context: int) -> Answer:
    _refuse_flags(args, subject)
    speed.refuse_on_cpu(args, command_line)
    fits, machine = place_on(args, host, list(SYSTEM_MACHINES.values()))
    fits = fits and machine is not None
    disk = disk_gib(subject.weights_bytes)
    changes = bigger_machine(args, machine) if not fits and machine else []
    if args.machine and not fits:
        reason = lacking(args, host)
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
        *rest_lines(host, machine, disk, subject.notes, changes),
    ]
    return Answer(fits, answer, "\n".join(lines))


def encoder(args: argparse.Namespace, subject: Subject, arch: EncoderArchitecture) -> Answer:
    _refuse_gpu(args, f"{subject.name} is an encoder, which text-embeddings-inference serves on CPU here")
    batch = int(args.max_num_batched_tokens or subject.flags.get("max_num_batched_tokens") or _TEI_BATCH_TOKENS)
    context = _context(args, subject, arch)
    total = encoder_gib(arch, max_batch_tokens=batch, context=context)
    weights = arch.parameters * 4 / GIB
    parts = {"weights_gib": weights, "activation_and_process_gib": total - weights}
    return on_cpu(args, subject, math.ceil(total * 10) / 10, parts, context)


def _refuse_gpu(args: argparse.Namespace, why: str) -> None:
    given = [flag for flag in _OF_A_GPU if getattr(args, flag.removeprefix("--").replace("-", "_"))]
    if given:
        have = "has" if len(given) == 1 else "have"
        raise OpsError(f"{why}: {', '.join(given)} {have} no effect", command_line(args, dict.fromkeys(given)))


def _context(args: argparse.Namespace, subject: Subject, arch: DecoderArchitecture | EncoderArchitecture) -> int:
    """What a request may span on CPU, where an engine would cut what is longer."""
    context = int(args.max_model_len or subject.flags.get("max_model_len") or arch.max_positions)
    if context > arch.max_positions:
        raise OpsError(
            f"--max-model-len {context} exceeds the model's {arch.max_positions} positions",
            command_line(args, {"--max-model-len": str(arch.max_positions)}),
        )
    return context


def gguf(args: argparse.Namespace, subject: Subject, arch: DecoderArchitecture) -> Answer:
    if subject.sizing is Sizing.LLAMA_CPP:
        _refuse_gpu(args, f"{subject.name} is a GGUF file, which llama.cpp serves on CPU here")
    if not args.weights_bytes and subject.sizing is not Sizing.LLAMA_CPP:
        raise OpsError(
            "--cpu serves a GGUF file with llama.cpp, and its size is not given",
            f"{command_line(args, {})} --weights-bytes N   # the size of the file",
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
    return on_cpu(args, subject, math.ceil(memory.total_gib * 10) / 10, parts, context)
