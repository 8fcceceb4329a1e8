"""Stands in for the GCP provider: answers as Google Cloud and the real one do, where the program counts on it.

It makes nothing. Its clusters are the embedded one, whose kubeconfig is named by GCP_STAND_IN_KUBECONFIG. What "the
cloud" has is a file, GCP_STAND_IN_CLOUD, since each command of the engine starts this anew. As read in the source of
the real provider (docs/engine-notes.md): what replaces an object, what is refused, what a second create meets, an API
that was enabled a moment ago, values that a preview does not know, and a refresh that reads what is there.

GCP_STAND_IN_LAG: seconds for which a newly enabled API answers 403.
GCP_STAND_IN_CLUSTER: seconds that a cluster takes; it is there from the first one on, and so is its first pool.
GCP_STAND_IN_PRIVATE: whether a cluster without addresses says that its endpoint is private, "true" or "false".
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime import rpc
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

_VERSION = "10.2.0"  # of the SDK that the program uses
_GRPC: Any = grpc  # it has no types
Values = dict[str, Any]


class RefusedError(Exception):
    """What Google Cloud, or the provider, says instead of doing it."""


# --- what is in the cloud --------------------------------------------------------------------------------------


class Cloud:
    """Objects by their id, and when each API was enabled; in a file, so that it outlives a process that is killed."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()

    def enable(self, api: str) -> None:
        """As the real provider does: no error if it is on already."""
        self._change(lambda content: content["apis"].setdefault(api, time.time()))

    def need(self, api: str | None) -> None:
        """Refuse while an API is off or was enabled a moment ago."""
        since = self._read()["apis"].get(api)
        if api and (since is None or time.time() < since + float(os.environ.get("GCP_STAND_IN_LAG", "0"))):
            raise RefusedError(_off(api))

    def add(self, key: str, inputs: Values) -> None:
        """Refuse what is there already."""

        def added(content: Values) -> None:
            if key in content["objects"]:
                raise RefusedError(f"googleapi: Error 409: Already exists: {key}, alreadyExists")
            content["objects"][key] = inputs

        self._change(added)

    def put(self, key: str, inputs: Values) -> None:
        self._change(lambda content: content["objects"].update({key: inputs}))

    def remove(self, key: str) -> None:
        """With what is in it: databases and users go with their instance, connections with their network."""
        inside, of_instance = (f"{key}/", f"{key}:"), f"//{key.rsplit('/', 1)[-1]}"

        def removed(content: Values) -> None:
            kept = {k: v for k, v in content["objects"].items() if k != key and not k.startswith(inside)}
            content["objects"] = {k: v for k, v in kept.items() if not k.endswith(of_instance)}

        self._change(removed)

    def get(self, key: str) -> Values | None:
        return self._read()["objects"].get(key)

    def inside(self, key: str) -> list[Values]:
        """What an object has in it, as the node pools of a cluster."""
        return [found for name, found in sorted(self._read()["objects"].items()) if name.startswith(f"{key}/")]

    def settle(self, key: str, inputs: Values) -> None:
        """The end of making or changing a cluster: the pool that it was made with goes, if that is asked for."""
        first = f"{key}/nodePools/{_FIRST_POOL}"
        if inputs.get("removeDefaultNodePool") and self.get(first) is not None:
            self.remove(first)

    def make_cluster(self, key: str, inputs: Values) -> None:
        """For as long as one takes: asked to stop, the provider comes to the end of it all the same."""
        self.put(f"{key}/nodePools/{_FIRST_POOL}", {"name": _FIRST_POOL})
        time.sleep(float(os.environ.get("GCP_STAND_IN_CLUSTER", "0")))
        self.settle(key, inputs)

    def connect(self, key: str, inputs: Values) -> None:
        """Refuse a second connection to a network of the same name, unless it may change the one there was."""
        refusal = RefusedError("googleapi: Error 400: Cannot modify allocated ranges in CreateConnection.")

        def remembered(content: Values) -> None:
            if key in content["connections"] and not inputs.get("updateOnCreationFail"):
                raise refusal
            content["connections"].append(key)

        self._change(remembered)

    def _read(self) -> Values:
        empty: Values = {"apis": {}, "objects": {}, "connections": []}
        return json.loads(self._path.read_text()) if self._path.exists() else empty

    def _change(self, change: Callable[[Values], object]) -> None:
        with self._lock:
            content = self._read()
            change(content)
            beside = self._path.with_suffix(".new")
            beside.write_text(json.dumps(content, indent=1))
            beside.replace(self._path)


