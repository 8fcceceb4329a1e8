"""A model in a GGUF file: what its entry makes of llama.cpp's command line, its pod, its claim and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.serving.llama_cpp import llama_cpp_arguments
from models.engines.llama_cpp import GgufFile, LlamaCppEngine
from models.facts import GIB
from models.images import LLAMA_CPP
from stacks.admission import admit
from stacks.plan import PlannedModel
from stacks.problems import Problem
from tests.catalog import CATALOG
from tests.gguf_entries import ALIAS, FILES, GROUPS_WITH_GGUF, SPEC, WITH_GGUF, raw, recorded_with_gguf
from tests.pod_security import violations
from tests.support import env_of, needs, quantity


def options(*assignments: str) -> dict[str, str]:
    """The command line as pairs; switches have no value."""
    words = recorded_with_gguf(*assignments).pod(ALIAS).containers[-1]["args"]
    pairs = zip(words, [*words[1:], "--"], strict=True)
    return {word: "" if value.startswith("--") else value for word, value in pairs if word.startswith("--")}


def planned(*assignments: str) -> PlannedModel:
    admission = admit(raw(*assignments), WITH_GGUF, GROUPS_WITH_GGUF, rehearsal=True)
    assert not admission.problems, admission.problems
    return next(model for model in admission.plan.models if model.spec.alias == ALIAS)


def refused(*assignments: str) -> list[str]:
    admission = admit(raw(*assignments), WITH_GGUF, GROUPS_WITH_GGUF, rehearsal=True)
    return [str(problem) for problem in admission.problems]


# --- command line, pod -----------------------------------------------------------------------------------------


def test_the_command_line_is_all_of_the_entry() -> None:
    assert options() == {
        "--model": "/model-cache/hub/served/small.Q4_K_M.gguf",
        "--alias": "small-chat",
        "--host": "0.0.0.0",
        "--port": "8000",
        "--ctx-size": "8192",
        "--parallel": "4",
        "--threads": "2",
        "--batch-size": "512",
        "--ubatch-size": "512",
        "--flash-attn": "on",
        "--cache-ram": "0",
        "--ctx-checkpoints": "0",
        "--metrics": "",
        "--no-slots": "",
        "--no-ui": "",
        "--offline": "",
    }


@pytest.mark.parametrize(("parallel", "context", "size"), [(1, 2000, 2048), (2, 1024, 2048), (3, 257, 1536)])
def test_every_slot_has_the_context_of_a_request_though_they_share_one_size(
    parallel: int, context: int, size: int
) -> None:
    """A context is rounded up to 256, as the server does; divided by the slots it would be cut short."""
    assert options(f"{ALIAS}:parallel={parallel}", f"{ALIAS}:context={context}")["--ctx-size"] == str(size)
    assert size // parallel >= context


PARSER = json.loads((Path(__file__).parent / "fixtures" / "llama-cpp-options.json").read_text())


@pytest.mark.parametrize("quantization", [file.quantization for file in FILES])
def test_every_argument_is_one_of_the_parser_of_a_build_next_to_the_image_s(quantization: str) -> None:
    """Written by `regenerate_llama_cpp_options.py`; a switch has no value there, and everything else has one."""
    assert abs(int(LLAMA_CPP.tag.removeprefix("server-b")) - PARSER["build"]) < 50
    for name, value in options(f"{ALIAS}:quantization={quantization}", f"{ALIAS}:promptCacheMib=64").items():
        assert name in PARSER["options"], f"{name} does not exist"
        assert bool(value) == (PARSER["options"][name] is not None), name


def test_the_key_comes_by_environment_and_never_in_arguments() -> None:
    engine = recorded_with_gguf().pod(ALIAS).containers[-1]
    assert env_of(engine)["LLAMA_API_KEY"] == {"secretKeyRef": {"name": "vllm-api-key", "key": "api-key"}}
    assert not any("key" in argument for argument in engine["args"])


def test_its_pod_has_no_privilege_and_is_probed_where_no_key_is_asked() -> None:
    records = recorded_with_gguf(f"{ALIAS}:replicas=1")
    pod = records.pod(ALIAS)
    assert violations(pod.spec) == []
    engine = pod.containers[-1]
    assert engine["securityContext"]["readOnlyRootFilesystem"] is True
    assert {"USER", "HOME"} <= env_of(engine).keys()
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert engine[probe]["httpGet"] == {"path": "/health", "port": "http"}
    assert records.manifest("Service", ALIAS)["spec"]["ports"] == [{"name": "http", "port": 8000, "targetPort": "http"}]
    assert "nodeSelector" not in pod.spec
    assert "tolerations" not in pod.spec
    stage = pod.containers[0]
    assert stage["image"] == records.pod("litellm").containers[0]["image"]  # which has Python, and is on the node


def test_what_is_staged_is_one_file_with_the_digest_of_the_catalog() -> None:
    stage = env_of(recorded_with_gguf().pod(ALIAS).containers[0])
    assert json.loads(stage["MODEL_FILES"]) == ["small.Q4_K_M.gguf"]
    assert json.loads(stage["MODEL_DIGESTS"]) == {"small.Q4_K_M.gguf": "4" * 64}


def test_it_requests_what_the_memory_model_says_and_is_held_to_it() -> None:
    wanted = needs(SPEC)
    resources = recorded_with_gguf().pod(ALIAS).containers[-1]["resources"]
    assert quantity(resources["limits"]["memory"]) / GIB == pytest.approx(wanted.gib, abs=0.001)
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert "cpu" not in resources["limits"]


def test_the_gateway_registers_it_as_chat_at_its_price() -> None:
    import yaml

    config = yaml.safe_load(recorded_with_gguf().manifest("ConfigMap", "litellm-config")["data"]["config.yaml"])
    (entry,) = (entry for entry in config["model_list"] if entry["model_name"] == ALIAS)
    assert entry["litellm_params"]["model"] == "openai/small-chat"
    assert entry["litellm_params"]["api_base"] == f"http://{ALIAS}.serving.svc.cluster.local:8000/v1"
    assert entry["litellm_params"]["input_cost_per_token"] == pytest.approx(1.05e-6)
    assert entry["litellm_params"]["output_cost_per_token"] == pytest.approx(1.95e-6)
    assert entry["model_info"]["mode"] == "chat"
    assert entry["model_info"]["max_input_tokens"] == 2000


# --- what config chooses ---------------------------------------------------------------------------------------


def test_another_quantisation_is_another_file_with_its_size_digest_and_claim() -> None:
    records = recorded_with_gguf(f"{ALIAS}:quantization=Q5_K_M")
    stage, engine = records.pod(ALIAS).containers
    assert json.loads(env_of(stage)["MODEL_FILES"]) == ["small.Q5_K_M.gguf"]
    assert json.loads(env_of(stage)["MODEL_DIGESTS"]) == {"small.Q5_K_M.gguf": "5" * 64}
    assert env_of(stage)["MODEL_BYTES"] == "800000000"
    assert "/model-cache/hub/served/small.Q5_K_M.gguf" in engine["args"]
    claim = recorded_with_gguf(f"{ALIAS}:quantization=Q8_0").manifest("PersistentVolumeClaim", f"{ALIAS}-model-cache")
    assert claim["spec"]["resources"]["requests"]["storage"] == "10Gi"


def test_a_file_whose_digest_is_not_on_record_is_staged_without_one() -> None:
    stage = env_of(recorded_with_gguf(f"{ALIAS}:quantization=Q8_0").pod(ALIAS).containers[0])
    assert "MODEL_DIGESTS" not in stage


def test_a_larger_quantisation_needs_more_memory_and_is_slower() -> None:
    small, large = planned(), planned(f"{ALIAS}:quantization=Q8_0")
    assert small.workload
    assert large.workload
    assert large.workload.needs.gib - small.workload.needs.gib == pytest.approx(3.8e9 / GIB, abs=0.11)
    speeds = [model.spec.expected_throughput for model in (small, large)]
    assert speeds[0]
    assert speeds[1]
    assert speeds[0].tokens_per_second > 1.5 * speeds[1].tokens_per_second


@pytest.mark.parametrize("setting", ["quantization=Q8_0", "threads=8"])
def test_a_measured_speed_does_not_outlive_the_file_and_the_threads_that_it_is_of(setting: str) -> None:
    measured = planned(f"{ALIAS}:tokensPerSecond=77").spec
    assert measured.expected_throughput
    assert measured.expected_throughput.tokens_per_second == 77
    engine = LlamaCppEngine.of(SPEC)
    name, _, value = setting.partition("=")
    other = engine.model_copy(update={name: int(value) if value.isdigit() else value})
    assert other.adapted(measured).throughput is None
    assert engine.adapted(measured).throughput == measured.throughput


@pytest.mark.parametrize(
    ("setting", "words", "remedy"),
    [
        ("quantization=Q6_K", "has Q4_K_M, Q5_K_M, Q8_0", "quantization Q4_K_M"),
        ("quantization=q5_k_m", "is q5_k_m, and Somebody/Small-Chat-GGUF has", "quantization Q5_K_M"),
        ("context=4096", "the model has 2048 positions", "context 2048"),
        ("batchTokens=2", "below parallel (4)", "batchTokens 4"),
    ],
)
def test_what_cannot_be_served_is_refused_with_what_can(setting: str, words: str, remedy: str) -> None:
    (problem,) = refused(f"{ALIAS}:{setting}")
    assert words in problem
    first = problem.splitlines()[-1].split("   # or: ")[0].strip()
    assert first.endswith(f"{ALIAS}:{remedy}")
    name, _, value = first.rpartition(":")[2].partition(" ")
    assert refused(f"{ALIAS}:{setting}", f"{ALIAS}:{name}={value}") == []


FORMLESS = ["quantization=", "quantization=../x", "threads=0", "threads=257", "parallel=x", "parallel=65", "contxt=1"]


@pytest.mark.parametrize("setting", FORMLESS)
def test_a_setting_that_is_none_is_refused_by_its_form(setting: str) -> None:
    (problem,) = refused(f"{ALIAS}:{setting}")
    assert ALIAS in problem


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ((f"{ALIAS}:threads=64",), f"pulumi config set {ALIAS}:replicas 0"),
        ((f"{ALIAS}:threads=21",), "pulumi config set systemNodes 2"),
    ],
)
def test_a_system_pool_that_cannot_hold_it_is_refused_with_a_way_that_works(
    settings: tuple[str, ...], remedy: str
) -> None:
    def problems(*more: str) -> list[Problem]:
        config = raw(f"{ALIAS}:replicas=1", *settings, *more, stack="ai-dev")
        return list(admit(config, WITH_GGUF, GROUPS_WITH_GGUF, rehearsal=True).problems)

    assert [problem.remedy for problem in problems() if "without a GPU" in problem.message] == [remedy]
    _, _, _, key, value = remedy.split()
    assert not [problem for problem in problems(f"{key}={value}") if "without a GPU" in problem.message]


def test_a_group_that_is_off_takes_nothing_of_a_plan() -> None:
    admission = admit(raw("groups.gguf=false"), WITH_GGUF, GROUPS_WITH_GGUF, rehearsal=True)
    assert ALIAS not in [model.spec.alias for model in admission.plan.deployed]


# --- entries ---------------------------------------------------------------------------------------------------


def test_two_files_of_one_quantisation_are_a_flaw() -> None:
    twice = (*FILES, GgufFile(quantization="Q4_K_M", file="other.gguf", bytes_on_disk=1, sha256=None))
    with pytest.raises(ValueError, match="two files of one quantisation"):
        LlamaCppEngine.model_validate({**LlamaCppEngine.of(SPEC).model_dump(), "files": twice})


def test_an_entry_without_a_gguf_file_is_no_entry_of_this_engine() -> None:
    with pytest.raises(ValueError, match="coder-chat is no decoder in a GGUF file"):
        type(SPEC).model_validate({**CATALOG["coder-chat"].model_dump(), "engine": SPEC.engine})
    with pytest.raises(TypeError, match="coder-chat runs on vllm, not on llama-cpp"):
        llama_cpp_arguments(CATALOG["coder-chat"])
