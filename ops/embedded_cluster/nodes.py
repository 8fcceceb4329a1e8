"""The simulated nodes: what the scheduler sees of a GKE machine, and GKE's default disk class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.machines import (
    ACCELERATOR_LABEL,
    G2_MACHINES,
    GPU_TAINT,
    INSTANCE_TYPE_LABEL,
    SYSTEM_MACHINES,
    ZONE_LABEL,
    Machine,
    ephemeral_allocatable_gib,
    region_of,
)

Manifest = dict[str, Any]  # a Kubernetes object as JSON

# GKE's default StorageClass, as a new cluster has it (GKE documentation, "Persistent volumes and dynamic
# provisioning"); the stages play its driver.
STORAGE_CLASS: Manifest = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {
        "name": "standard-rwo",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": "pd.csi.storage.gke.io",
    "parameters": {"type": "pd-balanced"},
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "WaitForFirstConsumer",
    "allowVolumeExpansion": True,
}


@dataclass(frozen=True)
class NodeShape:
    """One simulated node: a name, its machine type, and what pods may request of it."""

    name: str  # also its node pool
    instance_type: str  # "g2-standard-8"
    zone: str  # "us-central1-a"
    cpu: float  # cores
    memory_gib: float
    ephemeral_gib: float  # of the boot disk
    gpus: int = 0
    accelerator: str = ""  # "nvidia-l4"; a node with GPUs has GKE's taint
    pods: int = 110  # GKE Standard's default

    @classmethod
    def of(cls, name: str, machine: Machine, *, zone: str, boot_disk_gib: int) -> NodeShape:
        """A node of a machine type, with GKE's allocatable figures."""
        return cls(
            name=name,
            instance_type=machine.name,
            zone=zone,
            cpu=machine.allocatable_cpu,
            memory_gib=machine.allocatable_gib,
            ephemeral_gib=ephemeral_allocatable_gib(boot_disk_gib),
            gpus=machine.gpus,
            accelerator=machine.gpu.name if machine.gpu else "",
        )

    @property
    def manifest(self) -> Manifest:
        """The Node, without its status."""
        labels = {
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/os": "linux",
            "kubernetes.io/hostname": self.name,
            "cloud.google.com/gke-nodepool": self.name,
            "topology.kubernetes.io/region": region_of(self.zone),
            ZONE_LABEL: self.zone,
            "topology.gke.io/zone": self.zone,  # what a persistent disk's node affinity asks for
            INSTANCE_TYPE_LABEL: self.instance_type,
        }
        spec: Manifest = {}
        if self.gpus:
            labels[ACCELERATOR_LABEL] = self.accelerator
            spec["taints"] = [{"key": GPU_TAINT, "value": "present", "effect": "NoSchedule"}]
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": labels},
            "spec": spec,
        }

    @property
    def status_manifest(self) -> Manifest:
        """The Node's status: room for pods. A simulated machine has no more than it offers."""
        room = {
            "cpu": f"{self.cpu * 1000:.0f}m",
            "memory": f"{self.memory_gib * 1024:.0f}Mi",
            "ephemeral-storage": f"{self.ephemeral_gib * 1024:.0f}Mi",
            "pods": str(self.pods),
        }
        if self.gpus:
            room[GPU_TAINT] = str(self.gpus)
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name},
            "status": {"capacity": room, "allocatable": room},
        }


# To replace: the product passes the nodes of the stack's own settings; these serve where nobody does.
DEFAULT_NODES = (
    NodeShape.of("g2", G2_MACHINES["g2-standard-8"], zone="us-central1-a", boot_disk_gib=100),
    NodeShape.of("system", SYSTEM_MACHINES["e2-standard-4"], zone="us-central1-a", boot_disk_gib=100),
)
