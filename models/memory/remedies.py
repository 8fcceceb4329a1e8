"""Changes that make a model fit its GPU under vLLM, each one proven by the memory model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice

from models.facts import GIB
from models.memory.gpus import CARDS
from models.memory.versions import DEFAULT_VERSION, VllmVersion
from models.memory.vllm import CHUNK, GpuFit, Knobs, gpu_fit, least_batch
from models.memory.weights import disk_bytes, gpu_weights_gib
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
_WITHOUT_VIDEOS = {"--limit-mm-per-prompt": '{"video": 0}'}
_LARGER_GPUS = ("a100-40gb", "l40s", "a100-80gb", "h100")


def _smaller(start: int, floor: int) -> Iterator[int]:
    """Powers of two below `start`, down to `floor`, largest first."""
    size = 1 << (start - 1).bit_length() >> 1
    while size >= floor:
        yield size
        size >>= 1


@dataclass(frozen=True)
class _Model:
    """What is asked about, and the one way to ask."""

    arch: DecoderArchitecture
    quantization: Quantization
    weights_bytes: int | None
    gpu_gib: float
    dtype: str
    version: VllmVersion
    capability: tuple[int, int] | None
    served_dtype: str | None

    def fit(self, knobs: Knobs) -> GpuFit | None:
        """The answer; None where vLLM refuses the flags or the card cannot run it."""
        try:
            return gpu_fit(
                self.arch,
                quantization=self.quantization,
                weights_bytes=self.weights_bytes,
                gpu_gib=self.gpu_gib,
                knobs=knobs,
                dtype=self.dtype,
                version=self.version,
                capability=self.capability,
                served_dtype=self.served_dtype,
            )
        except ValueError:
            return None

    def tried(self, what: str, flags: Mapping[str, str], knobs: Knobs) -> Iterator[Remedy]:
        """The change, if it helps."""
        result = self.fit(knobs)
        if result is not None and result.fits:
            yield Remedy(what, flags, result)


def remedies(
    arch: DecoderArchitecture,
    *,
    quantization: Quantization,
    weights_bytes: int | None,
    gpu_gib: float,
    knobs: Knobs,
    dtype: str = "bfloat16",
    version: VllmVersion = DEFAULT_VERSION,
    capability: tuple[int, int] | None = None,
    served_dtype: str | None = None,
) -> tuple[Remedy, ...]:
    """Changes that fit, the least intrusive first; each one was put through `gpu_fit`.

    Fewer sequences and smaller chunks cost throughput, utilization costs safety, eager mode costs speed, a
    shorter context and a quantised model cost ability, more GPUs and a larger GPU cost money. Where no single
    flag helps, all of the cheap ones together are tried. What dies behind its budget is told the flag that leaves it
    the most KV cache first.
    """
    model = _Model(arch, quantization, weights_bytes, gpu_gib, dtype, version, capability, served_dtype)
    now = model.fit(knobs)
    dies = now is not None and not now.startup.starts
    found = list(_cheap(model, knobs, lower=dies))
    if dies:
        found.sort(key=lambda remedy: -remedy.fit.kv_cache_gib)
    found += _shorter(model, knobs, {})
    if not found:
        found += _together(model, knobs)
    return (*found, *_dearer(model, knobs))


def _first(candidates: Iterable[Iterator[Remedy]]) -> list[Remedy]:
    return list(islice(chain.from_iterable(candidates), 1))


def _cheap(model: _Model, knobs: Knobs, *, lower: bool) -> Iterator[Remedy]:
    """One flag that costs neither context nor money. `lower`: utilization is to be lowered, not raised."""
    yield from _first(
        model.tried(f"at most {n} sequences at once", {"--max-num-seqs": str(n)}, replace(knobs, max_num_seqs=n))
        for n in _smaller(knobs.max_num_seqs, _FEWEST_SEQS)
    )
    least = least_batch(model.arch, knobs, model.version)
    chunks = _smaller(knobs.max_num_batched_tokens, max(_SMALLEST_CHUNK, least))
    if _SMALLEST_CHUNK < least < knobs.max_num_batched_tokens:
        chunks = chain(chunks, (least,))  # no power of two, where an item is taken whole
    yield from _first(
        model.tried(
            f"prefill in chunks of {n:,} tokens",
            {"--max-num-batched-tokens": str(n)},
            replace(knobs, max_num_batched_tokens=n),
        )
        for n in chunks
    )
    steps = [u / 100 for u in range(5, 100, 5)]
    if lower:
        utilizations = [u / 100 for u in range(99, 4, -1) if u / 100 < knobs.utilization]
    else:
        # The next steps of 5 %; from above the highest, the way back to what an idle GPU has free.
        utilizations = [u for u in steps if u > knobs.utilization] or [_HIGHEST_UTILIZATION]
    yield from _first(
        model.tried(f"utilization {u:.2f}", {"--utilization": f"{u:.2f}"}, replace(knobs, utilization=u))
        for u in utilizations
    )
    if knobs.videos and model.arch.tower and model.arch.tower.films:
        without = replace(knobs, videos=False)
        yield from model.tried("no videos in prompts", _WITHOUT_VIDEOS, without)
    if not knobs.eager:
        yield from model.tried("no CUDA graphs (slower decoding)", {"--eager": ""}, replace(knobs, eager=True))


def _shorter(model: _Model, base: Knobs, flags: Mapping[str, str]) -> Iterator[Remedy]:
    fit = model.fit(base)
    longest = fit.max_model_len if fit else 0
    longest -= longest % 1024
    if longest >= _SHORTEST_CONTEXT:
        what = f"a context of {longest:,} tokens"
        if flags:
            what += f", {base.max_num_seqs} sequences and utilization {base.utilization:g}"
        yield from model.tried(what, {**flags, "--max-model-len": str(longest)}, replace(base, max_model_len=longest))


def _together(model: _Model, knobs: Knobs) -> Iterator[Remedy]:
    """All of the cheap flags at once, at the highest utilization that starts."""
    for utilization in (_HIGHEST_UTILIZATION, 0.93, 0.90, 0.85, 0.80):
        least = replace(
            knobs,
            max_num_seqs=min(knobs.max_num_seqs, _FEWEST_SEQS),
            utilization=utilization,
            videos=knobs.videos and not (model.arch.tower and model.arch.tower.films),
        )
        chunk = max(CHUNK, least_batch(model.arch, least, model.version))
        least = replace(least, max_num_batched_tokens=min(knobs.max_num_batched_tokens, chunk))
        flags = {
            "--max-num-seqs": str(least.max_num_seqs),
            "--max-num-batched-tokens": str(least.max_num_batched_tokens),
            "--utilization": str(least.utilization),
        }
        if knobs.videos != least.videos:
            flags |= _WITHOUT_VIDEOS
        fit = model.fit(least)
        if fit is not None and fit.fits:
            what = f"{least.max_num_seqs} sequences, chunks of {least.max_num_batched_tokens:,} tokens and "
            yield from model.tried(what + f"utilization {utilization:g}", flags, least)
            return
        shorter = list(_shorter(model, least, flags))
        if shorter:
            yield from shorter
            return


def _dearer(model: _Model, knobs: Knobs) -> Iterator[Remedy]:
    """A quantised model, more GPUs, a larger one."""
    arch = model.arch
    loaded = gpu_weights_gib(arch, model.quantization, model.weights_bytes, dtype=model.dtype) * GIB
    for q in (Quantization.FP8, Quantization.AWQ):
        size = disk_bytes(arch, q)
        if size < loaded * 0.9 and not (q is Quantization.AWQ and arch.family == "gpt_oss"):
            flags = {"--quantization": q.value, "--weights-bytes": str(size)}
            smaller = replace(model, quantization=q, weights_bytes=size)
            yield from smaller.tried(f"the model quantised to {q.value.upper()}", flags, knobs)
    yield from _first(
        model.tried(f"{n} GPUs", {"--tensor-parallel": str(n)}, replace(knobs, tensor_parallel=n))
        for n in (2, 4, 8)
        if n > knobs.tensor_parallel and arch.heads % n == 0
    )
    yield from _first(
        replace(model, gpu_gib=CARDS[name].gib, capability=CARDS[name].capability).tried(
            f"a larger GPU ({name.upper()})", {"--gpu": name}, knobs
        )
        for name in _LARGER_GPUS
        if CARDS[name].gib > model.gpu_gib + 1
    )
