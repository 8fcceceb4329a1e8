"""A model in a GGUF file served by llama.cpp on CPU."""

from __future__ import annotations

import pulumi

from components.serving.model_workload import SERVED_LINK, ModelArgs, cpu_model, weights_of
from components.serving.registration import PORT, Registration
from models.engines.llama_cpp import LlamaCppEngine
from models.memory.llama_cpp import slot_context
from models.spec import ModelSpec


def llama_cpp_arguments(spec: ModelSpec) -> list[str]:
    """The server's command line, all of it from the catalog entry; it takes no `--name=value`.

    Raises TypeError for an entry of another engine.
    """
    engine = LlamaCppEngine.of(spec)
    (file,) = weights_of(spec).files
    arguments = {
        "--model": f"{SERVED_LINK}/{file}",
        "--alias": spec.served_name,
        "--host": "0.0.0.0",  # noqa: S104  the pod's own address; a network policy says who reaches it
        "--port": str(PORT),
        # All slots share it in equal parts, and each is to hold a request of the whole context.
        "--ctx-size": str(slot_context(spec.context or 0) * engine.parallel),
        "--parallel": str(engine.parallel),
        "--threads": str(engine.threads),
        "--batch-size": str(engine.batch_tokens),
        "--ubatch-size": str(engine.batch_tokens),
        "--flash-attn": "on",  # the memory model's: without it a layer holds the scores of every head
        # Beside the KV cache it would keep prompts in 8 GiB more, and 32 states of a slot for some architectures.
        "--cache-ram": str(engine.prompt_cache_mib),
        "--ctx-checkpoints": "0",
    }
    switches = (
        "--metrics",
        "--no-slots",  # which would show one client's prompt to another
        "--no-ui",
        "--offline",
    )
    return [word for pair in arguments.items() for word in pair] + list(switches)


class LlamaCppModel(pulumi.ComponentResource):
    """One model: claim, staged weights, llama.cpp Deployment on the system pool, Service, policy, registration."""

    deployment_name: pulumi.Output[str]
    service_url: pulumi.Output[str]
    registration: Registration
    deployment: pulumi.Resource

    def __init__(self, name: str, args: ModelArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ai-platform:serving:LlamaCppModel", name, None, opts)
        engine = LlamaCppEngine.of(args.spec)
        objects = cpu_model(
            args,
            self,
            "llama-cpp",
            engine.image,
            arguments=llama_cpp_arguments(args.spec),
            api_key_variable="LLAMA_API_KEY",
            health_route=engine.health_route,
        )
        self.deployment = objects.deployment
        self.registration = objects.registration
        self.deployment_name = objects.deployment.metadata.name
        self.service_url = pulumi.Output.from_input(objects.registration.api_base)
        self.register_outputs({"deploymentName": self.deployment_name, "serviceUrl": self.service_url})