def _off(api: str) -> str:
    return (
        f"googleapi: Error 403: {api} API has not been used in project 1 before or it is disabled. Enable it by "
        f"visiting https://console.developers.google.com/apis/api/{api}.googleapis.com/overview?project=1 then retry. "
        "If you enabled this API recently, wait a few minutes for the action to propagate to our systems and retry."
    )


# --- what there is to know of each type ------------------------------------------------------------------------


def _nothing(_inputs: Values) -> Values:
    return {}


_FIRST_POOL = "default-pool"
_OF_THE_PROVIDER = ("deletionPolicy", "removeDefaultNodePool", "updateOnCreationFail")


def _cluster(inputs: Values) -> Values:
    """A zonal cluster with its DNS endpoint, inside the object that the program gave."""
    endpoints = {**inputs.get("controlPlaneEndpointsConfig", {})}
    endpoints["dnsEndpointConfig"] = {**endpoints.get("dnsEndpointConfig", {}), "endpoint": _endpoint()}
    return {"controlPlaneEndpointsConfig": endpoints}


def _endpoint() -> str:
    kubeconfig = json.loads(Path(os.environ["GCP_STAND_IN_KUBECONFIG"]).read_text())
    return kubeconfig["clusters"][0]["cluster"]["server"].removeprefix("https://")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A type of resource. `key` is its id in the cloud, made of inputs; `replaces` are those that the provider cannot
    change in place (ForceNew); `computed` adds what this program reads of the cloud's answer."""

    key: str
    api: str | None = None
    replaces: Sequence[str] = ("name",)
    computed: Callable[[Values], Values] = _nothing


_P = "projects/stand-in"
_CLUSTER, _CONNECTION = "gcp:container/cluster:Cluster", "gcp:servicenetworking/connection:Connection"
_KINDS: Mapping[str, Kind] = {
    "gcp:projects/service:Service": Kind(key="{service}", api="cloudresourcemanager", replaces=["service"]),
    "gcp:projects/iAMMember:IAMMember": Kind(
        key=_P + "/{role}/{member}", api="cloudresourcemanager", replaces=["role", "member", "project"]
    ),
    "gcp:serviceaccount/account:Account": Kind(
        key=_P + "/serviceAccounts/{accountId}@stand-in.iam.gserviceaccount.com",
        api="iam",
        replaces=["accountId"],
        computed=lambda inputs: {"email": f"{inputs['accountId']}@stand-in.iam.gserviceaccount.com"},
    ),
    "gcp:compute/network:Network": Kind(
        key=_P + "/global/networks/{name}", api="compute", replaces=["name", "autoCreateSubnetworks"]
    ),
    "gcp:compute/subnetwork:Subnetwork": Kind(
        key=_P + "/regions/{region}/subnetworks/{name}", api="compute", replaces=["name", "network", "region"]
    ),
    "gcp:compute/router:Router": Kind(
        key=_P + "/regions/{region}/routers/{name}", api="compute", replaces=["name", "network", "region"]
    ),
    "gcp:compute/routerNat:RouterNat": Kind(
        key="stand-in/{region}/{router}/{name}", api="compute", replaces=["name", "router", "region"]
    ),
    "gcp:compute/disk:Disk": Kind(
        key=_P + "/zones/{zone}/disks/{name}", api="compute", replaces=["name", "zone", "type"]
    ),
    "gcp:compute/globalAddress:GlobalAddress": Kind(
        key=_P + "/global/addresses/{name}", api="compute", replaces=["name", "address", "prefixLength", "network"]
    ),
    _CLUSTER: Kind(
        key=_P + "/locations/{location}/clusters/{name}",
        api="container",
        replaces=["name", "location", "network", "subnetwork", "datapathProvider", "initialNodeCount", "nodeConfig"],
        computed=_cluster,
    ),
    "gcp:container/nodePool:NodePool": Kind(
        key=_P + "/locations/{location}/clusters/{cluster}/nodePools/{name}",
        api="container",
        replaces=["name", "location", "cluster", "initialNodeCount"],
    ),
    "gcp:artifactregistry/repository:Repository": Kind(
        key=_P + "/locations/{location}/repositories/{repositoryId}",
        api="artifactregistry",
        replaces=["repositoryId", "location", "format", "mode"],
        computed=lambda inputs: {"name": inputs["repositoryId"]},
    ),
    _CONNECTION: Kind(key="{network}:{service}", api="servicenetworking", replaces=["network", "service"]),
    "gcp:sql/databaseInstance:DatabaseInstance": Kind(
        key=_P + "/instances/{name}",
        api="sqladmin",
        replaces=["name", "region"],
        computed=lambda _: {"privateIpAddress": "10.16.0.3"},
    ),
    "gcp:sql/database:Database": Kind(
        key=_P + "/instances/{instance}/databases/{name}", api="sqladmin", replaces=["name", "instance"]
    ),
    "gcp:sql/user:User": Kind(key="{name}//{instance}", api="sqladmin", replaces=["name", "instance"]),
}
_OTHER = Kind(key="")  # a policy of one object


