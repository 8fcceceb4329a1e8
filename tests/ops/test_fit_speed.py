"""What `ops fit` says of speed, and how it reads what GKE Inference Quickstart measured."""

from __future__ import annotations

import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from models.facts import Evidence, Load, Source, Throughput
from models.prices import list_prices
from ops.cli import main
from tests.ops.typed import remedies

# As gcloud's table printer has them; the figures of an H100 are those of Google's page.
TABLE = """\
Instance Type   Accelerator       Cost/M Input Tokens  Output Tokens/s  NTPOT(ms)  TTFT(ms)  Model Server  Model
a3-highgpu-1g   nvidia-h100-80gb  0.009                13335            67         297       vllm          org/model
g2-standard-12  nvidia-l4         0.09                 780              95         397       vllm          org/model
g2-standard-24  nvidia-l4         0.09                 1500             95         397       vllm          org/model
g2-standard-16  nvidia-l4         0.09                 820              91         380       vllm          org/model
"""
CSV = "instance_type,accelerator,output_tokens/s,ntpot(ms)\ng2-standard-8,nvidia-l4,900.5,50\n"


def run(*words: object) -> int:
    return main(["fit", *map(str, words)])


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert run(*words, "--format", "json") in (0, 2)
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert run(*words) == 2
    return capsys.readouterr().err


def follow(capsys: pytest.CaptureFixture[str], told: str) -> int:
    """Type the one remedy."""
    (remedy,) = remedies(told)
    words = shlex.split(remedy)
    assert words.pop(0) == "ops"
    code = main(words)
    capsys.readouterr()
    return code


# --- computed ------------------------------------------------------------------------------------------------


def test_one_stream_the_knee_and_a_full_batch_are_told_with_the_price_at_the_knee(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = answer(capsys, "coder-chat", "--machine", "g2-standard-8")["speed"]
    one, knee, full = (found[key] for key in ("one_stream", "knee", "full"))
    assert (one["streams"], full["streams"]) == (1, 64)
    assert 1 < knee["streams"] < 64
    assert one["total_tokens_per_second"] < knee["total_tokens_per_second"] < full["total_tokens_per_second"]
    assert one["stream_tokens_per_second"] > knee["stream_tokens_per_second"] > full["stream_tokens_per_second"]
    price = list_prices().find("g2-standard-8", "us-central1")
    assert price
    by_hand = price.usd / 3600 / knee["total_tokens_per_second"] * 1e6
    assert found["usd_per_mtok_at_knee"] == pytest.approx(by_hand, abs=1e-3)
    run("coder-chat", "--machine", "g2-standard-8")
    shown = " ".join(capsys.readouterr().out.split())
    assert "speed of 1,024 + 128 tokens, computed: one stream" in shown
    assert f"a million tokens at the knee, read and written: ${found['usd_per_mtok_at_knee']:.3f}" in shown


def test_the_first_token_waits_for_the_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    def first_ms(*words: object) -> float:
        return answer(capsys, "coder-chat", *words)["speed"]["one_stream"]["first_token_ms"]

    assert 8 < first_ms("--prompt-tokens", 8192) / first_ms("--prompt-tokens", 1024) < 10


def test_a_context_below_the_usual_request_shrinks_it(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "coder-chat", "--max-model-len", 576)["speed"]
    assert (found["prompt_tokens"], found["output_tokens"]) == (512, 64)


@pytest.mark.parametrize(
    "words",
    [
        ("--prompt-tokens", 16_384),
        ("--prompt-tokens", 16_000, "--output-tokens", 500),
        ("--output-tokens", 16_385),
        ("--prompt-tokens", 1, "--output-tokens", 16_384),
    ],
)
def test_a_request_longer_than_the_context_is_refused_and_the_remedy_works(
    capsys: pytest.CaptureFixture[str], words: tuple[object, ...]
) -> None:
    told = refusal(capsys, "coder-chat", *words)
    assert "more than the context of 16,384" in told
    assert follow(capsys, told) == 0


def test_a_request_that_fills_the_context_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "coder-chat", "--prompt-tokens", 16_000, "--output-tokens", 384)["speed"]
    assert found["prompt_tokens"] + found["output_tokens"] == 16_384


