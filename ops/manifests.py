"""The Kubernetes half of a plan as manifests for `kubectl apply --server-side`, Secrets by reference only."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import yaml

from components.kubernetes.secrets import READS
from ops.engine import UNKNOWN_TEXT, Registered

# What others refer to comes first; claims and volumes apart, since a pruning apply must never own them.
_ORDER = (
    "Namespace",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "ConfigMap",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "Service",
    "StatefulSet",
    "Job",
    "Deployment",
)
_PULUMI_ANNOTATION = "pulumi.com/"


def is_kubernetes(resource: Registered) -> bool:
    """Whether a resource is an object of the Kubernetes API."""
    return resource.type.startswith("kubernetes:")


Fingerprint = Callable[[Mapping[str, Any]], str | None]


def manifests(resources: Sequence[Registered], fingerprint: Fingerprint = lambda _: None) -> list[dict[str, Any]]:
    """Every Kubernetes object but Secrets, in the order to apply them.

    `fingerprint` stands in a workload for the values of secrets that its pods read. A plan has none, so none stands.
    """
    objects = [dict(r.inputs) for r in resources if is_kubernetes(r) and r.short_type != "Secret"]
    return sorted((_reading(_without_pulumi(manifest), fingerprint) for manifest in objects), key=_rank)


def secret_references(resources: Sequence[Registered]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Namespace, name and keys of each Secret that has to exist before the manifests are applied."""
    keys: dict[tuple[str, str], set[str]] = {}
    for resource in resources:
        if is_kubernetes(resource):
            namespace = resource.inputs["metadata"].get("namespace", "")
            if resource.short_type == "Secret":
                keys.setdefault((namespace, resource.inputs["metadata"]["name"]), set())
            for name, key in read_keys(resource.inputs):
                keys.setdefault((namespace, name), set()).add(key)
    return sorted((namespace, name, tuple(sorted(found))) for (namespace, name), found in keys.items())


def read_keys(value: Any) -> Iterator[tuple[str, str]]:
    """Name and key of every Secret value that a pod reads, by environment or as a file."""
    if isinstance(value, Mapping):
        mapping = cast("Mapping[str, Any]", value)
        if reference := mapping.get("secretKeyRef"):
            yield reference["name"], reference["key"]
        for item in mapping.get("items", ()) if "secretName" in mapping else ():
            yield mapping["secretName"], item["key"]
        for inner in mapping.values():
            yield from read_keys(inner)
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            yield from read_keys(inner)


def _rank(manifest: Mapping[str, Any]) -> tuple[int, str, str]:
    kind = manifest["kind"]
    rank = _ORDER.index(kind) if kind in _ORDER else _ORDER.index("Job")
    return rank, manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]


def _without_pulumi(manifest: dict[str, Any]) -> dict[str, Any]:
    """Without the annotations that only Pulumi's provider reads."""
    metadata = dict(manifest["metadata"])
    given: dict[str, str] = metadata.pop("annotations", None) or {}
    annotations = {key: value for key, value in given.items() if not key.startswith(_PULUMI_ANNOTATION)}
    if annotations:
        metadata["annotations"] = annotations
    # In the order in which people write and read them.
    first = {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": metadata}
    return {**first, **{key: value for key, value in manifest.items() if key not in first}}


def pod_template(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The pod template of a workload, of a CronJob's Job too."""
    spec: dict[str, Any] = manifest.get("spec") or {}
    return spec.get("template") or (pod_template(spec["jobTemplate"]) if "jobTemplate" in spec else None)


def _reading(manifest: dict[str, Any], fingerprint: Fingerprint) -> dict[str, Any]:
    """With the fingerprint of the secrets that it reads in place of the masked one."""
    template = pod_template(manifest)
    if template is None or READS not in template["metadata"].get("annotations", {}):
        return manifest
    manifest = copy.deepcopy(manifest)
    metadata: dict[str, Any] = (pod_template(manifest) or {})["metadata"]
    if mark := fingerprint(manifest):
        metadata["annotations"][READS] = mark
    elif len(metadata["annotations"]) == 1:
        del metadata["annotations"]
    else:
        del metadata["annotations"][READS]
    return manifest


def unknown_paths(value: Any, path: str = "") -> Iterator[str]:
    """Where a manifest depends on something that only `pulumi up` learns."""
    if isinstance(value, Mapping):
        for key, inner in cast("Mapping[str, Any]", value).items():
            yield from unknown_paths(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, inner in enumerate(cast("list[Any]", value)):
            yield from unknown_paths(inner, f"{path}[{index}]")
    elif isinstance(value, str) and UNKNOWN_TEXT in value:
        yield path


class _Dumper(yaml.SafeDumper):
    """Multi-line text as a block, so that a rendered program or configuration can be read."""


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar(  # pyright: ignore[reportUnknownMemberType]
        "tag:yaml.org,2002:str", text, style=style
    )


_Dumper.add_representer(str, _block)


def to_yaml(objects: Sequence[Mapping[str, Any]]) -> str:
    """One stream of documents."""
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, explicit_start=True, width=1000)


def secrets_note(resources: Sequence[Registered]) -> str:
    """Comment that names the Secrets to create first."""
    lines = ["# Secrets are not part of this: they have to exist before it is applied."]
    lines += [f"#   {namespace}/{name}: {', '.join(keys)}" for namespace, name, keys in secret_references(resources)]
    return "\n".join(lines) + "\n"


def numbered(resources: Sequence[Registered]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each manifest with the name of its file: in their order they are to be applied."""
    for manifest in manifests(resources):
        rank, namespace, name = _rank(manifest)
        parts = [f"{rank:02d}", manifest["kind"].lower(), *([namespace] if namespace else []), name]
        yield "-".join(parts) + ".yaml", manifest