def _kind(urn: str) -> Kind:
    return _KINDS.get(_type(urn), _OTHER)


def _type(urn: str) -> str:
    return urn.split("::")[2].rsplit("$", 1)[-1]


def _key(urn: str, inputs: Values) -> str:
    kind = _kind(urn)
    return kind.key.format_map(inputs) if kind.key else f"stand-in/{urn.rsplit('::', 1)[1]}"


def _why_kept(type_: str, state: Values) -> str | None:
    """Why an object is not deleted: the provider's word, or Google's."""
    if state.get("deletionPolicy") == "PREVENT":
        return 'cannot destroy without setting deletion_policy="DELETE" and running `terraform apply`'
    if state.get("deletionProtection"):
        return "deletion_protection is set to true. Set it to false to proceed"
    if state.get("settings", {}).get("deletionProtectionEnabled"):
        return "googleapi: Error 400: The instance is protected. Please disable the deletion protection"
    if type_ == "gcp:sql/user:User":
        return "googleapi: Error 400: role cannot be dropped because some objects depend on it"
    if type_ == _CONNECTION:
        return "googleapi: Error 400: Producer services (e.g. CloudSQL) are still using this connection"
    return None


# --- values ------------------------------------------------------------------------------------------------------


def _outputs(urn: str, inputs: Values, *, preview: bool) -> Values:
    computed = _kind(urn).computed(inputs)
    return {**inputs, **(_unknown(computed, inputs) if preview else computed)}


def _unknown(computed: Values, inputs: Values) -> Values:
    """The same with everything that is not an input unknown."""
    return {
        key: _unknown(cast("Values", value), inputs.get(key, {}))
        if isinstance(value, dict)
        else inputs.get(key, rpc.UNKNOWN)
        for key, value in computed.items()
    }


def _values(struct: struct_pb2.Struct) -> Values:
    return json_format.MessageToDict(struct)


def _struct(values: Values) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update(values)
    return struct


# --- the protocol ------------------------------------------------------------------------------------------------


