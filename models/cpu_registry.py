"""What the reference's CPU registry states of its models: speeds, what a token costs on one machine, machine types.

Stated is not what the plan reckons with. The models themselves are entries of models/catalog/gguf.py; docs/gguf.md
shows both beside each other.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.machines import Machine
from models.spec import ModelSpec


@dataclass(frozen=True)
class Stated:
    """Tokens a second that the document gives a model at Q4_K_M."""

    alias: str
    slowest: float
    fastest: float
    priced: float  # the one that its cost is computed from
    vcpus: int  # that the speed is stated for
    usd_per_thousand: float  # the cost that it prints, of a thousand tokens


STATED = (
    Stated("tinyllama", 15, 20, priced=15, vcpus=2, usd_per_thousand=0.0017),
    Stated("phi-3-mini", 10, 15, priced=12, vcpus=2, usd_per_thousand=0.0021),
    Stated("llama-2-7b", 5, 8, priced=6, vcpus=4, usd_per_thousand=0.0043),
)
# The machine that its costs are for.
PRICED_ON = Machine("t3.large", 2, 8)
PRICED_ON_USD_PER_HOUR = 0.0928


@dataclass(frozen=True)
class Measured:
    """Tokens written a second in the one public run that has all three models, at Q4_K_M on 4 threads."""

    alias: str
    written_per_s: float


MEASURED_ON = "Azure Standard_D4s_v3, Xeon 8171M, nandan2003/edge-cpu-inference README.md @ 2eaa504a"
MEASURED_THREADS = 4
MEASURED = (Measured("tinyllama", 24.88), Measured("phi-3-mini", 6.37), Measured("llama-2-7b", 4.06))


@dataclass(frozen=True)
class Recommended:
    """A machine type that the document recommends for models. Shapes are those of the clouds' pages."""

    cloud: str
    machine: Machine
    aliases: tuple[str, ...]


_SMALL, _LARGE = ("tinyllama", "phi-3-mini"), ("llama-2-7b",)
# The document names no model for the last of each cloud, "CPU-optimized": it stands beside the one for Llama 2 7B.
RECOMMENDED = (
    Recommended("AWS", PRICED_ON, _SMALL),
    Recommended("AWS", Machine("t3.xlarge", 4, 16), _LARGE),
    Recommended("AWS", Machine("c5.xlarge", 4, 8), _LARGE),
    Recommended("GCP", Machine("n1-standard-2", 2, 7.5), _SMALL),
    Recommended("GCP", Machine("n1-standard-4", 4, 15), _LARGE),
    Recommended("GCP", Machine("c2-standard-4", 4, 16), _LARGE),
    Recommended("Azure", Machine("Standard_D2s_v3", 2, 8), _SMALL),
    Recommended("Azure", Machine("Standard_D4s_v3", 4, 16), _LARGE),
    Recommended("Azure", Machine("Standard_F4s_v2", 4, 8), _LARGE),
)
_STEP = 256  # tokens


def longest_context(spec: ModelSpec, machine: Machine) -> int:
    """The longest context, up to the entry's, that a machine holds; 0 if it holds none.

    By what GKE keeps of a node, also for the other clouds: nobody keeps more of a machine of this size.
    """
    longest = 0
    for context in range(_STEP, (spec.context or 0) + 1, _STEP):
        needs = spec.engine.needs(spec.model_copy(update={"context": context}))
        if needs is None or needs.lacking(machine):
            break
        longest = context
    return longest
