"""Changes that make a model fit its GPU under vLLM, each one proven by the memory model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice

from models.facts import GIB
from models.memory.versions import DEFAULT_VERSION, VllmVersion
from models.memory.vllm import CHUNK, GPU_GIB, GpuFit, Knobs, disk_bytes, gpu_fit, gpu_weights_gib
from models.weights import DecoderArchitecture, Quantization


@dataclass(frozen=True)
class Remedy:
    """A change that makes a model fit, proven by the model itself."""

    what: str  # "a context of 8,192 tokens"
    flags: Mapping[str, str]  # of `ops fit`, to be added or to replace those given; "" is a flag without value
    fit: GpuFit


_SHORTEST_CONTEXT = 2048  # below this a chat model is of no use
_FEWEST_SEQS, _SMALLEST_CHUNK = 8, 512
_HIGHEST_UTILIZATION = 0.95
_LARGER_GPUS = ("a100-40gb", "l40s", "a100-80gb", "h100")


def _smaller(start: int, floor: int) -> Iterator[int]:
    """Powers of two below `start`, down to `floor`, largest first."""
    size = 1 << (start - 1).bit_length() >> 1
    while size >= floor:
        yield size
        size >>= 1


def remedies(
    arch: DecoderArchitecture,
    *,
    quantization: Quantization,
    weights_bytes: int | None,
    gpu_gib: float,
    knobs: Knobs,
    dtype: str = "bfloat16",
    version: VllmVersion = DEFAULT_VERSION,
) -> tuple[Remedy, ...]:
    """Changes that fit, the least intrusive first; each one was put through `gpu_fit`.

    Fewer sequences and smaller chunks cost throughput, utilization costs safety, eager mode costs speed, a
    shorter context and a quantised model cost ability, more GPUs and a larger GPU cost money. Where no single
    flag helps, all of the cheap ones together are tried.
    """

    def tried(
        what: str,
        flags: Mapping[str, str],
        changed: Knobs = knobs,
        *,
        q: Quantization = quantization,
        size: int | None = weights_bytes,
        gib: float = gpu_gib,
    ) -> Iterator[Remedy]:
        result = gpu_fit(
            arch, quantization=q, weights_bytes=size, gpu_gib=gib, knobs=changed, dtype=dtype, version=version
        )
        if result.fits:
            yield Remedy(what, flags, result)

    def first(candidates: Iterable[Iterator[Remedy]]) -> list[Remedy]:
        return list(islice(chain.from_iterable(candidates), 1))

    def shorter(base: Knobs, flags: Mapping[str, str]) -> Iterator[Remedy]:
        longest = gpu_fit(
            arch,
            quantization=quantization,
            weights_bytes=weights_bytes,
            gpu_gib=gpu_gib,
            knobs=base,
            dtype=dtype,
            version=version,
        ).max_model_len
        longest -= longest % 1024
        if longest >= _SHORTEST_CONTEXT:
            changed = replace(base, max_model_len=longest)
            what = f"a context of {longest:,} tokens"
            if flags:
                what += f", {base.max_num_seqs} sequences and utilization {base.utilization:g}"
            yield from tried(what, {**flags, "--max-model-len": str(longest)}, changed)

    # The next steps of 5 %; from above the highest, the way back to what an idle GPU has free.
    utilizations = [u / 100 for u in range(5, 100, 5) if u / 100 > knobs.utilization] or [_HIGHEST_UTILIZATION]
    found = first(
        tried(f"at most {n} sequences at once", {"--max-num-seqs": str(n)}, replace(knobs, max_num_seqs=n))
        for n in _smaller(knobs.max_num_seqs, _FEWEST_SEQS)
    )
    found += first(
        tried(
            f"prefill in chunks of {n:,} tokens",
            {"--max-num-batched-tokens": str(n)},
            replace(knobs, max_num_batched_tokens=n),
        )
        for n in _smaller(knobs.max_num_batched_tokens, max(_SMALLEST_CHUNK, knobs.max_num_seqs))
    )
    found += first(
        tried(f"utilization {u:.2f}", {"--utilization": f"{u:.2f}"}, replace(knobs, utilization=u))
        for u in utilizations
    )
    if not knobs.eager:
        found += tried("no CUDA graphs (slower decoding)", {"--eager": ""}, replace(knobs, eager=True))
    found += shorter(knobs, {})
    if not found:
        least = replace(
            knobs,
            max_num_seqs=min(knobs.max_num_seqs, _FEWEST_SEQS),
            max_num_batched_tokens=min(knobs.max_num_batched_tokens, CHUNK),
            utilization=_HIGHEST_UTILIZATION,
        )
        flags = {
            "--max-num-seqs": str(least.max_num_seqs),
            "--max-num-batched-tokens": str(least.max_num_batched_tokens),
            "--utilization": str(least.utilization),
        }
        found += shorter(least, flags)
    for q in (Quantization.FP8, Quantization.AWQ):
        size = disk_bytes(arch, q)
        if size < gpu_weights_gib(arch, quantization, weights_bytes, dtype=dtype) * GIB * 0.9:
            flags = {"--quantization": q.value, "--weights-bytes": str(size)}
            found += tried(f"the model quantised to {q.value.upper()}", flags, q=q, size=size)
    found += first(
        tried(f"{n} GPUs", {"--tensor-parallel": str(n)}, replace(knobs, tensor_parallel=n))
        for n in (2, 4, 8)
        if n > knobs.tensor_parallel and arch.heads % n == 0
    )
    found += first(
        tried(f"a larger GPU ({name.upper()})", {"--gpu": name}, gib=GPU_GIB[name])
        for name in _LARGER_GPUS
        if GPU_GIB[name] > gpu_gib + 1
    )
    return tuple(found)
