"""How a model writes calls of tools and what it thinks, by its family and by how it is asked.

Source: docs/features/tool_calling.md and reasoning_outputs.md of vLLM 0.23.0; tests hold the names to its parsers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_QWEN_CODER = re.compile(r"qwen2\.5-coder", re.IGNORECASE)


@dataclass(frozen=True)
class Parsers:
    """Fields of an engine, and why."""

    fields: Mapping[str, str]
    why: str


# Words of a chat template that tell how calls are written, the most telling first.
_BY_TEMPLATE = (
    ("<|channel|>", "openai"),
    ("<function=", "qwen3_coder"),
    ("[TOOL_CALLS]", "mistral"),
    ("<|python_tag|>", "llama3_json"),
    ("<arg_key>", "glm45"),
    ("<tool_call>", "hermes"),
    ("<|tool_call|>", "granite"),
)
_BY_FAMILY = {
    "gpt_oss": "openai",
    "mistral": "mistral",
    "mistral3": "mistral",
    "ministral3": "mistral",
    "seed_oss": "seed_oss",
    "gemma4": "gemma4",
    "olmo3": "olmo3",
}
_REASONING = {"openai": "openai_gptoss", "glm45": "glm45"}


def tool_parsers(model_id: str, family: str, template: str | None) -> Parsers | None:
    """The parser of calls; None where nothing says that tools are understood."""
    if _QWEN_CODER.search(model_id):
        ours = {
            "tool_call_parser": "qwen2_5_coder",
            "tool_parser_plugin": "qwen2_5_coder_tools.py",
            "chat_template": "qwen2_5_coder.jinja",
        }
        return Parsers(ours, "Qwen2.5-Coder writes calls that vLLM's parsers do not find; ours do")
    if family in _BY_FAMILY:
        return Parsers({"tool_call_parser": _BY_FAMILY[family]}, f"the family is {family}")
    if template is None or not re.search(r"\btools\b", template):
        return None
    mark = next(((words, parser) for words, parser in _BY_TEMPLATE if words in template), None)
    return mark and Parsers({"tool_call_parser": mark[1]}, f"its chat template has {mark[0]}")


def reasoning_parser(family: str, template: str | None, tools: str | None) -> str | None:
    """The parser of what a model thinks first; None where nothing says that it does."""
    if tools in _REASONING:
        return _REASONING[tools]
    if template and "<think>" in template and family.startswith("qwen3"):
        return "qwen3"
    return None
