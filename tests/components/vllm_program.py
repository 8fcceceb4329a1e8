"""Runs in the interpreter of `vllm_library`: vLLM's own parsers and templates over what a test asks, a line an answer.

Real are vLLM's request types, its base class of tool parsers, its manager of plugins, and what its server calls for a
whole answer and for each piece of a stream. What computes on a GPU is not there: names without anything behind them.
"""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import sys
import types
from typing import Any

_ABSENT = {"torch", "triton", "uvloop", "gguf", "mistral_common", "openai_harmony", "xgrammar"}


class _Anything(type):
    """A class that is whatever a module makes of it while it loads: a base, a decorator, a number, part of a union."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _anything(name)

    def __call__(cls, *args: Any, **named: Any) -> Any:
        if cls.__dict__.get("_absent") is not True:
            return super().__call__(*args, **named)
        decorates = len(args) == 1 and not named and isinstance(args[0], types.FunctionType)
        return args[0] if decorates else cls

    def __itself(cls, *_: Any) -> Any:
        return cls

    __or__ = __ror__ = __getitem__ = __enter__ = __add__ = __sub__ = __mul__ = __truediv__ = __itself
    __radd__ = __rsub__ = __rmul__ = __neg__ = __itself

    def __zero(cls, *_: Any) -> int:
        return 0

    __int__ = __index__ = __len__ = __zero

    def __no(cls, *_: Any) -> bool:
        return False

    __bool__ = __lt__ = __gt__ = __le__ = __ge__ = __exit__ = __contains__ = __instancecheck__ = __no

    def __iter__(cls) -> Any:
        return iter(())


def _anything(name: str) -> Any:
    def schema(*_: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.any_schema()

    def present(cls: Any, **_: Any) -> None:
        cls._absent = False

    body = {
        "_absent": True,
        "__init_subclass__": classmethod(present),
        "__get_pydantic_core_schema__": staticmethod(schema),
    }
    return _Anything(name, (), body)


class _Absent(types.ModuleType):
    __version__ = "2.11.0"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = _anything(name)
        setattr(self, name, found)
        return found


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        root = fullname.split(".", maxsplit=1)[0]
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if root in _ABSENT else None

    def create_module(self, spec: Any) -> Any:
        return _Absent(spec.name)

    def exec_module(self, module: Any) -> None:
        module.__path__ = []


class _Tokenizer:
    """All that a parser asks of Qwen's tokenizer, and Mistral's; a piece of a stream is a token here."""

    eos_token_id = 151_645  # <|im_end|>

    def get_vocab(self) -> dict[str, int]:
        return {"<tool_call>": 151_657, "</tool_call>": 151_658, "[TOOL_CALLS]": 9, "[ARGS]": 32}


def _asked(asked: dict[str, Any]) -> dict[str, Any]:
    """The answer of the server, made of what a model wrote: `pieces`, the last with the end of the answer."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.parser.parser_manager import ParserManager

    request = ChatCompletionRequest.model_validate(asked["request"])
    made = ParserManager.get_parser(
        tool_parser_name=asked["parser"], enable_auto_tools=True, model_name="m", reasoning_parser_name=""
    )
    parser, pieces = made(_Tokenizer(), request.tools), asked["pieces"]
    if not asked["stream"]:
        _, content, calls = parser.parse("".join(pieces), request, enable_auto_tools=True)
        return {"content": content, "calls": [[c.name, c.arguments] for c in calls or []]}
    content, calls = "", dict[int, list[str]]()
    for at, piece in enumerate(pieces):
        ends = at == len(pieces) - 1 and asked["ends"]
        ids = [7, _Tokenizer.eos_token_id] if ends else [7]
        delta = parser.parse_delta(piece, ids, request, [1], finished=at == len(pieces) - 1)
        if delta is None:
            continue
        content += delta.content or ""
        for call in delta.tool_calls:
            known = calls.setdefault(call.index, ["", ""])
            known[0] += call.function.name or ""
            known[1] += call.function.arguments or ""
    return {"content": content or None, "calls": [calls[index] for index in sorted(calls)]}


def _rendered(asked: dict[str, Any]) -> dict[str, Any]:
    """A conversation as the model reads it, by the function that vLLM's tokenizers call."""
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, _ = render_jinja_template(
        conversations=[asked["messages"]], tools=asked["tools"], chat_template=asked["template"],
        add_generation_prompt=True,
    )  # fmt: skip
    return {"text": texts[0]}


def main(source: str, plugin: str) -> None:
    out, sys.stdout = sys.stdout, sys.stderr
    sys.meta_path.insert(0, _Finder())
    sys.path.insert(0, source)
    from vllm.tool_parsers.abstract_tool_parser import ToolParserManager

    ToolParserManager.import_tool_parser(plugin)
    for line in sys.stdin:
        asked = json.loads(line)
        out.write(json.dumps(_rendered(asked) if "template" in asked else _asked(asked)) + "\n")
        out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
