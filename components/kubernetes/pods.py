"""What every pod of the platform has in common: labels, least privilege, volumes, resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta

from models.facts import Image
from models.needs import Needs

NAME_LABEL = "app.kubernetes.io/name"
MANAGED_BY = "ai-platform"
PART_OF_LABEL = "app.kubernetes.io/part-of"


def labels(name: str, component: str) -> dict[str, str]:
    """The recommended labels; selectors use the name alone, which never changes."""
    return {
        NAME_LABEL: name,
        "app.kubernetes.io/component": component,
        PART_OF_LABEL: MANAGED_BY,
    }


def metadata(
    name: str, namespace: str, component: str, *, annotations: Mapping[str, str] | None = None
) -> meta.ObjectMetaArgs:
    """Explicit name and namespace: the engine would otherwise make them up, each engine its own way."""
    return meta.ObjectMetaArgs(name=name, namespace=namespace, labels=labels(name, component), annotations=annotations)


def pod_security(image: Image, *, fs_group: int | None = None) -> core.PodSecurityContextArgs:
    """Pod half of Pod Security "restricted", as the image's own user."""
    return core.PodSecurityContextArgs(
        run_as_non_root=True,
        run_as_user=image.uid,
        run_as_group=image.gid,
        fs_group=image.gid if fs_group is None else fs_group,
        # A claim full of weights is not walked again at every start.
        fs_group_change_policy="OnRootMismatch",
        seccomp_profile=core.SeccompProfileArgs(type="RuntimeDefault"),
    )


def container_security() -> core.SecurityContextArgs:
    """Container half of Pod Security "restricted", and a read-only root beyond it."""
    return core.SecurityContextArgs(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        capabilities=core.CapabilitiesArgs(drop=["ALL"]),
    )


def gib(size: float) -> str:
    """A size in GiB as the API server writes it: another spelling of the same size would show as a change."""
    number, unit = round(size * 1024), 0
    units = ("Mi", "Gi", "Ti")
    while number % 1024 == 0 and unit < len(units) - 1:
        number, unit = number // 1024, unit + 1
    return f"{number}{units[unit]}"


def _cores(cpu: float) -> str:
    millicores = round(cpu * 1000)
    return f"{millicores}m" if millicores % 1000 else str(millicores // 1000)


def resources(needs: Needs, *, extended: Mapping[str, str] | None = None) -> core.ResourceRequirementsArgs:
    """Requests and limits: memory and disk are capped at what was planned, CPU may burst."""
    fixed = {
        "memory": gib(needs.gib),
        "ephemeral-storage": gib(needs.ephemeral_gib),
        **(extended or {}),
    }
    return core.ResourceRequirementsArgs(requests={"cpu": _cores(needs.cpu), **fixed}, limits=fixed)


def scratch(name: str, path: str, size: str) -> tuple[core.VolumeArgs, core.VolumeMountArgs]:
    """A writable directory on the node's disk, since the root filesystem is read-only."""
    return (
        core.VolumeArgs(name=name, empty_dir=core.EmptyDirVolumeSourceArgs(size_limit=size)),
        core.VolumeMountArgs(name=name, mount_path=path),
    )


def secret_env(name: str, secret: str, key: str) -> core.EnvVarArgs:
    """An environment variable from a Secret."""
    return core.EnvVarArgs(
        name=name,
        value_from=core.EnvVarSourceArgs(secret_key_ref=core.SecretKeySelectorArgs(name=secret, key=key)),
    )


def env(**values: str) -> list[core.EnvVarArgs]:
    """Plain environment variables."""
    return [core.EnvVarArgs(name=name, value=value) for name, value in values.items()]


def pod_that_ends(
    image: Image, container: core.ContainerArgs, volumes: Sequence[core.VolumeArgs], *, grace_s: int | None = None
) -> core.PodSpecArgs:
    """A Job's pod of one container: no token of the API, no variables of Services, and never again by itself."""
    return core.PodSpecArgs(
        automount_service_account_token=False,
        enable_service_links=False,
        restart_policy="Never",
        security_context=pod_security(image),
        termination_grace_period_seconds=grace_s,
        containers=[container],
        volumes=list(volumes),
    )


def user_env(home: str) -> list[core.EnvVarArgs]:
    """Home, a writable volume, and name of the user that a container runs as.

    A uid that the image's passwd does not list has neither, and what asks for them (vLLM, torch, FlashInfer) ends with
    a KeyError before it serves. Their caches are below the home or /tmp.
    """
    return env(HOME=home, USER=MANAGED_BY)


def http_probe(path: str, *, period: int, failures: int, timeout: int = 5) -> core.ProbeArgs:
    """A GET on the port named `http`."""
    return core.ProbeArgs(
        http_get=core.HTTPGetActionArgs(path=path, port="http"),
        period_seconds=period,
        failure_threshold=failures,
        timeout_seconds=timeout,
    )


def timeouts(seconds: int) -> pulumi.CustomTimeouts:
    """Pulumi's await; an option, so that it stays out of the manifests."""
    return pulumi.CustomTimeouts(create=f"{seconds}s", update=f"{seconds}s")


def skip_await(condition: bool) -> dict[str, str]:
    """Annotation for an object that will not become ready by itself."""
    return {"pulumi.com/skipAwait": "true"} if condition else {}


def taken_back() -> dict[str, str]:
    """Annotation for what outlives its stack and may change: a claim, a volume, a namespace, some Secrets.

    Each adoption writes as another field manager, while those before it stay owners of what they wrote: a change
    would be in conflict with them for ever. Whose the object is was judged before, and what may not change, such as
    the size of a claim downwards, the API server refuses whoever asks.
    """
    return {"pulumi.com/patchForce": "true"}


def one_manager() -> dict[str, str]:
    """Annotation for a Secret that outlives its stack and never changes: each adoption writes as the same manager.

    Without force, so that another value of a Secret that somebody else made stays in conflict.
    """
    return {"pulumi.com/patchFieldManager": MANAGED_BY}


def made_anew() -> dict[str, str]:
    """Annotation for a Job: one that has failed is replaced by the next update, which else waits for it in vain."""
    return {"pulumi.com/replaceUnready": "true"}
