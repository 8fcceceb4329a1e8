"""What streams cost the gateway, and what one replica of it carries. Pure.

LiteLLM reads, judges and writes anew every chunk of a stream, so its work is by the chunk and by the request, however
many tokens are in them. A replica is one process of Python: one core, and beyond a share of it the chunks of one stream
wait for those of others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

# CPU of the proxy with the rendered config: of a chunk, and of a stream beside its chunks. Measured (docs/gateway.md,
# "Streams"), and brought to the faster machine by what a whole answer took on either: 32.2 and 16 ms there, and 22.4
# and 16 in an earlier run. The later one gives at most as much.
CHUNK_S = 0.75e-3
STREAM_S = 26e-3
# Of its core, up to which chunks of one stream seldom wait for those of others.
BUSY = 0.7
LEAST_CPU = 0.25  # cores, for requests and what comes with them


@dataclass(frozen=True)
class Streams:
    """What one replica of a model writes at its busiest."""

    tokens_per_s: float
    interval: int  # tokens a chunk
    output_tokens: int  # of a request

    @property
    def cores(self) -> float:
        """CPU of the gateway for all of it."""
        return self.tokens_per_s * (CHUNK_S / self.interval + STREAM_S / self.output_tokens)

    @property
    def told(self) -> str:
        """In a few words: "in chunks of 8 and requests of 128"."""
        return f"in chunks of {self.interval:,} and requests of {self.output_tokens:,}"

    def at(self, interval: int) -> Streams:
        """The same in chunks of another size."""
        return Streams(self.tokens_per_s, interval, self.output_tokens)


def carried(streams: Streams, replicas: int) -> float:
    """Tokens a second of such streams that so many replicas carry."""
    return replicas * BUSY * streams.tokens_per_s / streams.cores


def replicas_for(cores: float) -> int:
    """Replicas that carry so much."""
    return max(1, math.ceil(cores / BUSY - 1e-9))


def proxy_cpu(streams: Iterable[Streams], gpus: int, replicas: int) -> float:
    """Cores that a pod of the gateway asks for, in tenths above the least, at most what it can carry streams with.

    `streams` are those of each model that may be up, and `gpus` is how many of them may write at full speed at once.
    """
    dearest = sorted((each.cores for each in streams), reverse=True)[:gpus]
    return min(BUSY, max(LEAST_CPU, math.ceil(sum(dearest) / replicas * 10 - 1e-9) / 10))
