"""How vLLM cuts a KV cache into blocks: layers of several kinds share one pool of pages of one size.

A model whose layers are all alike has one group, and a block holds its tokens in every layer. Otherwise vLLM makes the
page of every kind as large as the largest one by putting more tokens in a block, splits the layers into groups of equal
size, padded where they do not divide, and gives each group blocks of its own out of the one pool.
Source (0.13 to 0.29): `get_kv_cache_groups` and `_report_kv_cache_config` in vllm/v1/core/kv_cache_utils.py, each
`max_memory_usage_bytes` of vllm/v1/kv_cache_interface.py, and the hybrid block size of vllm/platforms/interface.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.facts import GIB
from models.memory.versions import VllmVersion
from models.weights import CacheLayers, DecoderArchitecture, StateLayers

if TYPE_CHECKING:
    from models.memory.vllm import Knobs, Speculation

_HALF = 2


@dataclass(frozen=True)
class _Kind:
    """Layers that are alike to the cache, and what a request takes of it."""

    attention: str  # of CacheLayers, or "state"
    layers: int
    page: int  # bytes of a block in one layer
    block: int  # tokens of a block
    window: int | None = None
    states: int = 0  # blocks of a request whose state has a fixed size

    def blocks(self, length: int, in_flight: int) -> int:
        """Blocks of one request of `length` tokens, of which `in_flight` may be scheduled and not settled."""
        if self.states:
            return self.states
        if self.attention == "cross":
            return math.ceil((self.window or 0) / self.block)
        if self.attention == "sliding" and self.window:
            return math.ceil(min(self.window - 1 + in_flight, length) / self.block) + 1
        return math.ceil(length / self.block)


@dataclass(frozen=True)
class KvLayout:
    """The pool: what a block costs on one GPU, and what a request takes."""

    block_bytes: int  # of one block, in all the layers that share it
    groups: tuple[_Kind, ...]  # one a group
    in_flight: int
    by_context: bool  # whether vLLM prints tokens as requests of the whole context that fit

    def blocks(self, gib: float) -> int:
        """Blocks that an amount of memory holds."""
        return max(math.floor(gib * GIB / self.block_bytes), 0)

    def request_blocks(self, length: int) -> int:
        """Blocks of one request."""
        return sum(group.blocks(length, self.in_flight) for group in self.groups)

    def concurrency(self, gib: float, length: int) -> float:
        """Requests of `length` tokens at once, as vLLM's "Maximum concurrency" says."""
        return self.blocks(gib) / self.request_blocks(length)

    def tokens(self, gib: float, length: int) -> int:
        """Tokens as vLLM's "GPU KV cache size" says for a context of `length`."""
        blocks = self.blocks(gib)
        if len(self.groups) == 1 and self.groups[0].attention != "sliding":
            return blocks * self.groups[0].block
        if self.by_context:
            return int(blocks / self.request_blocks(length) * length)
        return blocks // len(self.groups) * min(group.block for group in self.groups)

    def gib(self, length: int) -> float:
        """Memory that one request takes."""
        return self.request_blocks(length) * self.block_bytes / GIB

    def longest(self, gib: float, most: int) -> int:
        """The longest context, up to `most`, of which one request fits; 0 for none."""
        blocks = self.blocks(gib)
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.request_blocks(middle) <= blocks else (low, middle - 1)
        return low


def cache_layers(arch: DecoderArchitecture) -> tuple[CacheLayers, ...]:
    """The layers with a KV cache: those that the architecture names, or all of them alike."""
    if arch.cache or arch.states:
        return arch.cache
    every = CacheLayers(attention="full", layers=arch.layers, kv_heads=arch.kv_heads, head_dim=arch.head_dim)
    return (every,)


def layer_token_bytes(layers: CacheLayers, tensor_parallel: int, element_bytes: float = _HALF) -> float:
    """KV cache of one token in one layer on one GPU; heads are copied where there are more GPUs than KV heads."""
    if layers.attention == "latent":
        return layers.head_dim * element_bytes  # the latent vector is kept whole by every GPU
    return 2 * math.ceil(layers.kv_heads / tensor_parallel) * layers.head_dim * element_bytes


def state_bytes(states: StateLayers, tensor_parallel: int, speculative_tokens: int = 0) -> int:
    """State of one sequence in one layer on one GPU: the recurrent one and the columns that the convolution keeps."""
    columns = states.conv_width - 1 + speculative_tokens
    recurrent = states.heads * states.head_dim * states.state_dim * states.state_bytes
    return math.ceil((recurrent + states.conv_dim * columns * _HALF) / tensor_parallel)


