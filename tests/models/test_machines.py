"""Machines: the arithmetic of what a shape leaves for pods, against figures that others published."""

from __future__ import annotations

import pytest

from models.machines import (
    G2_MACHINES,
    L4_ZONES,
    SYSTEM_MACHINES,
    driver_channel,
    ephemeral_allocatable_gib,
    region_of,
)
from models.needs import Needs

# vCPU, GiB, L4s, allocatable CPU and GiB as GKE's documentation gives them.
PUBLISHED = {
    "g2-standard-4": (4, 16, 1, 3.92, 13.3),
    "g2-standard-8": (8, 32, 1, 7.91, 28.3),
    "g2-standard-12": (12, 48, 1, 11.90, 43.4),
    "g2-standard-16": (16, 64, 1, 15.89, 58.4),
    "g2-standard-24": (24, 96, 2, 23.87, 88.5),
    "g2-standard-32": (32, 128, 1, 31.85, 118.6),
    "g2-standard-48": (48, 192, 4, 47.81, 181.3),
    "g2-standard-96": (96, 384, 8, 95.69, 369.5),
}


@pytest.mark.parametrize("shape", list(PUBLISHED))
def test_allocatable_figures_are_those_that_gke_publishes(shape: str) -> None:
    vcpus, memory, gpus, cpu, gib = PUBLISHED[shape]
    machine = G2_MACHINES[shape]
    assert (machine.vcpus, machine.memory_gib, machine.gpus) == (vcpus, memory, gpus)
    assert machine.allocatable_cpu == pytest.approx(cpu, abs=0.011)
    assert machine.allocatable_gib == pytest.approx(gib, abs=0.051)


def test_every_g2_shape_is_known_and_none_else() -> None:
    assert set(G2_MACHINES) == set(PUBLISHED)


@pytest.mark.parametrize("machine", [*G2_MACHINES.values(), *SYSTEM_MACHINES.values()], ids=lambda m: m.name)
def test_pods_get_less_than_the_node_has_allocatable(machine: object) -> None:
    from models.machines import Machine

    assert isinstance(machine, Machine)
    assert 0 < machine.pod_cpu < machine.allocatable_cpu < machine.vcpus
    assert 0 < machine.pod_gib < machine.allocatable_gib < machine.memory_gib


def test_a_small_system_node_is_as_small_as_documented() -> None:
    machine = SYSTEM_MACHINES["e2-standard-2"]
    assert machine.allocatable_cpu == pytest.approx(1.93, abs=0.011)
    assert machine.allocatable_gib == pytest.approx(6, abs=0.2)


def test_shapes_with_one_gpu_come_before_those_with_more_and_grow() -> None:
    """The first that fits is taken, and must not hold more of the quota than needed."""
    shapes = list(G2_MACHINES.values())
    assert [(m.gpus, m.vcpus) for m in shapes] == sorted((m.gpus, m.vcpus) for m in shapes)
    assert [m.vcpus for m in SYSTEM_MACHINES.values()] == sorted(m.vcpus for m in SYSTEM_MACHINES.values())


@pytest.mark.parametrize(
    ("needs", "lacking"),
    [
        (Needs(cpu=2, gib=10, ephemeral_gib=1, gpus=1), None),
        (Needs(cpu=2, gib=10, ephemeral_gib=1, gpus=2), "2 GPUs, and g2-standard-4 has 1"),
        (Needs(cpu=2, gib=13, ephemeral_gib=1, gpus=1), "13.0 GiB of memory, and g2-standard-4 leaves 12.2 GiB"),
        (Needs(cpu=4, gib=10, ephemeral_gib=1, gpus=1), "4 CPU, and g2-standard-4 leaves 3.52"),
    ],
)
def test_what_a_machine_lacks_is_said_in_words(needs: Needs, lacking: str | None) -> None:
    assert needs.lacking(G2_MACHINES["g2-standard-4"]) == lacking


@pytest.mark.parametrize(
    ("image", "needs", "channel"),
    [("CUDA 13", "580.65", "LATEST"), ("CUDA 12.2", "535", "DEFAULT"), ("CUDA 12.4", "550.54", "LATEST")],
)
def test_an_image_that_the_default_driver_is_too_old_for_gets_the_latest(image: str, needs: str, channel: str) -> None:
    assert driver_channel(needs) == channel, image


def test_zones_are_zones_and_lead_to_their_region() -> None:
    assert len(L4_ZONES) == len(set(L4_ZONES)) == 44
    assert {"us-central1-a", "europe-west4-c", "asia-southeast1-b"} <= set(L4_ZONES)
    assert "us-central1-f" not in L4_ZONES
    assert region_of("northamerica-northeast1-b") == "northamerica-northeast1"


def test_a_boot_disk_keeps_part_of_itself_and_grows_with_its_size() -> None:
    sizes = [50, 100, 200, 1000]
    left = [ephemeral_allocatable_gib(size) for size in sizes]
    assert left == sorted(left)
    assert all(0 < part < size for part, size in zip(left, sizes, strict=True))
    # 100 GiB less eviction (10 % of 94.25 %) and 41 GiB for the system.
    assert ephemeral_allocatable_gib(100) == pytest.approx(100 * 0.9425 * 0.9 - 41, abs=0.1)