class StandIn(provider_pb2_grpc.ResourceProviderServicer):
    """The provider protocol, as far as the engine uses it for a program without invokes."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def GetPluginInfo(self, request: Any, context: Any) -> Any:  # noqa: N802  the protocol's names
        return plugin_pb2.PluginInfo(version=_VERSION)

    def GetSchema(self, request: Any, context: Any) -> Any:  # noqa: N802
        return provider_pb2.GetSchemaResponse(schema=json.dumps({"name": "gcp", "version": _VERSION}))

    def Attach(self, request: Any, context: Any) -> Any:  # noqa: N802
        return empty_pb2.Empty()

    def Cancel(self, request: Any, context: Any) -> Any:  # noqa: N802
        return empty_pb2.Empty()

    def CheckConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return _diff(_values(request.olds), _values(request.news), _OTHER)

    def Configure(self, request: Any, context: Any) -> Any:  # noqa: N802
        return provider_pb2.ConfigureResponse(supportsPreview=True)

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        return provider_pb2.CheckResponse(inputs=request.news)

    def Diff(self, request: Any, context: Any) -> Any:  # noqa: N802
        old, new = _values(request.old_inputs), _values(request.news)
        return _diff(old, new, _kind(request.urn), ignoring=request.ignoreChanges)

    def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        inputs = _values(request.properties)
        if request.preview:
            unknown = {"nodePools": rpc.UNKNOWN} if _type(request.urn) == _CLUSTER else {}
            outputs = {**_outputs(request.urn, inputs, preview=True), **unknown}
            return provider_pb2.CreateResponse(id="", properties=_struct(outputs))
        key = _key(request.urn, inputs)
        try:
            self._create(_type(request.urn), key, inputs)
        except RefusedError as refusal:
            context.abort(_GRPC.StatusCode.UNKNOWN, str(refusal))
        outputs = _outputs(request.urn, inputs, preview=False) | self._inside(request.urn, key)
        return provider_pb2.CreateResponse(id=key, properties=_struct(outputs))

    def _inside(self, urn: str, key: str) -> Values:
        """What an object's outputs say of others."""
        return {"nodePools": self._cloud.inside(key)} if _type(urn) == _CLUSTER else {}

    def _create(self, type_: str, key: str, inputs: Values) -> None:
        kind = _KINDS.get(type_, _OTHER)
        if type_ == "gcp:projects/service:Service":
            # Enabled without asking the other API, and read back by it; a second try finds it enabled.
            found = self._cloud.get(key)
            self._cloud.enable(str(inputs["service"]).removesuffix(".googleapis.com"))
            self._cloud.put(key, inputs)
            if found is None:
                self._cloud.need(kind.api)
            return
        self._cloud.need(kind.api)
        if type_ == _CONNECTION:
            self._cloud.connect(key, inputs)
        self._cloud.add(key, inputs)
        if type_ == _CLUSTER:
            self._cloud.make_cluster(key, inputs)

    def Read(self, request: Any, context: Any) -> Any:  # noqa: N802
        found = self._cloud.get(request.id)
        if found is None:
            return provider_pb2.ReadResponse()
        inside = self._inside(request.urn, request.id)
        if not request.properties.fields:  # an import: what only the provider knows is in no cloud
            inputs = {key: value for key, value in found.items() if key not in _OF_THE_PROVIDER}
            outputs = _outputs(request.urn, inputs, preview=False) | inside
            return provider_pb2.ReadResponse(id=request.id, properties=_struct(outputs), inputs=_struct(inputs))
        inputs, state = _values(request.inputs), _values(request.properties) | inside
        if private := os.environ.get("GCP_STAND_IN_PRIVATE"):
            for values in (inputs, state):
                if "privateClusterConfig" in values:
                    values["privateClusterConfig"]["enablePrivateEndpoint"] = private == "true"
        return provider_pb2.ReadResponse(id=request.id, properties=_struct(state), inputs=_struct(inputs))

    def Update(self, request: Any, context: Any) -> Any:  # noqa: N802
        inputs = _values(request.news)
        if not request.preview:
            self._cloud.put(request.id, inputs)
            # Removed by an update only where the state did not ask for it: after an import.
            if _type(request.urn) == _CLUSTER and not _values(request.olds).get("removeDefaultNodePool"):
                self._cloud.settle(request.id, inputs)
        outputs = _outputs(request.urn, inputs, preview=request.preview) | self._inside(request.urn, request.id)
        return provider_pb2.UpdateResponse(properties=_struct(outputs))

    def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        state = _values(request.properties)
        if state.get("deletionPolicy") != "ABANDON":
            if why := _why_kept(_type(request.urn), state):
                context.abort(_GRPC.StatusCode.FAILED_PRECONDITION, why)
            self._cloud.remove(request.id)
        return empty_pb2.Empty()


def _diff(old: Values, new: Values, kind: Kind, ignoring: Any = ()) -> Any:
    whole = [*ignoring]
    changed = [key for key in sorted({*old, *new} - {*whole}) if old.get(key) != new.get(key)]
    replaces = [key for key in changed if key in kind.replaces]
    # A smaller disk is another disk.
    if "size" in changed and old.get("size", 0) > new.get("size", 0):
        replaces.append("size")
    answer = provider_pb2.DiffResponse.DIFF_SOME if changed else provider_pb2.DiffResponse.DIFF_NONE
    # Its name is the same, so the old one has to go first.
    return provider_pb2.DiffResponse(
        changes=answer, diffs=changed, replaces=replaces, deleteBeforeReplace=bool(replaces) and "name" not in replaces
    )


def main() -> None:
    """Serve on a free loopback port, told to the engine on standard output, until the engine ends this."""
    server = _GRPC.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 400 << 20)])
    cloud = Cloud(Path(os.environ["GCP_STAND_IN_CLOUD"]))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(StandIn(cloud), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