def kv_layout(arch: DecoderArchitecture, knobs: Knobs, version: VllmVersion) -> KvLayout:
    """The pool that vLLM makes for a model."""
    kinds = _kinds(arch, knobs, version)
    in_flight = knobs.max_num_batched_tokens * version.batches_in_flight
    # One kind of attention needs the same tokens of every layer, be their heads as they may: one group of all.
    same = {(kind.attention, kind.window, kind.block, kind.states) for kind in kinds}
    if len(same) == 1 and not kinds[0].states:
        block_bytes = sum(kind.page * kind.layers for kind in kinds)
        return KvLayout(block_bytes, (kinds[0],), in_flight, version.tokens_by_context)
    largest = max(kind.page for kind in kinds)
    # A page that does not divide the largest one is rounded up: newer versions pack such layers, older ones refuse.
    unified = [
        _Kind(
            kind.attention,
            kind.layers,
            largest,
            kind.block if kind.states else kind.block * max(largest // kind.page, 1),
            kind.window,
            kind.states,
        )
        for kind in kinds
    ]
    size = _group_size([kind.layers for kind in unified], version)
    groups = tuple(kind for kind in unified for _ in range(math.ceil(kind.layers / size)))
    return KvLayout(largest * size, groups, in_flight, version.tokens_by_context)


def _group_size(counts: list[int], version: VllmVersion) -> int:
    """Layers of a group: the fewest of any kind, or the most where the two are close."""
    fewest, most = min(counts), max(counts)
    return most if most < fewest * version.group_ratio else fewest


def _kinds(arch: DecoderArchitecture, knobs: Knobs, version: VllmVersion) -> list[_Kind]:
    tp, element = knobs.tensor_parallel, knobs.kv_element_bytes
    layers = [*cache_layers(arch)]
    if knobs.speculation is not None:
        layers += _draft_layers(arch, knobs.speculation)
    layers = _merged(layers)
    if not version.hybrid_cache:  # sliding windows save compute only, and every layer keeps every token
        whole = {"attention": "full", "window": None}
        layers = [found.model_copy(update=whole) if found.attention == "sliding" else found for found in layers]
    block, states = knobs.block_size, None
    token = {found: layer_token_bytes(found, tp, element) for found in layers}
    if any(found.attention == "latent" for found in layers):
        block = max(block, version.latent_block)
    if arch.states is not None:
        page = state_bytes(arch.states, tp, knobs.speculative_tokens)
        of_attention = max(token.values(), default=0)
        if of_attention:
            block = max(block, block * math.ceil(page / (block * of_attention)))
            page = max(page, math.ceil(block * of_attention))
        caching = version.caches_states if knobs.prefix_caching is None else knobs.prefix_caching
        held = (2 if caching else 1) + knobs.speculative_tokens
        states = _Kind("state", arch.states.layers, page, block, states=held)
    kinds = [
        _Kind(found.attention, found.layers, math.ceil(block * token[found]), block, _window(found, knobs))
        for found in layers
    ]
    return [*kinds, states] if states else kinds


def _window(layers: CacheLayers, knobs: Knobs) -> int | None:
    """What a request keeps at most; cross attention reserves a whole step's encoder tokens."""
    if layers.attention == "cross" and layers.window is not None:
        return max(layers.window, knobs.max_num_batched_tokens)
    return layers.window


def _draft_layers(arch: DecoderArchitecture, speculation: Speculation) -> list[CacheLayers]:
    """Layers of what guesses ahead: those of a draft model, or one like the model's full attention."""
    match speculation.method:
        case "ngram":
            return []
        case "draft":
            return list(cache_layers(speculation.draft)) if speculation.draft else []
        case "mtp":
            full = [found for found in cache_layers(arch) if found.attention != "sliding"]
            return [(full or list(cache_layers(arch)))[0].model_copy(update={"layers": 1})]


def _merged(layers: list[CacheLayers]) -> list[CacheLayers]:
    """Layers of one description counted together."""
    counts: dict[CacheLayers, int] = {}
    for found in layers:
        like = found.model_copy(update={"layers": 1})
        counts[like] = counts.get(like, 0) + found.layers
    return [like.model_copy(update={"layers": count}) for like, count in counts.items()]
