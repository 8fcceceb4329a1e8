"""What the tests run and look at: the real program, or one component of it, and the record of what it registers.

Everything runs through `ops.engine` on the SDK's own classes, in an event loop of its own.

How to write a test that survives a user's clone, where the catalog has other models and the stack files other projects,
zones, teams and keys:

- A test of behaviour runs on the catalog of tests/catalog.py, which tests/conftest.py installs for the whole process:
  `admit(raw)`, `recorded()` and every command of `ops` called in the test know those entries and no others. Import
  CATALOG and GROUPS from there. A figure in a test may be worked out by hand from its rows: they do not change.
- Its stacks are those of tests/project (PROJECT_DIR); `config()` and `recorded()` read them. What needs another key or
  another model says so by an assignment, or by a copy of an entry (`model_copy`) given to `recorded_with_catalog`.
- A process of its own, and the real engine, run in a clone that has both: `clone(folder)` of tests/checkout.py.
- What is shipped is read through tests/shipped.py, by the few modules that tests/guard.py lists, entry by entry and
  stack by stack: ask what any good entry has, say the alias and what to add in the failure, and compare with no list.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from components.kubernetes.place import Place
from models.catalog import Group
from models.cold_start import ColdStart
from models.engines.external import ExternalProvider
from models.engines.tei import TeiEngine
from models.engines.vllm import VllmEngine
from models.machines import G2_MACHINES, Machine
from models.needs import Needs
from models.spec import ModelSpec
from ops.config_files import load
from ops.engine import Recording, Registered, run, run_main
from stacks.admission import admit
from stacks.program import deploy
from stacks.settings import RawConfig
from tests.catalog import CATALOG, GROUPS
from tests.checkout import PROJECT_DIR


def needs(spec: ModelSpec) -> Needs:
    """Requests of a model that runs here."""
    found = spec.engine.needs(spec)
    assert found is not None, f"{spec.alias} runs elsewhere"
    return found


def cold_start(spec: ModelSpec) -> ColdStart:
    """Budget of a model that runs here."""
    found = spec.engine.cold_start(spec)
    assert found is not None, f"{spec.alias} runs elsewhere"
    return found


NAME_LABEL = "app.kubernetes.io/name"

VLLM_ALIASES = [alias for alias, spec in CATALOG.items() if isinstance(spec.engine, VllmEngine)]
TEI_ALIASES = [alias for alias, spec in CATALOG.items() if isinstance(spec.engine, TeiEngine)]
SERVED_ALIASES = [alias for alias, spec in CATALOG.items() if not isinstance(spec.engine, ExternalProvider)]


@dataclass(frozen=True)
class Pod:
    """A pod template of the record."""

    owner: Registered
    namespace: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: Mapping[str, Any]

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Init containers first, as they run."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    def container(self, name: str) -> dict[str, Any]:
        return next(c for c in self.containers if c["name"] == name)


class Records:
    """A run's resources, found by kind and name."""

    def __init__(self, recording: Recording) -> None:
        self.resources = recording.resources
        self.outputs = recording.outputs
        self._by_urn = {r.urn: r for r in recording.resources}

    def all(self, kind: str) -> list[Registered]:
        """Every resource of a short type, `Deployment`."""
        return [r for r in self.resources if r.short_type == kind]

    def one(self, kind: str, name: str, namespace: str | None = None) -> Registered:
        """The resource of a kind with a name in the cluster or the cloud, or in the program where it has none."""
        found = [
            r
            for r in self.all(kind)
            if object_name(r) == name and namespace in (None, r.inputs.get("metadata", {}).get("namespace"))
        ]
        assert len(found) == 1, f"{len(found)} of {kind} {name}; there are {[object_name(r) for r in self.all(kind)]}"
        return found[0]

    def manifest(self, kind: str, name: str, namespace: str | None = None) -> Mapping[str, Any]:
        """Its inputs."""
        return self.one(kind, name, namespace).inputs

    def dependencies(self, resource: Registered) -> list[Registered]:
        """What it waits for directly."""
        return [self._by_urn[urn] for urn in resource.dependencies]

    def waits_for(self, resource: Registered, other: Registered) -> bool:
        """Whether `other` comes first: by a dependency, by its provider, or over others."""
        seen: set[str] = set()
        ahead = [*resource.dependencies, resource.provider.rpartition("::")[0]]
        while ahead:
            urn = ahead.pop()
            if urn == other.urn:
                return True
            if urn and urn not in seen:
                seen.add(urn)
                next_one = self._by_urn[urn]
                ahead += [*next_one.dependencies, next_one.provider.rpartition("::")[0]]
        return False

    def provider_of(self, resource: Registered) -> str:
        """Name of the provider instance that was given explicitly, empty for a default one."""
        urn = resource.provider.rpartition("::")[0]
        return self._by_urn[urn].name if urn else ""

    def parent_of(self, resource: Registered) -> Registered:
        return self._by_urn[resource.parent]

    @property
    def kubernetes(self) -> list[Registered]:
        """Objects of the Kubernetes API."""
        return [r for r in self.resources if r.type.startswith("kubernetes:")]

    @property
    def pods(self) -> list[Pod]:
        """Every pod template."""
        return list(self._pods())

    def pod(self, name: str) -> Pod:
        """The pod template with that name label."""
        return next(p for p in self.pods if p.labels[NAME_LABEL] == name)

    def _pods(self) -> Iterator[Pod]:
        for resource in self.kubernetes:
            spec = resource.inputs.get("spec", {})
            if template := spec.get("jobTemplate", {}).get("spec", spec).get("template"):
                metadata = template["metadata"]
                namespace = resource.inputs["metadata"]["namespace"]
                yield Pod(resource, namespace, metadata["labels"], metadata.get("annotations", {}), template["spec"])


