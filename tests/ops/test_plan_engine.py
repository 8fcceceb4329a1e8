"""The in-process engine: what it registers is what a preview registers, and one run leaves nothing for the next."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pulumi
import pulumi_gcp as gcp
import pytest
from pulumi.runtime.proto import resource_pb2
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta

from ops.engine import SECRET_TEXT, UNKNOWN_TEXT, DuplicateUrnError, Recording, RecordingMonitor, custom_resources, run
from stacks.settings import RawConfig
from tests.checkout import CHECKOUT
from tests.patience import at_least


class Part(pulumi.ComponentResource):
    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("test:index:Part", name, None, opts)


def config_map(name: str, *, opts: pulumi.ResourceOptions | None = None, **data: pulumi.Input[str]) -> core.ConfigMap:
    return core.ConfigMap(name, metadata=meta.ObjectMetaArgs(name=name, namespace="ns"), data=data, opts=opts)


def recorded(program: Callable[[], object], **values: str) -> Recording:
    def whole() -> None:
        program()

    return run(RawConfig("demo", "dev", {f"demo:{key}": value for key, value in values.items()}), whole)


def inputs(recording: Recording, name: str) -> dict[str, object]:
    return dict(next(r.inputs for r in recording.resources if r.name == name))


def test_a_urn_carries_the_types_of_all_parents_but_the_stack() -> None:
    def program() -> None:
        outer = Part("outer")
        inner = Part("inner", pulumi.ResourceOptions(parent=outer))
        config_map("leaf", opts=pulumi.ResourceOptions(parent=inner))
        config_map("top")

    urns = {r.name: r.urn for r in recorded(program).resources}
    assert urns["outer"] == "urn:pulumi:dev::demo::test:index:Part::outer"
    assert urns["inner"] == "urn:pulumi:dev::demo::test:index:Part$test:index:Part::inner"
    kind = "kubernetes:core/v1:ConfigMap"
    assert urns["leaf"] == f"urn:pulumi:dev::demo::test:index:Part$test:index:Part${kind}::leaf"
    assert urns["top"] == f"urn:pulumi:dev::demo::{kind}::top"


def test_two_resources_of_one_urn_are_refused() -> None:
    monitor = RecordingMonitor("demo", "dev")
    request = resource_pb2.RegisterResourceRequest(type="kubernetes:core/v1:ConfigMap", name="same", custom=True)
    monitor.RegisterResource(request)
    with pytest.raises(DuplicateUrnError, match="urn:pulumi:dev::demo::kubernetes:core/v1:ConfigMap::same"):
        monitor.RegisterResource(request)


def test_one_name_under_two_parents_is_two_resources() -> None:
    def program() -> None:
        outer = Part("a")
        for parent in (outer, Part("b", pulumi.ResourceOptions(parent=outer))):
            config_map("same", opts=pulumi.ResourceOptions(parent=parent))

    assert len([r for r in recorded(program).resources if r.name == "same"]) == 2


def test_what_only_an_update_learns_is_unknown_and_never_none() -> None:
    def program() -> None:
        network = gcp.compute.Network("net")
        cluster = gcp.container.Cluster(
            "cluster",
            control_plane_endpoints_config=gcp.container.ClusterControlPlaneEndpointsConfigArgs(
                dns_endpoint_config=gcp.container.ClusterControlPlaneEndpointsConfigDnsEndpointConfigArgs(
                    allow_external_traffic=True
                )
            ),
        )
        endpoint = cluster.control_plane_endpoints_config.dns_endpoint_config.endpoint
        config_map("map", id=network.id, joined=pulumi.Output.concat("https://", endpoint))

    data = inputs(recorded(program), "map")["data"]
    assert data == {"id": UNKNOWN_TEXT, "joined": UNKNOWN_TEXT}


def test_what_a_preview_knows_is_known() -> None:
    def program() -> None:
        first = config_map("first")
        config_map("second", other=first.metadata.name.apply(str))

    assert inputs(recorded(program), "second")["data"] == {"other": "first"}


def test_secrets_are_masked_however_deep() -> None:
    def program() -> None:
        hidden = pulumi.Output.secret("CANARY")
        config_map("map", plain="p", derived=pulumi.Output.concat("x-", hidden))
        pulumi.export("out", hidden)

    recording = recorded(program)
    assert "CANARY" not in repr(recording)
    assert recording.outputs == {"out": SECRET_TEXT}


def test_options_are_kept() -> None:
    def program() -> None:
        first = config_map("first", opts=pulumi.ResourceOptions(protect=True))
        options = pulumi.ResourceOptions(
            depends_on=[first],
            retain_on_delete=True,
            ignore_changes=["data"],
            custom_timeouts=pulumi.CustomTimeouts(create="77s"),
        )
        config_map("second", opts=options)

    resources = {r.name: r for r in recorded(program).resources}
    first, second = resources["first"], resources["second"]
    assert (first.protect, first.retain_on_delete, second.protect, second.retain_on_delete) == (
        True,
        False,
        False,
        True,
    )
    assert second.dependencies == (first.urn,)
    assert second.ignore_changes == ("data",)
    assert second.timeout == "77s"


def test_numbers_and_keys_are_those_of_a_manifest() -> None:
    def program() -> None:
        core.Service("svc", spec=core.ServiceSpecArgs(ports=[core.ServicePortArgs(port=80, node_port=30_000)]))

    spec = inputs(recorded(program), "svc")["spec"]
    assert spec == {"ports": [{"nodePort": 30_000, "port": 80}]}
    assert "80.0" not in str(spec)


def test_config_reaches_the_program_and_ends_with_the_run() -> None:
    seen: list[str | None] = []

    def program() -> None:
        seen.append(pulumi.Config().get("key"))

    recorded(program, key="one")
    recorded(program)
    assert seen == ["one", None]


def test_a_stack_is_registered_once_and_the_rest_in_it() -> None:
    recording = recorded(lambda: config_map("map"))
    stacks = [r for r in recording.resources if r.type == "pulumi:pulumi:Stack"]
    assert [s.name for s in stacks] == ["demo-dev"]
    assert [r.name for r in custom_resources(recording.resources)] == ["map"]
    assert custom_resources(recording.resources)[0].parent == stacks[0].urn


def test_an_invoke_is_refused_by_name() -> None:
    with pytest.raises(Exception, match="a plan cannot answer calls"):
        recorded(lambda: gcp.organizations.get_project(project_id="x"))


def test_an_exception_of_the_program_comes_out() -> None:
    def program() -> None:
        raise LookupError("from the program")

    with pytest.raises(LookupError, match="from the program"):
        recorded(program)


_FAIL_THEN_RUN = """
import pulumi
from ops.engine import DuplicateUrnError, run
from stacks.settings import RawConfig

class Part(pulumi.ComponentResource):
    def __init__(self, name):
        super().__init__("test:index:Part", name)
        pulumi.export(name, self.urn)

raw = RawConfig("demo", "dev", {})
try:
    run(raw, lambda: [Part("same"), Part("same")] and None)
except DuplicateUrnError:
    print(sorted(r.name for r in run(raw, lambda: Part("next") and None).resources))
"""


def test_a_run_that_failed_leaves_nothing_behind_for_the_next() -> None:
    """In a process of its own: asyncio complains there, at its end, of tasks that nobody awaited."""
    done = subprocess.run(
        [sys.executable, "-c", _FAIL_THEN_RUN],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=at_least(60),
        check=False,
    )
    assert done.stdout == "['demo-dev', 'next']\n", done.stderr
