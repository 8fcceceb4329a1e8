"""Finds the tool calls in what Qwen2.5-Coder writes: a plugin of vLLM, mounted and named by `--tool-parser-plugin`.

Qwen2.5-Coder does not keep to the form that the Hermes parser knows. The template beside this file asks for `<tools>`,
which it keeps to best (github.com/hanXen/vllm-qwen2.5-coder-tool-parser: 48 of 49 answers of the 14B); without it, or
in a long conversation, the same model fences its calls as JSON, or writes them bare. So all of these are a call:

    <tools>{"name": "read_file", "arguments": {"path": "a"}}</tools>      also <tool_call>, several, a list, left open
    ```json                                                               with any word, or none, behind the ticks
    {"name": "read_file", "arguments": {"path": "a"}}
    ```
    {"name": "read_file", "arguments": {"path": "a"}}                     at the beginning of a line

Between tags any name is a call. In a fence and bare it is one only with the name of a tool of the request: all else
that looks like JSON is the answer that somebody asked for.

Calls come whole, a stream's too: its text is held back only while it may still become one.
"""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.engine.protocol import (
    DeltaFunctionCall,
    DeltaMessage,
    DeltaToolCall,
    ExtractedToolCallInformation,
    FunctionCall,
    ToolCall,
)
from vllm.tool_parsers.abstract_tool_parser import ToolParser, ToolParserManager

# What opens a block of calls, with the spaces before it; a bare call has to begin a line.
_OPENING = re.compile(r"<tools>|<tool_call>|```\w*[ \t]*\n|^[ \t]*(?=\[?\s*\{)", re.MULTILINE)
_CLOSING = {"<tools>": "</tools>", "<tool_call>": "</tool_call>"}
_FENCE = "```"
_BARE = "\0"  # what closes a call that nothing opened: no text has it
# The beginning of a call, or of what may become one: an object whose first key is one that calls have.
_CALLING = re.compile(r'[\[\s]*(?:\{\s*(?:"(?:name|arguments|parameters|type|function|id)"|"[a-z]*$|$)|$)')
# What may still become an opening when more text comes.
_MAY_OPEN = re.compile(r"\s*(?:<(?:t(?:o(?:o(?:l(?:s|_(?:c(?:a(?:l(?:l)?)?)?)?)?)?)?)?)?|`{1,2}|```\w*[ \t]*|\[\s*)?$")
_BETWEEN = " \t\r\n,[]}"  # what stands between the calls of a block, a bracket too many included
_DECODER = json.JSONDecoder(strict=False)  # models write line breaks into strings


@dataclass(frozen=True)
class Call:
    """One call: `arguments` as JSON."""

    name: str
    arguments: str


