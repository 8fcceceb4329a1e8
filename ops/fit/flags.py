"""The command line of `ops fit`: its flags, and this command again with some of them changed."""

from __future__ import annotations

import argparse
import re
import reprlib
import shlex
from collections.abc import Mapping
from pathlib import Path

from models.hf_families import DECODERS, ENCODERS
from models.machines import G2_MACHINES, SYSTEM_MACHINES
from models.memory.gpus import CARDS
from models.memory.vllm import KV_CACHE_DTYPES
from models.weights import Quantization
from ops.fit import speed
from ops.fit.limits import per_prompt

MACHINES = SYSTEM_MACHINES | G2_MACHINES
_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # `MaxLoRARanks` in vllm/config/lora.py
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
    stored = ", ".join(q.value for q in Quantization)
    model.add_argument("--quantization", metavar="Q", help=f"how weights are stored: {stored}; a level of a GGUF entry")
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
    flags.add_argument("--compiled", action="store_true", help="a later start, which finds the code of the first one")
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
    parser.add_argument("--machine", choices=list(MACHINES), help="default: the smallest that holds it")
    parser.add_argument("--format", choices=["text", "json"], default="text")


def command_line(args: argparse.Namespace, changes: Mapping[str, str | None]) -> str:
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
    words += ["--compiled"] if args.compiled and "--compiled" not in flags else []
    words += ["--language-model-only"] if args.language_model_only else []
    if args.prefix_caching is not None:
        words.append("--enable-prefix-caching" if args.prefix_caching else "--no-enable-prefix-caching")
    words += ["--cpu"] if args.cpu else []
    return shlex.join(words)


_FLAG = re.compile(r"give (?:at most )?(--[a-z-]+) ([a-z0-9.]+)\b")


def typed(args: argparse.Namespace, instead: str) -> str:
    """What to give instead as this command with it, where it names a flag of this command and a value."""
    named = _FLAG.match(instead)
    if named is None or not hasattr(args, named[1].removeprefix("--").replace("-", "_")):
        return instead
    changes: dict[str, str | None] = {named[1]: named[2]}
    if named[1] == "--gpu":
        changes |= {"--gpu-memory-gib": None, "--dtype": None}
    rest = instead[named.end() :].strip(" ;,")
    return command_line(args, changes) + (f"   # {rest}" if rest else "")
