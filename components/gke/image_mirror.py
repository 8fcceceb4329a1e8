"""Artifact Registry as a pull-through cache: image streaming works from there only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_gcp import artifactregistry as ar


@dataclass(frozen=True, kw_only=True)
class ImageMirrorArgs:
    """`registries` are host names of public registries; `reader` is the member that pulls.

    `after` are the APIs that have to be enabled first.
    """

    project: str  # project of Google Cloud that has the repositories
    region: str  # of the repositories: the nodes'
    registries: Sequence[str]
    reader: pulumi.Input[str]
    after: Sequence[pulumi.Resource] = ()


def mirror_prefixes(project: str, region: str, registries: Sequence[str]) -> Mapping[str, str]:
    """For each registry, the prefix that its images are pulled through."""
    return {r: f"{region}-docker.pkg.dev/{project}/{_repository_id(r)}" for r in registries}


def _repository_id(registry: str) -> str:
    return registry.replace(".", "-")


class ImageMirror(pulumi.ComponentResource):
    """One remote repository a registry, readable by the nodes and nobody else."""

    prefixes: Mapping[str, str]
    repositories: Sequence[pulumi.Resource]

    def __init__(self, name: str, args: ImageMirrorArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ai-platform:gke:ImageMirror", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        repositories: list[pulumi.Resource] = []
        for registry in args.registries:
            repository = ar.Repository(
                registry,
                location=args.region,
                repository_id=_repository_id(registry),
                format="DOCKER",
                mode="REMOTE_REPOSITORY",
                remote_repository_config=ar.RepositoryRemoteRepositoryConfigArgs(docker_repository=_upstream(registry)),
                opts=pulumi.ResourceOptions(parent=self, depends_on=list(args.after)),
            )
            ar.RepositoryIamMember(
                f"{registry}-reader",
                location=args.region,
                repository=repository.name,
                role="roles/artifactregistry.reader",
                member=args.reader,
                opts=child,
            )
            repositories.append(repository)
        self.prefixes = mirror_prefixes(args.project, args.region, args.registries)
        self.repositories = repositories
        self.register_outputs({"prefixes": dict(self.prefixes)})


def _upstream(registry: str) -> ar.RepositoryRemoteRepositoryConfigDockerRepositoryArgs:
    if registry == "docker.io":
        return ar.RepositoryRemoteRepositoryConfigDockerRepositoryArgs(public_repository="DOCKER_HUB")
    return ar.RepositoryRemoteRepositoryConfigDockerRepositoryArgs(
        custom_repository=ar.RepositoryRemoteRepositoryConfigDockerRepositoryCustomRepositoryArgs(
            uri=f"https://{registry}"
        )
    )
