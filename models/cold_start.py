"""How long a model may take from nothing to its first token: the one budget that every deadline follows from.

A probe that kills a loading pod, a rollout deadline below the staging time, or a Pulumi await that gives up
first all fail a start that was going well. So each phase gets a budget, generous by design, and probes, the
Deployment's progress deadline and Pulumi's await are sums of phases.

The rates are floors that a healthy start beats: the reference deployment waits 1,200 s for Ready, and a public
L4 log shows 409 s from pod to ready without image streaming. Recalled rates are marked; a slow run only waits
longer, it is never killed early.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from models.facts import Image

GPU_NODE_S = 420  # autoscaler decision, VM, driver installation; recalled
IDLE_NODE_S = 600  # a node without pods stays so long, and with it its quota; recalled
CPU_NODE_S = 120  # the system pool is there already; room for a repair or an upgrade
_PULL_BYTES_PER_S = 40e6  # registry to containerd, unpacked, without image streaming; recalled
_STAGE_BYTES_PER_S = 20e6  # hub to claim
_STAGE_RETRY_S = 600  # what rate limits (429, 503) may add; the staging script gives up after it
_LOAD_BYTES_PER_S = 60e6  # claim to GPU; a small pd-balanced disk reads at about 140 MB/s
GPU_START_S = 420  # imports, profiling run, compilation, CUDA graphs
_MARGIN_S = 60


@dataclass(frozen=True)
class ColdStart:
    """Budgets of the phases of a start, seconds."""

    node: int  # from a pending pod to a node that takes it
    image: int  # pull and unpack
    stage: int  # weights on an empty claim
    retry: int  # waiting out rate limits while staging
    load: int  # from the engine's first instruction to a healthy answer

    @property
    def staging_deadline(self) -> int:
        """The staging script gives up after this."""
        return self.stage + self.retry

    @property
    def progress_deadline(self) -> int:
        """The Deployment is reported as failed after this."""
        return self.node + self.image + self.staging_deadline + self.load

    @property
    def await_timeout(self) -> int:
        """Pulumi stops waiting after this; longer than the deadline, so that the cause is reported."""
        return self.progress_deadline + _MARGIN_S

    @property
    def elsewhere(self) -> int:
        """On another node, with the weights on the claim already."""
        return self.node + self.image + self.load

    def startup_failures(self, period: int) -> int:
        """Failures that the startup probe allows at one probe each `period` seconds."""
        return math.ceil(self.load / period)


def pull_seconds(*images: Image) -> int:
    """Budget to pull images one after the other."""
    return math.ceil(sum(image.compressed_gib for image in images) * 2**30 / _PULL_BYTES_PER_S)


def cold_start(weights_bytes: int, images: Sequence[Image], *, node_s: int, start_s: int) -> ColdStart:
    """Budget of a pod that pulls `images` and stages so many bytes.

    `node_s` is from a pending pod to a node, `start_s` what the engine takes beside reading its weights, seconds.
    """
    return ColdStart(
        node=node_s,
        image=pull_seconds(*images),
        stage=math.ceil(weights_bytes / _STAGE_BYTES_PER_S),
        retry=_STAGE_RETRY_S,
        load=math.ceil(weights_bytes / _LOAD_BYTES_PER_S) + start_s,
    )