class Scanner:
    """Tells calls from text, however the text comes in pieces. `names` are the tools of the request."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._rest = ""  # not yet decided
        self._closing: str | None = None  # what ends the block of calls that we are in
        self._line_begins = True  # where the rest does
        self._after_call = False
        self._said = False

    def feed(self, text: str, *, last: bool = False) -> list[str | Call]:
        """What `text` settles. With `last` nothing more comes, and all of it is settled."""
        self._rest += text
        found: list[str | Call] = []
        while self._rest and (self._in_block(found) if self._closing else self._in_text(found, last)):
            pass
        if last and not self._closing:
            self._take(len(self._rest.rstrip()), found)
        return found

    def _in_block(self, found: list[str | Call]) -> bool:
        """Takes what comes after a call. False: more has to come first."""
        closing = self._closing or ""
        body = self._rest.lstrip(_BETWEEN)
        if body.startswith(closing):
            self._rest, self._closing, self._line_begins = body[len(closing) :], None, False
            return True
        if closing.startswith(body):
            self._rest = body
            return False
        call = self._call_at(body, 0, named=closing in (_FENCE, _BARE))
        if isinstance(call, tuple):
            found.append(call[0])
            self._rest = body[call[1] :]
            return True
        if call is None:
            return False
        self._closing, self._line_begins = None, True
        return True

    def _in_text(self, found: list[str | Call], last: bool) -> bool:
        """Takes text, up to and with the next call. False: more has to come first."""
        text = self._rest
        for opening in _OPENING.finditer(text):
            mark = opening[0].strip()
            if not mark and opening.start() == 0 and not self._line_begins:
                continue
            call = self._call_at(text, opening.end(), named=mark not in _CLOSING)
            if call is False or (call is None and last):
                continue
            self._take(len(text[: opening.start()].rstrip()), found)
            if call is None:
                return False
            self._after_call = True
            found.append(call[0])
            self._rest, self._line_begins = text[call[1] :], False
            self._closing = _CLOSING.get(mark, _FENCE) if mark else _BARE
            return True
        held = None if last else _MAY_OPEN.search(text)
        self._take(held.start() if held else 0 if last else len(text), found)
        return False

    def _call_at(self, text: str, start: int, *, named: bool) -> tuple[Call, int] | Literal[False] | None:
        """The call that begins at `start`, and where it ends; None if it may become one, False if it never will."""
        if _CALLING.match(text, start) is None:
            return False
        at = text.find("{", start)
        if at < 0:
            return None
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None
        call = _call(value)
        return (call, end) if call is not None and (not named or call.name in self._names) else False

    def _take(self, length: int, found: list[str | Call]) -> None:
        """Text that is no call, whatever it looks like."""
        text, self._rest = self._rest[:length], self._rest[length:]
        if self._after_call:
            text = text.lstrip()
        if not text:
            return
        self._line_begins = text.endswith("\n")
        found.append("\n" + text if self._after_call and self._said else text)
        self._after_call, self._said = False, True


def _call(value: Any) -> Call | None:
    """The call that an object is."""
    if not isinstance(value, dict):
        return None
    value = value.get("function", value) if value.get("type") == "function" else value
    if not isinstance(value, dict):
        return None
    name, arguments = value.get("name"), value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):  # JSON in JSON, as the API itself has it
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return None
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    return Call(name, json.dumps(arguments, ensure_ascii=False))


def _names(request: ChatCompletionRequest) -> frozenset[str]:
    """Of the tools of a request, of either API."""
    tools = request.tools or []
    return frozenset(getattr(getattr(tool, "function", tool), "name", "") for tool in tools)


class Qwen25CoderToolParser(ToolParser):
    """The scanner behind vLLM's interface."""

    def __init__(self, tokenizer: Any, tools: Any = None) -> None:
        super().__init__(tokenizer, tools)
        self._scanner: Scanner | None = None

    def extract_tool_calls(self, model_output: str, request: ChatCompletionRequest) -> ExtractedToolCallInformation:
        """The calls of a whole answer, and what is said beside them."""
        found = Scanner(_names(request)).feed(model_output, last=True)
        calls = [ToolCall(function=_function(part)) for part in found if isinstance(part, Call)]
        if not calls:
            return ExtractedToolCallInformation(tools_called=False, tool_calls=[], content=model_output)
        said = "".join(part for part in found if isinstance(part, str))
        return ExtractedToolCallInformation(tools_called=True, tool_calls=calls, content=said or None)

    def extract_tool_calls_streaming(  # noqa: PLR0917  vLLM's own order
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Sequence[int],
        current_token_ids: Sequence[int],
        delta_token_ids: Sequence[int],
        request: ChatCompletionRequest,
    ) -> DeltaMessage | None:
        """What the newest piece of a stream settles."""
        if self._scanner is None:
            self._scanner = Scanner(_names(request))
        # Nothing else says that an answer is at its end; one that is cut off leaves what it may have been beginning.
        last = getattr(self.model_tokenizer, "eos_token_id", None) in delta_token_ids
        found = self._scanner.feed(delta_text, last=last)
        calls = [self._delta(part) for part in found if isinstance(part, Call)]
        said = "".join(part for part in found if isinstance(part, str))
        return DeltaMessage(content=said or None, tool_calls=calls) if calls or said else None

    def _delta(self, call: Call) -> DeltaToolCall:
        function = _function(call)
        self.current_tool_id += 1
        # vLLM sends what these two differ by at the end of a stream: nothing.
        self.prev_tool_call_arr.append({"name": call.name, "arguments": call.arguments})
        self.streamed_args_for_tool.append(call.arguments)
        return DeltaToolCall(
            index=self.current_tool_id,
            type="function",
            id=ToolCall(function=function).id,
            function=DeltaFunctionCall(name=call.name, arguments=call.arguments),
        )


def _function(call: Call) -> FunctionCall:
    return FunctionCall(name=call.name, arguments=call.arguments)


ToolParserManager.register_module("qwen2_5_coder", module=Qwen25CoderToolParser)
