"""What a machine offers: shapes, what GKE leaves of them for pods, their GPUs, and where they exist.

Allocatable figures are computed by GKE's published reservation tiers, so that a shape is described by its
vCPUs and memory alone.
Source: GKE documentation, "Plan node sizes" (read 2026-08); zones: "GPU regions and zones" (read 2026-08).
"""

from __future__ import annotations

from dataclasses import dataclass

GPU_TAINT = "nvidia.com/gpu"  # key of the taint on GPU nodes and name of the extended resource
ACCELERATOR_LABEL = "cloud.google.com/gke-accelerator"
INSTANCE_TYPE_LABEL = "node.kubernetes.io/instance-type"
ZONE_LABEL = "topology.kubernetes.io/zone"


@dataclass(frozen=True)
class Gpu:
    """An accelerator model."""

    name: str  # value of ACCELERATOR_LABEL, e.g. "nvidia-l4"
    usable_gib: float  # what vLLM sees as total memory, below the nominal figure
    capability: tuple[int, int]  # of CUDA: which dtypes and kernels it runs (models/memory/gpus.py)


# vLLM prints 22.03 GiB of an L4's nominal 24 GB (nvidia-smi: 23034 MiB with ECC on).
L4 = Gpu(name="nvidia-l4", usable_gib=22.03, capability=(8, 9))
GPUS = {gpu.name: gpu for gpu in (L4,)}


def _tiered(amount: float, tiers: tuple[tuple[float, float], ...]) -> float:
    """Sum of `rate` over consecutive slices of `amount`; the last slice is unbounded."""
    reserved = 0.0
    for size, rate in tiers:
        part = min(amount, size)
        reserved += part * rate
        amount -= part
    return reserved


_UNBOUNDED = float("inf")
_MEMORY_TIERS = ((4, 0.25), (4, 0.20), (8, 0.10), (112, 0.06), (_UNBOUNDED, 0.02))  # GiB, fraction reserved
_CPU_TIERS = ((1, 0.06), (1, 0.01), (2, 0.005), (_UNBOUNDED, 0.0025))  # cores, fraction reserved
_EVICTION_GIB = 100 / 1024
# A 4-vCPU node reports this much less memory than its shape names: firmware and kernel.
_KERNEL_GIB = 0.43


@dataclass(frozen=True)
class Machine:
    """A Compute Engine machine type."""

    name: str  # "g2-standard-8"
    vcpus: int
    memory_gib: float
    gpus: int = 0
    gpu: Gpu | None = None

    @property
    def allocatable_cpu(self) -> float:
        """Cores that pods may request, before GKE's own DaemonSets."""
        return round(self.vcpus - _tiered(self.vcpus, _CPU_TIERS), 2)

    @property
    def allocatable_gib(self) -> float:
        """Memory that pods may request, before GKE's own DaemonSets."""
        return round(self.memory_gib - _tiered(self.memory_gib, _MEMORY_TIERS) - _EVICTION_GIB, 1)

    @property
    def pod_cpu(self) -> float:
        """Cores left for the product's pods: allocatable less what runs on every GKE node."""
        return round(self.allocatable_cpu - NODE_AGENTS.cpu, 2)

    @property
    def pod_gib(self) -> float:
        """Memory left for the product's pods: allocatable less the kernel's share and every node's agents."""
        return round(self.allocatable_gib - _KERNEL_GIB - NODE_AGENTS.gib, 2)


@dataclass(frozen=True)
class Reserve:
    """CPU and memory that somebody else's pods request on a node."""

    cpu: float
    gib: float


# Requests of what GKE runs on every node (Dataplane V2 agent, logging, metrics, node-local DNS, CSI driver,
# GPU device plugin). Recalled, rounded up; compare with `kubectl describe node` and correct here.
NODE_AGENTS = Reserve(cpu=0.40, gib=0.70)
# Requests of what GKE runs once a cluster (kube-dns, metrics server, konnectivity, autoscalers, managed
# Prometheus operator), all of it on the system pool. Recalled, rounded up.
CLUSTER_AGENTS = Reserve(cpu=0.45, gib=0.75)


def _g2(vcpus: int, gpus: int = 1) -> Machine:
    return Machine(f"g2-standard-{vcpus}", vcpus, vcpus * 4, gpus, L4)


def _e2(vcpus: int) -> Machine:
    return Machine(f"e2-standard-{vcpus}", vcpus, vcpus * 4)


# Smallest first: "the smallest shape that holds it" takes the first that fits.
G2_MACHINES = {
    m.name: m for m in (_g2(4), _g2(8), _g2(12), _g2(16), _g2(32), _g2(24, gpus=2), _g2(48, gpus=4), _g2(96, gpus=8))
}
SYSTEM_MACHINES = {m.name: m for m in (_e2(2), _e2(4), _e2(8), _e2(16))}
SYSTEM_BOOT_DISK_GIB = 50


def ephemeral_allocatable_gib(boot_disk_gib: int) -> float:
    """Ephemeral storage that pods on a node may request, in GiB, from the size of its boot disk.

    Of a file system of 94.25 % of the disk, GKE keeps 10 % for eviction; of the disk, it keeps the least of 50 %,
    6 GiB + 35 % and 100 GiB for the system. The sum matches the documentation's example node to 151 bytes.
    """
    return round(boot_disk_gib * 0.9425 * 0.9 - min(0.5 * boot_disk_gib, 6 + 0.35 * boot_disk_gib, 100), 1)


_L4_ZONES = """
us-central1-a/b/c us-east1-b/c/d us-east4-a/c us-west1-a/b/c us-west4-a/c
northamerica-northeast1-b/c northamerica-northeast2-a/b
europe-west1-b/c europe-west2-a/b europe-west3-a/b europe-west4-a/b/c europe-west6-b/c me-central2-a/c
asia-east1-a/b/c asia-northeast1-a/b/c asia-northeast3-a/b asia-south1-a/b/c asia-southeast1-a/b/c
"""
L4_ZONES = tuple(
    f"{region}-{letter}"
    for region, letters in (entry.rsplit("-", 1) for entry in _L4_ZONES.split())
    for letter in letters.split("/")
)


def region_of(zone: str) -> str:
    """`us-central1` of `us-central1-a`."""
    return zone.rsplit("-", 1)[0]


# GKE's DEFAULT driver channel has installed this branch; LATEST is at 580 or later since February 2026.
_DEFAULT_DRIVER = 535


def driver_channel(min_driver: str) -> str:
    """GKE's `gpu_driver_version` that satisfies the oldest driver an image runs on ("580.65")."""
    return "DEFAULT" if float(min_driver) <= _DEFAULT_DRIVER else "LATEST"
