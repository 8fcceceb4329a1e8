"""An embedding model served by text-embeddings-inference on CPU."""

from __future__ import annotations

import pulumi
from pulumi_kubernetes.core import v1 as core

from components.kubernetes.pods import container_security, http_probe, resources, secret_env
from components.serving.model_workload import HUB_CACHE, SERVED_LINK, TMP_MOUNT, ModelArgs, model_objects, weights_of
from components.serving.namespace import API_KEY, API_KEY_SECRET
from components.serving.registration import PORT, Registration
from models.engines.tei import TeiEngine
from models.images import LITELLM
from models.spec import ModelSpec

_PROBE_PERIOD_S = 5
_HEALTH = TeiEngine.health_route


def tei_arguments(spec: ModelSpec) -> list[str]:
    """The router's command line, all of it from the catalog entry.

    Raises TypeError for an entry of another engine.
    """
    engine = TeiEngine.of(spec)
    return [
        f"--model-id={SERVED_LINK}",
        f"--served-model-name={spec.served_name}",
        f"--dtype={weights_of(spec).dtype}",
        f"--pooling={engine.pooling}",
        f"--max-batch-tokens={engine.max_batch_tokens}",
        f"--max-client-batch-size={engine.max_client_batch_size}",
        f"--max-concurrent-requests={engine.max_concurrent_requests}",
        # Kubernetes sets HOSTNAME, which the router would take for its address.
        "--hostname=0.0.0.0",
        f"--port={PORT}",
        f"--auto-truncate={str(engine.auto_truncate).lower()}",
    ]


class TeiEmbeddings(pulumi.ComponentResource):
    """One model: claim, staged weights, TEI Deployment on the system pool, Service, policy, registration."""

    deployment_name: pulumi.Output[str]
    service_url: pulumi.Output[str]
    registration: Registration
    deployment: pulumi.Resource

    def __init__(self, name: str, args: ModelArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ai-platform:serving:TeiEmbeddings", name, None, opts)
        engine = TeiEngine.of(args.spec)
        container = core.ContainerArgs(
            name="tei",
            image=args.image(engine.image),
            args=tei_arguments(args.spec),
            env=[secret_env("API_KEY", API_KEY_SECRET, API_KEY)],
            # Explicit and unprivileged: the image's own default is port 80.
            ports=[core.ContainerPortArgs(name="http", container_port=PORT)],
            resources=resources(args.needs),
            security_context=container_security(),
            startup_probe=http_probe(
                _HEALTH, period=_PROBE_PERIOD_S, failures=args.cold_start.startup_failures(_PROBE_PERIOD_S)
            ),
            readiness_probe=http_probe(_HEALTH, period=_PROBE_PERIOD_S, failures=3),
            liveness_probe=http_probe(_HEALTH, period=_PROBE_PERIOD_S, failures=12, timeout=10),
            termination_message_policy="FallbackToLogsOnError",
            volume_mounts=[
                core.VolumeMountArgs(name="model-cache", mount_path=HUB_CACHE, sub_path="hub", read_only=True),
                TMP_MOUNT,
            ],
        )
        objects = model_objects(
            args,
            self,
            engine=container,
            engine_image=engine.image,
            # TEI's image has no Python; the gateway's has huggingface_hub and is on the node already.
            staging_image=LITELLM,
        )
        self.deployment = objects.deployment
        self.registration = objects.registration
        self.deployment_name = objects.deployment.metadata.name
        self.service_url = pulumi.Output.from_input(objects.registration.api_base)
        self.register_outputs({"deploymentName": self.deployment_name, "serviceUrl": self.service_url})
