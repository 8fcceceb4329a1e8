"""Artifact Registry as a pull-through cache: image streaming works from there only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_gcp import artifactregistry as ar


@dataclass(frozen=True, kw_only=True)
class ImageMirrorArgs:
    """`repositories` has a repository's id for each public registry, by host name; `reader` is the member that pulls.

    `after` are the APIs that have to be enabled first.
    """

    project: str  # project of Google Cloud that has the repositories
    region: str  # of the repositories: the nodes'
    repositories: Mapping[str, str]
    reader: pulumi.Input[str]
    after: Sequence[pulumi.Resource] = ()


class ImageMirror(pulumi.ComponentResource):
    """One remote repository a registry, readable by the nodes and nobody else."""

    prefixes: Mapping[str, str]
    repositories: Sequence[pulumi.Resource]

    def __init__(self, name: str, args: ImageMirrorArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ai-platform:gke:ImageMirror", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        repositories: list[pulumi.Resource] = []
        for registry, repository_id in args.repositories.items():
            repository = ar.Repository(
                registry,
                location=args.region,
                repository_id=repository_id,
                format="DOCKER",
                mode="REMOTE_REPOSITORY",
                remote_repository_config=ar.RepositoryRemoteRepositoryConfigArgs(
                    common_repository=ar.RepositoryRemoteRepositoryConfigCommonRepositoryArgs(uri=_upstream(registry))
                ),
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
        where = f"{args.region}-docker.pkg.dev/{args.project}"
        self.prefixes = {registry: f"{where}/{repository_id}" for registry, repository_id in args.repositories.items()}
        self.repositories = repositories
        self.register_outputs({"prefixes": dict(self.prefixes)})


def _upstream(registry: str) -> str:
    """Where a registry answers. Docker Hub's own name is that of its web site."""
    return "https://registry-1.docker.io" if registry == "docker.io" else f"https://{registry}"
