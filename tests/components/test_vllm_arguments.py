"""Every argument that the catalog emits, against the options of vLLM's own parser.

The fixture is written by `regenerate_vllm_args.py`. argparse takes abbreviations and any tool parser, so options and
values are compared exactly here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from components.serving import vllm_model
from components.serving.vllm_model import vllm_arguments
from models.engines.vllm import VllmEngine
from models.images import VLLM
from models.spec import ModelSpec
from tests.catalog import CATALOG
from tests.checkout import CHECKOUT
from tests.support import VLLM_ALIASES

FIXTURE: dict[str, Any] = json.loads(
    (Path(__file__).parent / "fixtures" / f"vllm-{VLLM.tag.removeprefix('v')}-args.json").read_text()
)
OPTIONS: dict[str, list[str] | None] = FIXTURE["options"]
_INTEGERS = {"--port", "--max-model-len", "--max-num-seqs", "--max-num-batched-tokens", "--tensor-parallel-size"}


def mistakes(arguments: list[str]) -> list[str]:
    """Arguments that this vLLM does not have, or not with that value."""
    found: list[str] = []
    for argument in arguments:
        option, has_value, value = argument.partition("=")
        if option not in OPTIONS:
            found.append(f"{option} does not exist")
            continue
        choices = {
            "--tool-call-parser": [*FIXTURE["toolCallParsers"], *_plugged_in(arguments)],
            "--reasoning-parser": FIXTURE["reasoningParsers"],
            "--quantization": FIXTURE["quantizations"],
        }.get(option, OPTIONS[option])
        if has_value and choices is not None and value not in choices:
            found.append(f"{option} has no value {value}")
        if option in _INTEGERS and not re.fullmatch(r"[1-9]\d*", value):
            found.append(f"{option} wants a whole number, not {value}")
    return found


def _plugged_in(arguments: list[str]) -> list[str]:
    """Names that the plugin of a command line registers; that it is there is part of the answer."""
    named = [value for option, _, value in (a.partition("=") for a in arguments) if option == "--tool-parser-plugin"]
    files = [vllm_model.FILES / Path(name).name for name in named]
    return [name for file in files for name in re.findall(r'register_module\("(\w+)"', file.read_text())]


def variants(spec: ModelSpec) -> list[ModelSpec]:
    """The entry, and the entry with every switch of the engine thrown."""
    changes: list[dict[str, Any]] = [{}, {"eager": True, "prefix_caching": False, "gpus": 2}]
    return [spec.model_copy(update={"engine": spec.engine.model_copy(update=change)}) for change in changes]


@pytest.mark.parametrize("alias", VLLM_ALIASES)
def test_every_argument_of_every_entry_exists_with_a_valid_value(alias: str) -> None:
    for spec in variants(CATALOG[alias]):
        arguments = vllm_arguments(spec)
        assert mistakes(arguments) == []
        names = [a.split("=")[0] for a in arguments]
        assert len(names) == len(set(names))


def test_every_kernel_of_the_catalog_s_types_is_one_of_vllm_s() -> None:
    schema = VllmEngine.model_json_schema()["properties"]["kernel"]
    kernels = {value for choice in schema["anyOf"] for value in choice.get("enum", [])}
    assert {"awq_marlin"} <= kernels <= set(FIXTURE["quantizations"])


@pytest.mark.parametrize(
    "bad",
    [
        "--max-model",
        "--disable-log-requests",
        "--dtype=fp4",
        "--tool-call-parser=banana",
        "--quantization=awq_martin",
        "--reasoning-parser=kant",
    ],
)
def test_the_check_finds_what_argparse_would_take(bad: str) -> None:
    assert mistakes([bad])


def test_auto_tool_choice_never_comes_without_its_parser() -> None:
    for alias in VLLM_ALIASES:
        names = [a.split("=")[0] for a in vllm_arguments(CATALOG[alias])]
        assert ("--enable-auto-tool-choice" in names) == ("--tool-call-parser" in names)


def test_the_fixture_agrees_with_the_parser_on_real_torch() -> None:
    real = CHECKOUT.parent / "shared" / "probes" / "vllm-args-real.json"
    if not real.exists():
        pytest.skip("../shared/probes is not beside this checkout")
    assert json.loads(real.read_text()) == OPTIONS
    assert FIXTURE["version"] == "0.23.0"