def test_a_gpu_without_a_published_run_has_no_speed_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "coder-chat", "--gpu", "rtx4090")["speed"] is None
    assert answer(capsys, "coder-chat", "--gpu-memory-gib", 22.03)["speed"] is None
    run("coder-chat", "--gpu", "rtx4090")
    assert "speed: not known on this GPU; published runs were found of L4 and A10G only" in capsys.readouterr().out


def test_another_gpu_with_one_has_a_speed_and_no_price(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "coder-chat", "--gpu", "a10g")["speed"]
    assert found["one_stream"]["stream_tokens_per_second"] > 80
    assert found["usd_per_mtok_at_knee"] is None


@pytest.mark.parametrize(
    ("words", "without"),
    [
        (("--eager",), "CUDA graphs"),
        (("--speculative-method", "ngram"), "knowing how many guesses are right"),
    ],
)
def test_what_no_run_was_judged_with_has_no_speed(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], without: str
) -> None:
    assert answer(capsys, "coder-chat", *words)["speed"] is None
    run("coder-chat", *words)
    assert f"speed: not told without {without}" in capsys.readouterr().out


def test_what_does_not_fit_has_no_speed_and_its_remedies_leave_requests_out_that_would_not_fit_either(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = answer(capsys, "coder-agent", "--utilization", 0.6, "--prompt-tokens", 12_000)
    assert (found["fits"], found["speed"]) == (False, None)
    (shorter,) = [change["command"] for change in found["remedies"] if "--max-model-len" in change["command"]]
    assert main(shlex.split(shorter)[1:]) == 0
    capsys.readouterr()


@pytest.mark.parametrize("words", [("--prompt-tokens", 5), ("--output-tokens", 5), ("--profiles", "x")])
def test_flags_of_speed_are_refused_where_no_gpu_serves(
    capsys: pytest.CaptureFixture[str], words: tuple[object, ...]
) -> None:
    told = refusal(capsys, "embeddings", *words)
    assert f"{words[0]}: speed is computed of models on a GPU" in told
    assert follow(capsys, told) == 0


# --- of the entry --------------------------------------------------------------------------------------------


def test_an_entry_on_cpu_tells_what_is_assumed_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "embeddings")["throughput"]
    assert (found["evidence"], found["load"]) == ("assumed", "512 tokens")
    run("embeddings")
    assert "throughput of the entry: 8 tokens/s (assumed; 512 tokens)" in capsys.readouterr().out


