"""A model served by vLLM on a GPU."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pulumi
from pulumi_kubernetes.core import v1 as core

from components.kubernetes.moves import GPU_SETTING, Shapes, move_of_model, shape_under_pods
from components.kubernetes.pods import env, gib, metadata, scratch, secret_env
from components.serving.model_workload import (
    CLAIM_PATH,
    HUB_CACHE,
    ModelArgs,
    engine_container,
    model_objects,
    weights_of,
)
from components.serving.namespace import API_KEY, API_KEY_SECRET
from components.serving.registration import PORT, Registration
from models.engines.vllm import HOME_GIB as VLLM_HOME_GIB
from models.engines.vllm import VllmEngine
from models.machines import ACCELERATOR_LABEL, G2_MACHINES, GPU_TAINT, INSTANCE_TYPE_LABEL
from models.spec import ModelSpec
from models.weights import Weights

_COMPILE_CACHE = f"{CLAIM_PATH}/compile"
FILES = Path(__file__).with_name("files")  # programs of servers: what they import is not here
_FILES_PATH = "/opt/engine"


def vllm_arguments(spec: ModelSpec) -> list[str]:
    """The engine's command line, `--name=value` each, all of it from the catalog entry.

    Raises TypeError for an entry of another engine.
    """
    engine, weights = VllmEngine.of(spec), weights_of(spec)
    arguments = {
        "--model": spec.model_id,
        **_revision(weights),
        "--served-model-name": spec.served_name,
        "--host": "0.0.0.0",  # noqa: S104  the pod's own address; a network policy says who reaches it
        "--port": str(PORT),
        "--dtype": engine.dtype or weights.dtype,
        "--quantization": engine.kernel,
        "--max-model-len": str(spec.context),
        "--gpu-memory-utilization": f"{engine.gpu_memory_utilization:g}",
        "--max-num-seqs": str(engine.max_num_seqs),
        "--max-num-batched-tokens": str(engine.max_num_batched_tokens),
        "--stream-interval": str(engine.stream_interval) if engine.stream_interval > 1 else None,
        "--tensor-parallel-size": str(engine.gpus) if engine.gpus > 1 else None,
        "--tool-call-parser": engine.tool_call_parser,
        "--tool-parser-plugin": _mounted(engine.tool_parser_plugin),
        "--chat-template": _mounted(engine.chat_template),
        "--kv-cache-dtype": engine.kv_cache_dtype if engine.kv_cache_dtype != "auto" else None,
        "--max-loras": str(engine.max_loras) if engine.max_loras else None,
        "--max-lora-rank": str(engine.max_lora_rank) if engine.max_loras else None,
        "--reasoning-parser": engine.reasoning_parser,
        "--load-format": "pt" if weights.format == "pickle" else None,
        "--speculative-config": _speculative_config(engine),
        "--runner": "pooling" if engine.pooling else None,
        "--pooler-config": json.dumps({"pooling_type": engine.pooling.upper()}) if engine.pooling else None,
        "--hf-overrides": json.dumps({"is_matryoshka": True}) if spec.shortest_vector else None,
    }
    switches = {
        "--enable-auto-tool-choice": engine.tool_call_parser is not None,
        "--enable-prefix-caching": engine.prefix_caching,
        "--no-enable-prefix-caching": not engine.prefix_caching,
        "--enforce-eager": engine.eager,
        "--enable-lora": engine.max_loras > 0,
        "--language-model-only": engine.language_model_only,
    }
    return [f"{name}={value}" for name, value in arguments.items() if value is not None] + [
        name for name, on in switches.items() if on
    ]


def _mounted(file: str | None) -> str | None:
    return f"{_FILES_PATH}/{file}" if file else None


@dataclass(frozen=True)
class _Files:
    """What the server reads at its start. Other content is another name, so that the pod starts anew with it."""

    mounts: tuple[core.VolumeMountArgs, ...] = ()
    volumes: tuple[core.VolumeArgs, ...] = ()
    resources: tuple[pulumi.Resource, ...] = ()


def _files(model: ModelArgs, engine: VllmEngine, parent: pulumi.Resource) -> _Files:
    content = {file: (FILES / file).read_text(encoding="utf-8") for file in engine.files}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    logical = f"{model.spec.alias}-files"
    name = f"{logical}-{digest[:8]}"
    if not content:
        return _Files()
    made = core.ConfigMap(
        logical,
        metadata=metadata(name, model.place.namespace, "model"),
        data=content,
        opts=pulumi.ResourceOptions(parent=parent),
    )
    return _Files(
        (core.VolumeMountArgs(name="files", mount_path=_FILES_PATH, read_only=True),),
        (core.VolumeArgs(name="files", config_map=core.ConfigMapVolumeSourceArgs(name=name)),),
        (made,),
    )


def _speculative_config(engine: VllmEngine) -> str | None:
    if engine.speculation is None:
        return None
    return json.dumps({"method": engine.speculation.method, "num_speculative_tokens": engine.speculation.tokens})


def _revision(weights: Weights) -> dict[str, str]:
    """Offline, a snapshot that was staged by commit is found only by that commit."""
    return {"--revision": weights.revision} if weights.revision else {}


@dataclass(frozen=True, kw_only=True)
class VllmModelArgs:
    """`machine_type` is the shape that admission proved the model on; it runs on no other.

    `after` are Deployments that must have let go of the GPU before this one goes up.
    """

    model: ModelArgs  # what every model component takes
    machine_type: str
    after: Sequence[pulumi.Resource] = ()
    node_labels: Mapping[str, str] = field(default_factory=dict[str, str])  # of nodes that no cloud has labelled
    asked: bool = True  # config names the machine, so that another one is meant to move the model
    waits: bool = False  # the quota does not hold another node beside its own


class VllmModel(pulumi.ComponentResource):
    """One model: claim, staged weights, vLLM Deployment on the L4 pool, Service, policy, registration."""

    deployment_name: pulumi.Output[str]
    service_url: pulumi.Output[str]
    registration: Registration
    # What another model in the same slot waits for before it goes up.
    deployment: pulumi.Resource

    def __init__(self, name: str, args: VllmModelArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ai-platform:serving:VllmModel", name, None, opts)
        model = args.model
        engine = VllmEngine.of(model.spec)
        image = engine.image
        home_volume, home_mount = scratch("home", image.home, gib(VLLM_HOME_GIB))
        shm = gib(model.needs.shm_gib)
        files = _files(model, engine, self)
        container = engine_container(
            model,
            "vllm",
            image,
            arguments=vllm_arguments(model.spec),
            env=[
                # By environment, never as an argument: arguments show in the process list and in `describe`.
                secret_env("VLLM_API_KEY", API_KEY_SECRET, API_KEY),
                *env(
                    HF_HUB_CACHE=HUB_CACHE,
                    HF_HUB_OFFLINE="1",
                    TRANSFORMERS_OFFLINE="1",
                    # On the claim: the second start does not compile again.
                    VLLM_CACHE_ROOT=_COMPILE_CACHE,
                    VLLM_NO_USAGE_STATS="1",
                ),
            ],
            health_route=engine.health_route,
            probe_period=10,
            extended={GPU_TAINT: str(engine.gpus)},
            mounts=[
                core.VolumeMountArgs(name="model-cache", mount_path=_COMPILE_CACHE, sub_path="compile"),
                core.VolumeMountArgs(name="shm", mount_path="/dev/shm"),  # noqa: S108  a volume
                home_mount,
                *files.mounts,
            ],
        )
        objects = model_objects(
            model,
            self,
            engine=container,
            engine_image=image,
            staging_image=image,
            directories=[_COMPILE_CACHE],
            extra_volumes=[
                home_volume,
                # NCCL and the engine's processes talk through it; memory-backed, so it counts in the limit.
                core.VolumeArgs(name="shm", empty_dir=core.EmptyDirVolumeSourceArgs(medium="Memory", size_limit=shm)),
                *files.volumes,
            ],
            node_selector=args.node_labels
            or {ACCELERATOR_LABEL: engine.accelerator, INSTANCE_TYPE_LABEL: args.machine_type},
            tolerations=[core.TolerationArgs(key=GPU_TAINT, operator="Exists", effect="NoSchedule")],
            after=(*args.after, *files.resources),
            hooks=_shapes(args).stay(name),
        )
        self.deployment = objects.deployment
        self.registration = objects.registration
        self.deployment_name = objects.deployment.metadata.name
        self.service_url = pulumi.Output.from_input(objects.registration.api_base)
        self.register_outputs({"deploymentName": self.deployment_name, "serviceUrl": self.service_url})


def _shapes(args: VllmModelArgs) -> Shapes:
    alias, needs, seconds = args.model.spec.alias, args.model.needs, args.model.cold_start.elsewhere
    return Shapes(
        setting=GPU_SETTING,
        asked=args.asked,
        of=shape_under_pods,
        told=lambda before, after: move_of_model(alias, before, after, seconds, waits=args.waits),
        holds=lambda before: before in G2_MACHINES and not needs.lacking(G2_MACHINES[before]),
    )
