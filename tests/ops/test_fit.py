"""`ops fit` as it is typed: answers, exit codes, messages, and remedies followed to success."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from models.engines.llama_cpp import LlamaCppEngine
from models.facts import GIB
from models.spec import ModelSpec
from ops.cli import main
from tests.catalog import CATALOG
from tests.gguf_entries import SPEC
from tests.models.hf_configs import CONFIGS

QWEN_32B: dict[str, Any] = {
    "model_type": "qwen2",
    "hidden_size": 5120,
    "intermediate_size": 27_648,
    "max_position_embeddings": 32_768,
    "num_attention_heads": 40,
    "num_hidden_layers": 64,
    "num_key_value_heads": 8,
    "vocab_size": 152_064,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(QWEN_32B), encoding="utf-8")
    return file


def run(*words: object) -> int:
    return main(["fit", *map(str, words)])


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any]]:
    code = run(*words, "--format", "json")
    return code, json.loads(capsys.readouterr().out)


def test_a_catalog_model_fits_and_exits_0(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = answer(capsys, "coder-agent")
    assert (code, found["fits"]) == (0, True)
    assert found["requested_max_model_len"] == 16_384
    assert found["machine"] == "g2-standard-8"
    assert found["kv_cache_tokens"] > 16_384


@pytest.mark.parametrize(
    "key",
    ["fits", "weights_gib", "kv_cache_gib", "kv_cache_tokens", "max_model_len", "host_ram_gib", "disk_gib", "remedies"],
)
@pytest.mark.parametrize("alias", ["coder-chat", "embeddings"])
def test_json_has_its_keys_on_gpu_and_cpu(capsys: pytest.CaptureFixture[str], alias: str, key: str) -> None:
    assert key in answer(capsys, alias)[1]


def test_a_config_without_flags_takes_the_model_s_context_and_vllm_s_defaults(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    _, found = answer(capsys, "--config", config, "--gpu", "h100")
    assert found["requested_max_model_len"] == 32_768
    assert (found["max_num_seqs"], found["max_num_batched_tokens"]) == (1024, 8192)
    assert found["utilization"] == 0.92


@pytest.mark.parametrize(
    "words", [("coder-agent",), ("embeddings",), ("coder-agent", "--gpu", "t4", "--max-model-len", 32768)]
)
def test_it_fits_a_small_screen_and_breaks_no_word_and_no_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...]
) -> None:
    printed: dict[int, str] = {}
    for columns in (80, 120, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        run(*words)
        printed[columns] = capsys.readouterr().out
        lines = printed[columns].splitlines()
        assert max(len(line) for line in lines if not line.strip().startswith("ops fit")) <= columns
        assert [line for line in lines if "ops fit" in line] == [
            line for line in printed[80].splitlines() if "ops fit" in line
        ]
    assert printed[80].split() == printed[120].split() == printed[200].split()


def test_flags_override_the_catalog(capsys: pytest.CaptureFixture[str]) -> None:
    _, usual = answer(capsys, "coder-chat")
    _, fewer = answer(capsys, "coder-chat", "--max-num-seqs", 8, "--utilization", 0.5, "--max-model-len", 4096)
    assert (fewer["max_num_seqs"], fewer["utilization"], fewer["requested_max_model_len"]) == (8, 0.5, 4096)
    assert fewer["kv_cache_gib"] < usual["kv_cache_gib"]


def test_a_gpu_may_be_given_by_its_memory(capsys: pytest.CaptureFixture[str]) -> None:
    by_name = answer(capsys, "coder-chat", "--gpu", "l4")[1]
    by_size = answer(capsys, "coder-chat", "--gpu-memory-gib", "22.03")[1]
    assert by_name["kv_cache_tokens"] == by_size["kv_cache_tokens"]


def test_given_weight_bytes_replace_the_computed_ones(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    _, found = answer(capsys, "--config", config, "--quantization", "awq", "--weights-bytes", 10 * 2**30)
    assert found["weights_gib"] == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize(
    "words",
    [
        ("coder-agent", "--utilization", "0.5"),
        ("coder-agent", "--machine", "g2-standard-4"),
        ("coder-chat", "--quantization", "none", "--max-num-seqs", "1024", "--utilization", "0.8"),
        ("CONFIG",),
        ("CONFIG", "--quantization", "awq"),
        ("CONFIG", "--quantization", "awq", "--eager", "--machine", "g2-standard-8"),
    ],
    ids=" ".join,
)
def test_every_remedy_typed_as_printed_fits(
    capsys: pytest.CaptureFixture[str], config: Path, words: tuple[str, ...]
) -> None:
    given = [word for w in words for word in (("--config", str(config)) if w == "CONFIG" else (w,))]
    code, found = answer(capsys, *given)
    assert (code, found["fits"]) == (2, False)
    assert found["remedies"]
    for remedy in found["remedies"]:
        typed = shlex.split(remedy["command"])
        assert typed[:2] == ["ops", "fit"]
        assert answer(capsys, *typed[2:])[0] == 0, remedy["command"]


def test_14b_on_g2_standard_4_is_refused_for_its_host_memory(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = answer(capsys, "coder-agent", "--machine", "g2-standard-4")
    assert code == 2
    assert "host memory" in found["reason"]
    assert found["remedies"] == [{"what": "a g2-standard-8", "command": "ops fit coder-agent --machine g2-standard-8"}]
    assert answer(capsys, "coder-chat", "--machine", "g2-standard-4")[0] == 0


def test_text_shows_a_bar_of_every_part_and_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("coder-agent") == 0
    out = capsys.readouterr().out
    assert out.startswith("coder-agent on L4: fits")
    bar = out[out.index("[") + 1 : out.index("]")]
    assert set(bar) == set("WNAGK.")
    assert len(bar) == 60


def test_a_refusal_in_text_names_the_nearest_command(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    assert run("--config", config) == 2
    out = capsys.readouterr().out
    assert "does not fit" in out
    assert "lacking" in out
    assert f"ops fit --config {config} --tensor-parallel" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("coder-agnt",), "remedy: ops fit coder-agent\n"),
        (("",), "no model '' in the catalog"),
        (("x" * 5000,), "known: qwen-local, coder-chat"),
        (("/nowhere/config.json",), "remedy: ops fit --config /nowhere/config.json\n"),
        (("/", "--gpu", "t4"), "remedy: ops fit --config / --gpu t4\n"),
        (("zzzzzzzz",), "known: qwen-local, coder-chat"),
        (("claude-haiku",), "runs at its provider"),
        ((), "one model is to be named"),
        (("--config", "/nowhere/config.json"), "/nowhere/config.json"),
        (("coder-chat", "--max-model-len", "99999"), "--max-model-len 32768"),
        (("coder-chat", "--tensor-parallel", "3"), "--tensor-parallel 1   # or 2 or 4"),
        (("coder-chat", "--utilization", "1.5"), "utilization 1.5"),
        (("coder-chat", "--vllm", "latest"), "no vLLM version"),
        (("coder-chat", "--machine", "e2-standard-4"), "has 0 GPUs"),
        (("coder-chat", "--gpu", "h100", "--machine", "g2-standard-4"), "no such GPU"),
        (("coder-chat", "--cpu"), "--weights-bytes"),
    ],
)
def test_bad_input_is_a_fact_and_a_remedy_on_stderr_and_exit_2(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert run(*words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.startswith("refused: ")
    assert captured.err.count("\n") == captured.err.count("  remedy: ") + 1 == 2


@pytest.mark.parametrize("limits", ["{}", "1", '{"video": -1}', '{"video": true}', '{"film": 0}', "{", "[" * 10_000])
def test_limits_of_a_prompt_that_vllm_would_not_take_are_refused(
    capsys: pytest.CaptureFixture[str], limits: str
) -> None:
    with pytest.raises(SystemExit):
        run("coder-chat", "--limit-mm-per-prompt", limits)
    assert """{"video": 0}""" in capsys.readouterr().err


def test_a_video_that_takes_the_cache_is_offered_to_be_left_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(CONFIGS["Qwen2.5-VL-7B"]), encoding="utf-8")
    _, found = answer(capsys, "--config", file, "--gpu", "a100-40gb")
    remedy = next(r for r in found["remedies"] if "--limit-mm-per-prompt" in r["command"])
    assert answer(capsys, *shlex.split(remedy["command"])[2:])[0] == 0


def test_neither_images_nor_videos_leave_the_encoder_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(CONFIGS["Qwen2.5-VL-7B"]), encoding="utf-8")
    limits = ("--limit-mm-per-prompt", '{"image": 0, "video": 0}')
    _, without = answer(capsys, "--config", file, "--gpu", "l40s", *limits)
    _, text = answer(capsys, "--config", file, "--gpu", "l40s", "--language-model-only")
    assert without["kv_cache_gib"] == text["kv_cache_gib"]


_LLAMA: dict[str, object] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
    "max_position_embeddings": 8192,
}
_GEMMA: dict[str, object] = {
    "model_type": "gemma3_text",
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "num_hidden_layers": 26,
}
_STORED = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
_PACKED = {"config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 128}}}}
_MODELOPT = {"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}}


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (_LLAMA, ("--gpu", "v100-32gb")),
        (_GEMMA, ("--gpu", "t4")),
        (_LLAMA, ("--tensor-parallel", "3")),
        (_LLAMA, ("--max-num-seqs", "5000")),
        (_LLAMA, ("--max-model-len", "9000")),
        (_LLAMA, ("--speculative-method", "mtp")),
        (_LLAMA, ("--utilization", "1.5")),
        (_LLAMA | {"quantization_config": _STORED | _PACKED}, ("--gpu", "v100-32gb", "--dtype", "float16")),
        (_LLAMA | _MODELOPT, ("--gpu", "a10g")),
        (CONFIGS["gemma-4-31B"], ("--gpu", "h100", "--max-num-batched-tokens", "1024")),
        (CONFIGS["gemma-4-31B"], ("--gpu", "a100-80gb", "--vllm", "0.21.0")),
    ],
)
def test_a_refusal_of_flags_gives_the_command_that_is_not_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: dict[str, object], words: tuple[str, ...]
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(model), encoding="utf-8")
    assert run("--config", file, *words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("refused: ")
    remedy = captured.err.partition("remedy: ")[2].partition("   #")[0]
    run(*shlex.split(remedy)[2:])
    assert " on " in capsys.readouterr().out.splitlines()[0]  # judged: whether it fits is another question


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 100_000, id="lists"),
        pytest.param('{"text_config":' * 100_000, id="objects"),
        *(
            pytest.param('{"text_config":' * depth + json.dumps(QWEN_32B) + "}" * depth, id=f"{depth} text_configs")
            for depth in range(sys.getrecursionlimit() - 120, sys.getrecursionlimit(), 2)
        ),
    ],
)
def test_a_config_that_nests_deep_is_no_traceback(capsys: pytest.CaptureFixture[str], config: Path, text: str) -> None:
    config.write_text(text, encoding="utf-8")
    assert run("--config", config) == 2
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize("value", [10**12 + 1, 10**400])
@pytest.mark.parametrize("key", [key for key, value in QWEN_32B.items() if type(value) is int])
def test_a_count_beyond_any_model_is_refused_by_name_in_a_short_line(
    capsys: pytest.CaptureFixture[str], config: Path, key: str, value: int
) -> None:
    config.write_text(json.dumps(QWEN_32B | {key: value}), encoding="utf-8")
    assert run("--config", config) == 2
    told = capsys.readouterr().err
    assert f"has {key} = 1000" in told
    assert "no model has more than 1,000" in told
    assert max(map(len, told.splitlines())) < 200


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "gemma3_text", "cohere2", "qwen3_next", "deepseek_v2", "bert"])
def test_more_layers_than_any_model_has_are_refused_before_lists_are_made_of_them(
    capsys: pytest.CaptureFixture[str], config: Path, family: str
) -> None:
    config.write_text(json.dumps(QWEN_32B | {"model_type": family, "num_hidden_layers": 2**31}), encoding="utf-8")
    assert run("--config", config) == 2
    assert "has num_hidden_layers = 2147483648, and no model has more than 1,000" in capsys.readouterr().err


@pytest.mark.parametrize("factor", [10**400, 1e300, float("inf"), float("nan")])
def test_a_scaling_beyond_any_model_is_refused(capsys: pytest.CaptureFixture[str], config: Path, factor: float) -> None:
    scaling = {"rope_scaling": {"type": "linear", "factor": factor}}
    config.write_text(json.dumps(QWEN_32B | scaling), encoding="utf-8")
    assert run("--config", config) == 2
    assert "config.json scales 32768 positions by" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flag", ["--weights-bytes", "--max-model-len", "--max-num-seqs", "--max-num-batched-tokens", "--tensor-parallel"]
)
@pytest.mark.parametrize("alias", ["coder-chat", "embeddings"])
def test_a_number_beyond_any_machine_is_refused_and_the_largest_one_is_no_traceback(
    capsys: pytest.CaptureFixture[str], alias: str, flag: str
) -> None:
    with pytest.raises(SystemExit) as refused:
        run(alias, flag, 10**400)
    assert refused.value.code == 2
    assert f"argument {flag}" in (told := capsys.readouterr().err)
    assert "is more than 1,000,000,000,000,000" in told
    assert run(alias, flag, 10**15) in (0, 2)


@pytest.mark.parametrize("words", [("coder-chat",), ("embeddings",), ("--config",)])
def test_a_size_that_no_files_have_is_refused(
    capsys: pytest.CaptureFixture[str], config: Path, words: tuple[str, ...]
) -> None:
    given = (*words, config) if words == ("--config",) else words
    assert run(*given, "--weights-bytes", 6) == 2  # GB, by mistake
    assert "nobody stores them in so few" in " ".join((told := capsys.readouterr().err).split())
    assert "--weights-bytes N   # in bytes" in told
    assert "--weights-bytes 6 " not in told.partition("remedy")[2]


def test_a_rank_of_adapters_that_vllm_does_not_take_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("coder-chat", "--max-loras", 1, "--max-lora-rank", 7)
    assert "argument --max-lora-rank" in capsys.readouterr().err
    assert run("coder-chat", "--max-loras", 1, "--max-lora-rank", 8) == 0


def test_an_unknown_encoder_of_images_is_left_out_or_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "some_vl", "text_config": QWEN_32B}), encoding="utf-8")
    assert run("--config", file) == 2
    told = capsys.readouterr().err
    assert "some_vl" in told
    assert f"ops fit --config {file} --language-model-only" in told
    _, found = answer(capsys, "--config", file, "--language-model-only")
    assert "--language-model-only" in found["notes"][0]


def test_a_gguf_file_on_cpu_needs_its_file_its_cache_and_a_buffer(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    config.write_text(json.dumps(QWEN_32B | {"intermediate_size": 2048}), encoding="utf-8")
    words = ("--config", config, "--cpu", "--weights-bytes", 2 * 2**30, "--max-model-len", 4096)
    code, found = answer(capsys, *words)
    assert code == 0
    assert found["host_ram_gib"] > found["weights_gib"] + found["kv_cache_gib"] == 3
    assert answer(capsys, *words, "--machine", "e2-standard-2")[0] == 0
    code, found = answer(capsys, *words[:-1], 32_768, "--machine", "e2-standard-2")
    assert code == 2
    assert answer(capsys, *shlex.split(found["remedies"][0]["command"])[2:])[0] == 0


def test_a_gguf_file_on_cpu_has_the_positions_of_its_model(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    words = ("--config", config, "--cpu", "--weights-bytes", 20 * 2**30, "--max-model-len")
    assert run(*words, 32_769) == 2
    (remedy,) = (line for line in capsys.readouterr().err.splitlines() if "remedy" in line)
    assert answer(capsys, *shlex.split(remedy)[3:])[0] == 0


def test_neither_pulumi_nor_the_catalog_is_imported_for_a_config(config: Path) -> None:
    program = (
        f"import sys; from ops.cli import main; main(['fit', '--config', {str(config)!r}]);"
        "sys.exit(sorted(m for m in sys.modules if m.split('.')[0] in ('pulumi', 'rich', 'yaml'))"
        " + (['models.catalog'] if 'models.catalog' in sys.modules else []) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- refusals by name, and their advice followed ------------------------------------------------------------------


def follow(capsys: pytest.CaptureFixture[str], *words: object, most: int = 3) -> tuple[int, list[str]]:
    """Type a command, then what each refusal says to type, at most so often; the last code and all that was told."""
    told: list[str] = []
    code = run(*words)
    for _ in range(most):
        captured = capsys.readouterr()
        told.append(captured.out + captured.err)
        remedy = next((line for line in captured.err.splitlines() if "ops fit" in line), None)
        if code == 0 or remedy is None:
            break
        code = run(*shlex.split(remedy[remedy.index("ops fit") :].split("   #")[0])[2:])
    return code, told


@pytest.mark.parametrize("method", ["hqq", "torchao", "modelopt", "quark", "something", ""])
def test_the_advice_for_an_unknown_quantisation_leads_to_an_answer(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, method: str
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(QWEN_32B | {"quantization_config": {"quant_method": method}}), encoding="utf-8")
    code, told = follow(capsys, "--config", file, "--max-model-len", 8192, "--gpu", "l40s")
    assert f"quantisation '{method or 'unnamed'}'" in told[0]
    assert code == 0


@pytest.mark.parametrize(
    "quantized",
    [
        {"quant_method": "gguf"},
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"quant_method": "modelopt", "quant_algo": "NVFP4"},
        {"quant_method": "mxfp4"},
        {"quant_method": "compressed-tensors", "format": "pack-quantized"},
    ],
    ids=str,
)
def test_quantisations_that_people_use_are_judged_with_the_size_of_their_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, quantized: dict[str, Any]
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(QWEN_32B | {"quantization_config": quantized}), encoding="utf-8")
    code, found = answer(
        capsys, "--config", file, "--max-model-len", 8192, "--gpu", "l40s", "--weights-bytes", 20 * 10**9
    )
    assert (code, found["fits"]) == (0, True)
    assert 18 < found["weights_gib"] < 20


@pytest.mark.parametrize("nested", ["text_config", "llm_config", "language_config", "thinker_config"])
def test_the_advice_for_an_unknown_encoder_leads_to_an_answer_without_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, nested: str
) -> None:
    file = tmp_path / "config.json"
    inner = QWEN_32B | {"num_hidden_layers": 8}
    file.write_text(json.dumps({"model_type": "some_vl", nested: inner, "vision_config": {"depth": 2}}), "utf-8")
    code, told = follow(capsys, "--config", file, "--max-model-len", 8192)
    assert "some_vl" in told[0]
    assert nested in told[0]
    assert code == 0
    assert "--language-model-only" in told[-1]


_OWN_CACHE = {
    "gemma3n": {"num_kv_shared_layers": 15, "intermediate_size": [16_384] * 35},
    "llama4": {"attention_chunk_size": 8192},
    "mllama": {"cross_attention_layers": [3, 8]},
}


@pytest.mark.parametrize(
    ("family", "senses"),
    [
        ("dots_ocr", "vision_config"),
        ("minicpmv", "vision_config"),
        ("phi4mm", "audio_processor"),
        ("deepseek_vl_v2", "vision_config"),
    ],
)
def test_the_advice_for_an_unknown_encoder_before_an_unknown_model_is_one_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, family: str, senses: str
) -> None:
    file = tmp_path / "config.json"
    inner = QWEN_32B | {"model_type": family, "num_hidden_layers": 8, senses: {"depth": 2}}
    file.write_text(json.dumps(inner), encoding="utf-8")
    code, told = follow(capsys, "--config", file, "--max-model-len", 8192)
    assert (code, len(told)) == (0, 2)
    assert f"model_type '{family}'" in told[0]
    assert "--language-model-only" in told[-1]


@pytest.mark.parametrize("family", _OWN_CACHE)
def test_an_encoder_before_a_cache_that_nobody_knows_is_no_advice_to_leave_the_encoder_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, family: str
) -> None:
    file = tmp_path / "config.json"
    text = QWEN_32B | {"model_type": f"{family}_text"} | _OWN_CACHE[family]
    file.write_text(json.dumps({"model_type": family, "text_config": text, "vision_config": {"depth": 2}}), "utf-8")
    assert run("--config", file) == 2
    told = capsys.readouterr().err
    assert "--language-model-only" not in told
    assert "vllm serve MODEL" in told
    assert run("--config", file, "--language-model-only") == 2
    assert told == capsys.readouterr().err  # what the advice would have led to


def test_the_advice_for_an_unknown_family_leads_to_an_answer(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(QWEN_32B | {"model_type": "never_heard_of", "num_hidden_layers": 8}), "utf-8")
    code, told = follow(capsys, "--config", file, "--max-model-len", 8192)
    assert "'never_heard_of'" in told[0]
    assert code == 0
    assert "on your word" in told[-1]


@pytest.mark.parametrize("gpu", ["t4", "v100-32gb"])
def test_bfloat16_on_an_old_card_is_refused_and_float16_is_the_way_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, gpu: str
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(QWEN_32B | {"num_hidden_layers": 4}), encoding="utf-8")
    words = ("--config", file, "--gpu", gpu, "--max-model-len", 4096, "--max-num-seqs", 32)
    assert run(*words) == 2
    assert "compute capability 8.0" in (told := capsys.readouterr().err)
    assert "--dtype float16" in told
    assert answer(capsys, *words, "--dtype", "float16")[0] == 0


@pytest.mark.parametrize("gpu", [("--gpu", "t4"), ("--gpu", "l4"), ("--gpu-memory-gib", "24")])
def test_float16_of_a_family_that_overflows_in_it_is_refused_and_the_remedy_is_not(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, gpu: tuple[str, str]
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(CONFIGS["gemma-3-1b"]), encoding="utf-8")
    code, told = follow(capsys, "--config", file, *gpu, "--dtype", "float16")
    assert "overflows in float16" in told[0]
    assert code == 0


@pytest.mark.parametrize(
    "quantized",
    [
        {"quant_method": "compressed-tensors", "config_groups": {"0": {"weights": {"num_bits": 8, "type": "float"}}}}
        | {"kv_cache_scheme": {"num_bits": 8, "type": "float"}},
        {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"},
    ],
)
def test_a_cache_is_in_8_bits_where_the_files_say_so_and_no_flag_else(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, quantized: dict[str, Any]
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(QWEN_32B | {"num_hidden_layers": 8, "quantization_config": quantized}), "utf-8")

    def tokens(*words: object) -> int:
        return answer(capsys, "--config", file, *words)[1]["kv_cache_tokens"]

    assert tokens() == tokens("--kv-cache-dtype", "auto") == tokens("--kv-cache-dtype", "fp8")
    assert 1.9 < tokens() / tokens("--kv-cache-dtype", "bfloat16") < 2.1
    assert tokens("--vllm", "0.13.0") == tokens("--vllm", "0.13.0", "--kv-cache-dtype", "bfloat16")
    assert any("8 bits" in note for note in answer(capsys, "--config", file)[1]["notes"])


@pytest.mark.parametrize("gguf", [False, True])
@pytest.mark.parametrize(
    "flag", [("--tensor-parallel", "2"), ("--kv-cache-dtype", "fp8"), ("--eager",), ("--no-enable-prefix-caching",)]
)
def test_a_flag_of_vllm_for_what_runs_on_cpu_is_refused_and_the_command_without_it_answers(
    capsys: pytest.CaptureFixture[str], config: Path, gguf: bool, flag: tuple[str, ...]
) -> None:
    words = ("--config", config, "--cpu", "--weights-bytes", 20_000_000_000) if gguf else ("embeddings",)
    code, told = follow(capsys, *words, *flag)
    assert flag[0] in told[0]
    assert code == 0


def test_no_speed_is_told_of_speech(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(CONFIGS["whisper-large-v3"]), encoding="utf-8")
    assert answer(capsys, "--config", file)[1]["speed"] is None


@pytest.mark.parametrize("gpu", [("--gpu", "l4"), ("--gpu-memory-gib", "24")])
def test_a_gpu_for_an_encoder_is_refused_and_the_command_without_it_answers(
    capsys: pytest.CaptureFixture[str], gpu: tuple[str, str]
) -> None:
    assert run("embeddings", *gpu) == 2
    told = capsys.readouterr().err
    assert gpu[0] in told
    assert follow(capsys, "embeddings", *gpu)[0] == 0


def test_a_start_that_dies_behind_its_budget_is_told_the_flag_that_helps_most(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    qwen_7b = QWEN_32B | {
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
    }
    file = tmp_path / "config.json"
    file.write_text(json.dumps(qwen_7b), encoding="utf-8")
    words = ("--config", file, "--gpu", "a10g", "--vllm", "0.22.0", "--utilization", 0.95, "--max-num-seqs", 1000)
    words += ("--max-num-batched-tokens", 2048)
    code, found = answer(capsys, *words)
    assert code == 2
    assert "after its KV cache is allocated" in found["reason"]
    assert found["startup_needed_gib"] > found["startup_left_gib"]
    assert "--max-num-seqs" in found["remedies"][0]["command"]
    for remedy in found["remedies"]:
        assert answer(capsys, *shlex.split(remedy["command"])[2:])[0] == 0, remedy


def test_flags_of_the_cache_of_adapters_and_of_guesses_change_the_answer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = answer(capsys, "coder-chat")[1]
    fp8 = answer(capsys, "coder-chat", "--kv-cache-dtype", "fp8")[1]
    assert fp8["kv_cache_tokens"] > 1.9 * plain["kv_cache_tokens"]
    assert answer(capsys, "coder-chat", "--max-loras", 4)[1]["weights_gib"] > plain["weights_gib"]
    guessed = answer(capsys, "coder-chat", "--speculative-method", "ngram", "--num-speculative-tokens", 4)[1]
    assert guessed["cuda_graph_gib"] > plain["cuda_graph_gib"]
    assert run("coder-chat", "--num-speculative-tokens", 4) == 2
    assert "--speculative-method ngram" in capsys.readouterr().err
    assert run("coder-chat", "--speculative-method", "draft") == 2
    assert "--draft-config FILE" in capsys.readouterr().err


# --- GGUF ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def gguf_entry(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(cast("dict[str, ModelSpec]", CATALOG), SPEC.alias, SPEC)
    return SPEC.alias


def test_a_gguf_entry_is_judged_at_each_of_its_levels_and_refused_at_another_with_those(
    capsys: pytest.CaptureFixture[str], gguf_entry: str
) -> None:
    engine = LlamaCppEngine.of(SPEC)
    for file in engine.files:
        _, found = answer(capsys, gguf_entry, "--quantization", file.quantization)
        assert found["weights_gib"] == round(file.bytes_on_disk / GIB, 2)
    assert run(gguf_entry, "--quantization", "Q3_K_S") == 2
    told = capsys.readouterr().err
    assert all(file.quantization in told for file in engine.files)
    assert f"ops fit {gguf_entry} --quantization {engine.files[0].quantization}" in told


@pytest.mark.parametrize("words", [("coder-chat", "--quantization", "Q8_0"), ("coder-chat", "--quantization", "aqw")])
def test_a_quantization_that_is_none_is_refused_with_a_command(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert run(*words) == 2
    told = capsys.readouterr().err
    assert "remedy: ops fit coder-chat" in " ".join(told.split())
    assert "Traceback" not in told


@pytest.mark.parametrize("flag", [(), ("--config",)])
def test_a_gguf_file_is_called_one_and_its_remedy_is_judged(
    capsys: pytest.CaptureFixture[str],
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    flag: tuple[str, ...],
) -> None:
    monkeypatch.chdir(config.parent)
    file = Path("folder/model-Q4_K_M.gguf")
    file.parent.mkdir()
    with file.open("wb") as stored:
        stored.write(b"GGUF")
        stored.truncate(20_000_000_000)  # of no blocks on disk
    for path in (file, file.parent):
        assert run(*flag, path) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert "is a GGUF file, which llama.cpp serves on CPU" in told
        command = told.partition("remedy: ")[2].partition("   #")[0].partition(" #")[0]
        assert "--cpu" in command
        assert main(shlex.split(command)[1:]) == 0
        capsys.readouterr()


def test_a_draft_of_a_family_that_nobody_knows_is_refused_with_a_way_to_guess_without_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    draft = tmp_path / "draft.json"
    draft.write_text(json.dumps({"model_type": "llava_next", "text_config": QWEN_32B, "vision_config": {}}))
    assert run("coder-chat", "--draft-config", draft) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "--draft-config" in told
    command = told.partition("remedy: ")[2]
    assert "--language-model-only" not in command
    assert main(shlex.split(command)[1:]) == 0


@pytest.mark.parametrize("flag", [("--gpu", "t4"), ("--tensor-parallel", "4"), ("--eager",), ("--max-loras", "2")])
def test_what_is_said_of_a_gpu_is_refused_for_what_runs_on_cpu(
    capsys: pytest.CaptureFixture[str], gguf_entry: str, flag: tuple[str, ...]
) -> None:
    for alias in (gguf_entry, "embeddings"):
        assert run(alias, *flag) == 2
        assert f"{flag[0]} has no effect" in capsys.readouterr().err
        assert follow(capsys, alias, *flag)[0] == 0