def test_an_entry_on_a_gpu_tells_what_was_measured_of_it_and_nothing_where_nobody_did(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answer(capsys, "coder-chat")["throughput"] is None
    measured = Throughput(
        tokens_per_second=1234,
        at=Load(prompt_tokens=300, output_tokens=100, streams=8),
        source=Source(facts="throughput", where="a bench", evidence=Evidence.VERIFIED),
    )
    import models.catalog

    spec = models.catalog.CATALOG["coder-chat"].model_copy(update={"throughput": measured})
    monkeypatch.setattr(models.catalog, "CATALOG", {"coder-chat": spec})
    found = answer(capsys, "coder-chat")
    assert found["throughput"]["where"] == "a bench"
    run("coder-chat")
    assert "1,234 tokens/s (verified; 300 + 100 tokens, 8 at once)" in capsys.readouterr().out


# --- GKE Inference Quickstart --------------------------------------------------------------------------------


def test_rows_of_machines_with_as_many_gpus_are_told_the_fastest_first(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "profiles.txt"
    file.write_text(TABLE)
    found = answer(capsys, "coder-chat", "--profiles", file)["profiles"]
    assert [(p["machine"], p["written_per_s"]) for p in found] == [("g2-standard-16", 820), ("g2-standard-12", 780)]
    two = answer(capsys, "coder-chat", "--profiles", file, "--tensor-parallel", 2)["profiles"]
    assert [p["machine"] for p in two] == ["g2-standard-24"]


def test_what_is_to_be_pasted_is_an_entry_s_throughput_however_narrow_the_screen(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    file = tmp_path / "profiles.txt"
    file.write_text(TABLE.replace("org/model", 'org/a"quoted"-name'))
    run("coder-chat", "--profiles", file)
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip() == "throughput=Throughput(")
    end = next(i for i, line in enumerate(lines[start:], start) if line == "      ),")
    pasted = "\n".join(line[6:] for line in lines[start : end + 1])
    names = {"Throughput": Throughput, "Load": Load, "Source": Source, "Evidence": Evidence}
    found: Throughput = eval(f"dict({pasted})", names)["throughput"]  # noqa: S307  what a user pastes
    assert found.tokens_per_second == pytest.approx(820 * (231 + 195) / 195, abs=1)
    assert 'org/a"quoted"-name, g2-standard-16' in found.source.where


def test_an_empty_cell_moves_no_figure_to_the_next_column(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "profiles.txt"
    file.write_text(TABLE.replace("0.09 ", "     ").replace("vllm ", "     "))
    found = answer(capsys, "coder-chat", "--profiles", file)["profiles"]
    assert [(p["written_per_s"], p["first_token"], p["server"], p["model"]) for p in found] == [
        (820, "380", "", "org/model"),
        (780, "397", "", "org/model"),
    ]
    # Where the places of the columns are lost, nobody knows which cell is missing.
    file.write_text(re.sub(" {2,}", "  ", TABLE.replace("0.09 ", "     ")))
    assert "only of: a3-highgpu-1g" in " ".join(refusal(capsys, "coder-chat", "--profiles", file).split())


def test_the_csv_of_benchmarks_is_read_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(CSV))
    (found,) = answer(capsys, "coder-chat", "--profiles", "-")["profiles"]
    assert (found["machine"], found["written_per_s"], found["first_token"]) == ("g2-standard-8", 900.5, "")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has no row of column names"),
        ("# What it costs\n\nEvery plan, and more.\n", "has no row of column names"),
        (TABLE.splitlines()[0], "has no row with figures"),
        (TABLE.split("g2-", maxsplit=1)[0], "has no figures of a machine with 1 x L4, only of: a3-highgpu-1g"),
        (CSV.replace("900.5", "None"), "no row with figures"),
        (CSV.replace("900.5", "-1"), "no row with figures"),
        ('"', "has no row of column names"),
    ],
)
def test_anything_else_is_refused_with_the_command_that_makes_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, told: str
) -> None:
    file = tmp_path / "profiles.txt"
    file.write_text(text)
    printed = " ".join(refusal(capsys, "coder-chat", "--profiles", file).split())
    assert told in printed
    again = "ops fit coder-chat" if "only of" in told else "gcloud container ai profiles list"
    assert again in printed.partition("remedy:")[2]


def test_rows_of_more_gpus_alone_are_refused_with_the_command_that_asks_of_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "profiles.txt"
    file.write_text("\n".join(line for line in TABLE.splitlines() if "g2-" not in line or "g2-standard-24" in line))
    printed = refusal(capsys, "coder-chat", "--profiles", file)
    assert "--tensor-parallel 2" in printed
    assert follow(capsys, printed) == 0


def test_a_file_that_is_not_there_or_no_text_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "cannot be read" in refusal(capsys, "coder-chat", "--profiles", tmp_path / "none")
    assert "cannot be read" in refusal(capsys, "coder-chat", "--profiles", tmp_path)
    file = tmp_path / "binary"
    file.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in refusal(capsys, "coder-chat", "--profiles", file)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("---\ninstanceType: g2-standard-12\nperformanceStats:\n- outputTokensPerSecond: 900\n", id="yaml"),
        pytest.param("- performanceStats: []\n  instanceType: g2-standard-12\n", id="yaml, a list"),
        pytest.param('[\n  {\n    "instanceType": "g2-standard-12"\n  }\n]\n', id="json"),
        pytest.param('[{"acceleratorType": "nvidia-l4", "instanceType": "g2-standard-12"}]', id="json in a line"),
        pytest.param("---\ninstanceType:            g2-standard-12\n", id="flattened"),
    ],
)
def test_another_format_of_gcloud_is_refused_with_the_one_that_is_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> None:
    file = tmp_path / "profiles.txt"
    file.write_text(text, encoding="utf-8")
    printed = " ".join(refusal(capsys, "coder-chat", "--profiles", file).split())
    assert "as gcloud's --format=yaml or json does, and a table or a CSV is read" in printed
    assert printed.endswith("> profiles.txt # without --format")
