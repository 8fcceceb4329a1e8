"""What Google Cloud answers while it is not ready, and after an interruption: waited for, or told with what mends it.

The provider tries none of this again. An API that was enabled a moment ago answers 403 for a while. A create that was
interrupted went on in the cloud, and the next one is a 409.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
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


def exists(urn: str, type_: str, name: str, found: str) -> str:
    """What a create that met an object of its name means, with the command that goes on with it."""
    kind = type_.rsplit(":", 1)[-1]
    return (
        f"there is a {kind} called '{name}' in the cloud, and the state does not have it. If an update of this stack "
        "was interrupted while it was made, it is this stack's; if not, it is somebody else's, and is left alone\n"
        f"  remedy: pulumi refresh --yes --import-pending-creates '{urn}' --import-pending-creates {found} && pulumi up"
    )


def off(api: str, project: str) -> str:
    """That an API stays off, with the command that turns it on."""
    apis = PREREQUISITES if api in PREREQUISITES else (api,)
    return (
        f"the API {api}.googleapis.com of project {project} is off, or has been on for too short a time\n"
        f"  remedy: gcloud services enable {' '.join(f'{a}.googleapis.com' for a in apis)} --project {project}"
        " && pulumi up   # some minutes later"
    )


def wait_for_google(project: str) -> None:
    """From now on each object of Google Cloud that is registered waits for its API, and explains what it meets.

    To be called once, in the stack's program, before there is an object.
    """

    async def answer(args: pulumi.ErrorHookArgs) -> bool:
        error, tries = args.errors[0], len(args.errors)
        api = not_yet(error)
        if api is not None:
            if tries <= len(WAITS):
                await asyncio.sleep(WAITS[tries - 1])
                return True
            pulumi.log.error(off(api, project))
        elif args.failed_operation == "create" and "Error 409" in error:
            inputs = args.new_inputs or {}
            found = id_of(args.type, inputs, project)
            if found:
                pulumi.log.error(exists(args.urn, args.type, inputs.get("name") or found.rsplit("/", 1)[-1], found))
        return False

    hooks = pulumi.ResourceHookBinding(on_error=[pulumi.ErrorHook("what Google answers", answer)])
    explained = pulumi.ResourceOptions(hooks=hooks)

    def explain(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        if not args.type_.startswith("gcp:"):
            return None
        return pulumi.ResourceTransformationResult(args.props, pulumi.ResourceOptions.merge(args.opts, explained))

    pulumi.runtime.register_stack_transformation(explain)
