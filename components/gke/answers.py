"""What Google Cloud answers while it is not ready, and after an interruption: waited for, or told with what mends it.

The provider tries none of this again. An API that was enabled a moment ago answers 403 for a while. A create that was
interrupted went on in the cloud, and the next one is a 409.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi

# Seconds before each further try: five minutes in all. Google says "wait a few minutes".
WAITS = (2, 4, 8, 15, *[15] * 18)
PREREQUISITES = ("cloudresourcemanager", "serviceusage")  # what an API is enabled by; nothing here can enable them
_PROJECTS = "projects/{project}"

# The id of what a create was interrupted at, as the provider imports it. Source: the importers of the provider.
_IDS: Mapping[str, str] = {
    "gcp:artifactregistry/repository:Repository": f"{_PROJECTS}/locations/{{location}}/repositories/{{repositoryId}}",
    "gcp:compute/disk:Disk": f"{_PROJECTS}/zones/{{zone}}/disks/{{name}}",
    "gcp:compute/globalAddress:GlobalAddress": f"{_PROJECTS}/global/addresses/{{name}}",
    "gcp:compute/network:Network": f"{_PROJECTS}/global/networks/{{name}}",
    "gcp:compute/router:Router": f"{_PROJECTS}/regions/{{region}}/routers/{{name}}",
    "gcp:compute/routerNat:RouterNat": "{project}/{region}/{router}/{name}",
    "gcp:compute/subnetwork:Subnetwork": f"{_PROJECTS}/regions/{{region}}/subnetworks/{{name}}",
    "gcp:container/cluster:Cluster": f"{_PROJECTS}/locations/{{location}}/clusters/{{name}}",
    "gcp:container/nodePool:NodePool": f"{_PROJECTS}/locations/{{location}}/clusters/{{cluster}}/nodePools/{{name}}",
    "gcp:serviceaccount/account:Account": (
        f"{_PROJECTS}/serviceAccounts/{{accountId}}@{{project}}.iam.gserviceaccount.com"
    ),
    "gcp:sql/database:Database": f"{_PROJECTS}/instances/{{instance}}/databases/{{name}}",
    "gcp:sql/databaseInstance:DatabaseInstance": f"{_PROJECTS}/instances/{{name}}",
    "gcp:sql/user:User": "{project}/{instance}/{name}",
}


def not_yet(error: str) -> str | None:
    """The API that an error says is off, "compute"; None for any other error."""
    if "has not been used in project" not in error and "SERVICE_DISABLED" not in error:
        return None
    found = re.search(r"([a-z]+)\.googleapis\.com", error)
    return found[1] if found else ""


def id_of(type_: str, inputs: Mapping[str, Any], project: str) -> str | None:
    """What the provider calls an object that exists; None for a type that is not told apart by its inputs."""
    form = _IDS.get(type_)
    return form.format_map({**inputs, "project": project}) if form else None


def exists(urn: str, parent: str | None, name: str, found: str) -> str:
    """What a create that met an object of its name means, with the command that goes on with it.

    `urn` and `parent` are those of the resource, `found` is the object's id. (`--import-pending-creates` of a refresh
    only forgets the create, in the CLI of 2026.)
    """
    head, _, types = urn.partition("::")
    project, type_chain, resource = types.split("::")
    type_ = type_chain.rpartition("$")[2]
    kind = type_.rsplit(":", 1)[-1]
    provider = f"{head}::{project}::pulumi:providers:gcp::gcp"
    of_parent = f" --parent 'parent={parent}'" if parent else ""
    # A smaller one is a replacement, and what was imported is in no other record of this stack.
    data = "; `gateway.databaseGib` may not be less than its size" if kind == "Disk" else ""
    return (
        f"there is a {kind} called '{name}' in the cloud, and the state does not have it. If an update of this stack "
        f"was interrupted while it was made, it is this stack's; if not, it is somebody else's, and is left alone"
        f"{data}\n"
        f"  remedy: pulumi refresh --yes --clear-pending-creates && pulumi import --yes --generate-code=false {type_} "
        f"{resource} {found}{of_parent} --provider 'gcp={provider}' && pulumi up"
    )


def off(api: str, project: str) -> str:
    """That an API stays off, with the command that turns it on."""
    apis = PREREQUISITES if api in PREREQUISITES else (api,)
    return (
        f"the API {api}.googleapis.com of project {project} is off, or has been on for too short a time\n"
        f"  remedy: gcloud services enable {' '.join(f'{a}.googleapis.com' for a in apis)} --project {project}"
        " && pulumi up   # some minutes later"
    )


@dataclass(frozen=True)
class Google:
    """The hook of the engine after each failed step of an object in a project."""

    project: str
    parents: dict[tuple[str, str], pulumi.Resource] = field(default_factory=dict[tuple[str, str], pulumi.Resource])

    async def answer(self, args: pulumi.ErrorHookArgs) -> bool:
        """Whether to try again, after waiting; what is final is told."""
        error, tries = args.errors[0], len(args.errors)
        api = not_yet(error)
        if api is not None:
            if tries <= len(WAITS):
                await asyncio.sleep(WAITS[tries - 1])
                return True
            pulumi.log.error(off(api, self.project))
        elif args.failed_operation == "create" and "Error 409" in error:
            inputs = args.new_inputs or {}
            if found := id_of(args.type, inputs, self.project):
                parent = self.parents.get((args.type, args.name))
                above = await parent.urn.future() if parent else None
                pulumi.log.error(exists(args.urn, above, inputs.get("name") or found.rsplit("/", 1)[-1], found))
        return False


def wait_for_google(project: str) -> None:
    """From now on each object of Google Cloud that is registered waits for its API, and explains what it meets.

    To be called once, in the stack's program, before there is an object.
    """
    google = Google(project)
    hooks = pulumi.ResourceHookBinding(on_error=[pulumi.ErrorHook("what Google answers", google.answer)])
    explained = pulumi.ResourceOptions(hooks=hooks)

    def explain(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        if not args.type_.startswith("gcp:"):
            return None
        if args.opts.parent is not None:
            google.parents[args.type_, args.name] = args.opts.parent
        return pulumi.ResourceTransformationResult(args.props, pulumi.ResourceOptions.merge(args.opts, explained))

    pulumi.runtime.register_stack_transformation(explain)
