"""An embedding model served by text-embeddings-inference on CPU."""

from __future__ import annotations

import pulumi

from components.serving.model_workload import SERVED_LINK, ModelArgs, cpu_model, weights_of
from components.serving.registration import PORT, Registration
from models.engines.tei import TeiEngine
from models.spec import ModelSpec


def tei_arguments(spec: ModelSpec) -> list[str]:
    """The router's command line, all of it from the catalog entry.

    Raises TypeError for an entry of another engine.
    """
    engine = TeiEngine.of(spec)
    return [
        f"--model-id={SERVED_LINK}",
        f"--served-model-name={spec.served_name}",
        f"--dtype={weights_of(spec).dtype}",
        *([f"--pooling={engine.pooling}"] if engine.pooling else []),
        f"--max-batch-tokens={engine.max_batch_tokens}",
        f"--max-client-batch-size={engine.max_client_batch_size}",
        f"--max-concurrent-requests={engine.max_concurrent_requests}",
        # Its own defaults are port 80, and the address in HOSTNAME, which Kubernetes sets.
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
        objects = cpu_model(
            args,
            self,
            "tei",
            engine.image,
            arguments=tei_arguments(args.spec),
            api_key_variable="API_KEY",
            health_route=engine.health_route,
        )
        self.deployment = objects.deployment
        self.registration = objects.registration
        self.deployment_name = objects.deployment.metadata.name
        self.service_url = pulumi.Output.from_input(objects.registration.api_base)
        self.register_outputs({"deploymentName": self.deployment_name, "serviceUrl": self.service_url})
