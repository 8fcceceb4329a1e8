"""Stands in for the GCP provider: keeps what it is given, and answers with what a program reads back.

It makes nothing and checks nothing of what Google would check. Its clusters are the embedded one, whose kubeconfig
is named by GCP_STAND_IN_KUBECONFIG. It knows three habits of the real one that the program counts on: values of the
cloud's are unknown in a preview, a cluster under deletion protection is not deleted, and a refresh reads what is there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any, cast

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime import rpc
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

_VERSION = "10.2.0"  # of the SDK that the program uses
_GRPC: Any = grpc  # it has no types
Values = dict[str, Any]


def _cluster(inputs: Values) -> Values:
    """A zonal cluster with its DNS endpoint, inside the object that the program gave."""
    endpoints = {**inputs.get("controlPlaneEndpointsConfig", {})}
    endpoints["dnsEndpointConfig"] = {**endpoints.get("dnsEndpointConfig", {}), "endpoint": _endpoint()}
    return {"controlPlaneEndpointsConfig": endpoints}


def _endpoint() -> str:
    kubeconfig = json.loads(Path(os.environ["GCP_STAND_IN_KUBECONFIG"]).read_text())
    return kubeconfig["clusters"][0]["cluster"]["server"].removeprefix("https://")


def _account(inputs: Values) -> Values:
    return {"email": f"{inputs['accountId']}@stand-in.iam.gserviceaccount.com"}


def _repository(inputs: Values) -> Values:
    return {"name": inputs["repositoryId"]}


def _instance(_inputs: Values) -> Values:
    return {"privateIpAddress": "10.16.0.3"}


# What the cloud adds to the inputs of a type, of what this program reads.
_COMPUTED: Mapping[str, Callable[[Values], Values]] = {
    "gcp:container/cluster:Cluster": _cluster,
    "gcp:serviceaccount/account:Account": _account,
    "gcp:artifactregistry/repository:Repository": _repository,
    "gcp:sql/databaseInstance:DatabaseInstance": _instance,
}


def _outputs(urn: str, inputs: Values, *, preview: bool) -> struct_pb2.Struct:
    kind = urn.split("::")[2].rsplit("$", 1)[-1]
    computed = _COMPUTED.get(kind, lambda _: {})(inputs)
    return _struct({**inputs, **(_unknown(computed, inputs) if preview else computed)})


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


class StandIn(provider_pb2_grpc.ResourceProviderServicer):
    """The provider protocol, as far as the engine uses it for a program without invokes."""

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
        return _diff(_values(request.olds), _values(request.news))

    def Configure(self, request: Any, context: Any) -> Any:  # noqa: N802
        return provider_pb2.ConfigureResponse(supportsPreview=True)

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        return provider_pb2.CheckResponse(inputs=request.news)

    def Diff(self, request: Any, context: Any) -> Any:  # noqa: N802
        return _diff(_values(request.old_inputs), _values(request.news), ignoring=request.ignoreChanges)

    def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        name = "" if request.preview else f"stand-in/{request.urn.rsplit('::', 1)[1]}"
        outputs = _outputs(request.urn, _values(request.properties), preview=request.preview)
        return provider_pb2.CreateResponse(id=name, properties=outputs)

    def Read(self, request: Any, context: Any) -> Any:  # noqa: N802
        return provider_pb2.ReadResponse(id=request.id, properties=request.properties, inputs=request.inputs)

    def Update(self, request: Any, context: Any) -> Any:  # noqa: N802
        return provider_pb2.UpdateResponse(properties=_outputs(request.urn, _values(request.news), preview=False))

    def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        if _values(request.properties).get("deletionProtection"):
            context.abort(_GRPC.StatusCode.FAILED_PRECONDITION, "deletionProtection is true: set it to false first")
        return empty_pb2.Empty()


def _diff(old: Values, new: Values, ignoring: Any = ()) -> Any:
    changed = [key for key in sorted({*old, *new} - {*ignoring}) if old.get(key) != new.get(key)]
    kind = provider_pb2.DiffResponse.DIFF_SOME if changed else provider_pb2.DiffResponse.DIFF_NONE
    return provider_pb2.DiffResponse(changes=kind, diffs=changed)


def main() -> None:
    """Serve on a free loopback port, told to the engine on standard output, until the engine ends this."""
    server = _GRPC.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 400 << 20)])
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(StandIn(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