def object_name(resource: Registered) -> str:
    """Its name outside of the program."""
    metadata = resource.inputs.get("metadata")
    return metadata["name"] if metadata else resource.inputs.get("name", resource.name)


# --- running ---------------------------------------------------------------------------------------------------


def config(*assignments: str, stack: str = "ai-dev") -> RawConfig:
    """The config of a stack of tests/project with `--set` assignments on top, at whatever cost."""
    return load(PROJECT_DIR, stack, ("maxHourlyUsd=100000", "maxMonthlyUsd=100000000", *assignments))


@functools.cache
def recorded(*assignments: str, stack: str = "ai-dev") -> Records:
    """What `__main__.py` registers with that config. One run a config."""
    return Records(run_main(config(*assignments, stack=stack), PROJECT_DIR))


def recorded_with_catalog(
    raw: RawConfig, catalog: Mapping[str, ModelSpec], groups: Mapping[str, Group] = GROUPS
) -> Records:
    """What the program registers with another catalog."""
    admission = admit(raw, catalog, groups, rehearsal=True)
    assert not admission.problems, admission.problems
    return Records(run(raw, lambda: deploy(admission.plan)))


def recorded_alone(program: Callable[[], object]) -> Records:
    """What a few lines of Pulumi register, in a stack without config."""

    def whole() -> None:
        program()

    return Records(run(RawConfig("ai-platform", "test", {}), whole))


def place(namespace: str) -> Place:
    """A place for a component that runs alone."""
    return Place(namespace=namespace, data=k8s.Provider(f"{namespace}-data", kubeconfig="none"))


def cluster_provider() -> pulumi.ResourceOptions:
    """Options of a Kubernetes component that runs alone."""
    return pulumi.ResourceOptions(provider=k8s.Provider("workloads", kubeconfig="none"))


# --- reading ---------------------------------------------------------------------------------------------------

_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "m": 1e-3, "": 1}


def quantity(text: str | int) -> float:
    """A Kubernetes quantity as a number: `1536Mi` in bytes, `250m` in cores."""
    digits = str(text).rstrip("KMGim")
    return float(digits) * _UNITS[str(text)[len(digits) :]]


def env_of(container: Mapping[str, Any]) -> dict[str, Any]:
    """Environment by name: the value, or where it comes from."""
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in container.get("env", [])}


def machine_of(records: Records) -> Machine:
    """The shape of the GPU pool."""
    pool = next(p for p in records.all("NodePool") if "autoscaling" in p.inputs)
    return G2_MACHINES[pool.inputs["nodeConfig"]["machineType"]]


def strings(value: Any) -> Iterator[str]:
    """Every text in a nested value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield from strings(key)
            yield from strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:  # pyright: ignore[reportUnknownVariableType]
            yield from strings(inner)
