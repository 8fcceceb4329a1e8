"""`ops eval`: what models are asked, what runs of the answers, and what such code can do (nothing)."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from models.tasks import TASKS, Task
from ops.errors import OpsError
from ops.eval import command, suites
from ops.eval.suites import filled_in, human_eval, problems, tool_loop, written
from ops.manifests import manifests
from ops.measuring.job import PROGRAMS, Measurement, beside, measuring_job
from ops.measuring.task import RESULT, Site
from tests.ops import slow_model
from tests.ops.test_bench import ALIAS, Cluster, serving, site
from tests.support import recorded

Json = dict[str, Any]
SECONDS = 2  # of a program
# A test that root runs would prove nothing of files that only root may read; its own Python may be root's alone.
_SYSTEM = "/usr/bin/python3"
AS_NOBODY = os.geteuid() == 0 and Path(_SYSTEM).exists()


def execute(*programs: str, seconds: int = SECONDS) -> list[Json]:
    """The sandbox's program as its Job runs it, as nobody, on programs numbered from zero."""
    listed = [{"id": str(number), "code": code} for number, code in enumerate(programs)]
    nobody: Json = {"user": 65534, "group": 65534, "extra_groups": ()} if AS_NOBODY else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copy(PROGRAMS / "execute.py", folder)
        (folder / "programs.json.gz").write_bytes(gzip.compress(json.dumps(listed).encode()))
        words = [_SYSTEM if AS_NOBODY else sys.executable, "-I", str(folder / "execute.py")]
        options: Json = {"env": {"MEASURE_TASK": json.dumps({"seconds": seconds})}, "cwd": "/", **nobody}
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1].removeprefix(RESULT))


# --- the sandbox --------------------------------------------------------------------------------------------------

HARMFUL = {
    "import socket; socket.create_connection(('127.0.0.1', 9))": "PermissionError",
    "import socket; socket.getaddrinfo('example.com', 80)": "gaierror",
    "import os; os.fork()": "PermissionError",
    "import subprocess; subprocess.run(['true'])": "PermissionError",
    "import os; os.execv('/bin/true', ['true'])": "PermissionError",
    "import threading; threading.Thread(target=print).start()": "RuntimeError",
    "import os; os.kill(os.getppid(), 9)": "PermissionError",
    "import resource, os; resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))": "PermissionError",
    "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))": "",
    "import os; open(f'/proc/{os.getppid()}/environ').read()": "PermissionError",
    "import os; os.open(f'/proc/{os.getppid()}/fd/1', os.O_WRONLY)": "PermissionError",
    "with open('a-file', 'w') as f: f.write('x')": "OSError",
    "x = 'a' * 10**9": "MemoryError",
    "def f(): f()\nf()": "RecursionError",
    "raise SystemExit(0)": "SystemExit",
    "import os; os._exit(0)": "without a word",
    "import ctypes; ctypes.string_at(0)": "without a word",
    "assert 1 == 2": "AssertionError",
    "def f(:": "SyntaxError",
    "import os\nfor n in range(3, 32):\n    try: os.write(n, b'x' * 9999)\n    except OSError: pass": "xxx",
}


def test_code_that_would_reach_beyond_itself_fails_and_what_runs_beside_it_is_judged_all_the_same() -> None:
    fine = "assert sorted([2, 1]) == [1, 2]"
    harmful = {code: why for code, why in HARMFUL.items() if os.geteuid() or AS_NOBODY or "/proc" not in code}
    found = execute(fine, *harmful, fine)
    assert (found[0]["passed"], found[-1]["passed"]) == (True, True)
    for code, one in zip(harmful, found[1:-1], strict=True):
        assert not one["passed"], code
        assert HARMFUL[code] in one["why"], (code, one["why"])
        assert len(one["why"]) <= 4096


@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(60)"])
def test_code_that_does_not_end_is_ended(code: str) -> None:
    (one,) = execute(code, seconds=1)
    assert not one["passed"]
    assert "did not end within 1 s" in one["why"] or "without a word" in one["why"]  # the kernel's limit, or ours


def test_where_the_kernel_takes_no_filter_nothing_is_run() -> None:
    code = (
        "import execute, platform; platform.machine = lambda: 'vax'\n"
        "try: execute.close_in(1)\n"
        "except KeyError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROGRAMS, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "refused"


def test_the_job_that_runs_code_has_no_key_and_no_way_out() -> None:
    wanted = Measurement(
        name=f"code-{ALIAS}", programs=("execute.py",), environment={}, deadline_s=9, asks=False, data={"x": b"1"}
    )
    job = measuring_job(manifests(recorded().resources), ALIAS, wanted)
    pod = job["spec"]["template"]["spec"]
    assert "secretKeyRef" not in json.dumps(job)
    assert pod["automountServiceAccountToken"] is False
    assert pod["containers"][0]["resources"]["limits"].keys() == {"memory", "ephemeral-storage"}
    assert [item["kind"] for item in beside(job, "u", ALIAS, wanted)["items"]] == ["ConfigMap"]
    own = job["spec"]["template"]["metadata"]["labels"].items()
    policies = [
        policy.inputs["spec"]
        for policy in recorded().all("NetworkPolicy")
        if policy.inputs["metadata"]["namespace"] == "serving"
    ]
    meant = [p for p in policies if (p["podSelector"].get("matchLabels") or {}).items() <= own]
    assert {port["port"] for policy in meant for rule in policy.get("egress") or () for port in rule["ports"]} == {53}


# --- what is asked ------------------------------------------------------------------------------------------------


def test_the_solutions_of_the_problems_are_right_and_wrong_ones_are_not() -> None:
    """As a chat writes them: in a block, with text around it. Every eighth, since each is a process."""
    chosen = [human_eval().requests[n]["id"] for n in range(0, 164, 8)] + ["HumanEval/32", "HumanEval/38"]
    whole = {name: problems()[name]["prompt"] + problems()[name]["canonical_solution"] for name in chosen}
    right = [written({"id": name, "text": f"Here:\n```python\n{whole[name]}```\nDone."}) for name in chosen]
    empty = written({"id": chosen[0], "text": "```python\ndef has_close_elements(numbers, threshold):\n    pass\n```"})
    found = execute(*right, empty, seconds=10)
    assert [one["why"] for one in found[:-1]] == [""] * len(chosen)
    assert not found[-1]["passed"]


def test_there_are_164_problems_and_a_line_of_most_can_be_taken_out() -> None:
    assert len(human_eval().requests) == 164
    asked = filled_in()
    assert len(asked.requests) > 100
    assert asked.program
    lines = {r["id"]: r["body"]["prompt"].removesuffix("<|fim_middle|>") for r in asked.requests}
    wanted, programs = [asked.requests[n]["id"] for n in range(0, len(asked.requests), 12)], list[str]()
    for name in wanted:
        head, _, tail = lines[name].removeprefix("<|fim_prefix|>").partition("<|fim_suffix|>")
        whole = problems()[name]["prompt"] + problems()[name]["canonical_solution"]
        assert whole.startswith(head)
        assert whole.endswith(tail)
        programs.append(asked.program({"id": name, "text": whole[len(head) : len(whole) - len(tail)]}))
    assert all(one["passed"] for one in execute(*programs, seconds=10))


def test_every_task_that_writes_has_a_suite() -> None:
    assert [task for task in Task if suites.suites(task, 1)] == [task for task in Task if TASKS[task].generates]


# --- the program that asks ----------------------------------------------------------------------------------------


def asked(folder: Path, requests: Sequence[Json], says: Json) -> list[Json]:
    """The program that asks, against a server that says these."""
    for name in ("answers.py", "asking.py"):
        shutil.copy(PROGRAMS / name, folder)
    (folder / "requests.json.gz").write_bytes(gzip.compress(json.dumps(list(requests)).encode()))
    with serving(SAYS=json.dumps(says)) as url:
        own = {"MEASURE_URL": url, "MEASURE_KEY": slow_model.KEY, "MEASURE_TASK": '{"model": "m", "streams": 4}'}
        words = [sys.executable, "-I", "-B", str(folder / "answers.py")]
        done = subprocess.run(words, env=own, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1].removeprefix(RESULT))


def call(name: str, arguments: str, number: int) -> Json:
    function = {"name": name, "arguments": arguments}
    return {"content": None, "tool_calls": [{"id": f"c{number}", "type": "function", "function": function}]}


def test_a_loop_of_tools_goes_on_with_what_each_call_gives_until_there_is_an_answer(tmp_path: Path) -> None:
    loop = tool_loop()
    assert loop.wrong
    # Of the last thing that it was told, the model says the next; the first that is found is taken.
    says = {
        "port = 8471": {"content": "It is 8471."},
        "main.py": call("read_file", '{"path": "settings.toml"}', 2),
        "settings file": call("list_files", "{}", 1),
        "7.3.19": {"content": "Version 7.3.19."},
        "VERSION.txt": call("read_file", '{"path": "VERSION.txt"}', 1),
        "2 + 3": {"content": "5"},
        "a.txt and b.txt": {"content": "The sum is 3342."},  # guessed: it has read neither
        "config.yml": call("read_file", "{not json", 1),
    }
    answers = {answer["id"]: answer for answer in asked(tmp_path, loop.requests, says)}
    wrong = {name: answer["error"] or loop.wrong(answer) for name, answer in answers.items()}
    assert [call["name"] for call in answers["a name that it has to look for"]["calls"]] == ["list_files", "read_file"]
    assert [name for name, why in wrong.items() if not why] == sorted(
        ("one file", "a name that it has to look for", "no tool"), key=list(answers).index
    )
    assert wrong["two files"] == "0 calls of tools"
    assert "JSON" in wrong["an error on the way"]


# --- the command --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluated(Cluster):
    """A cluster whose Job that asks has these answers, and whose sandbox finds these right."""

    answers: Sequence[Json] = ()
    right: frozenset[str] = frozenset()

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        said = super().__call__(*arguments, stdin=stdin)
        words = arguments[2:] if arguments[0] == "-n" else arguments
        if words[0] == "apply":
            self.states[:] = ["Complete"]
        elif words[0] == "delete":
            self.states[:] = [""]
        elif words[0] == "logs":
            if f"job-name=eval-{ALIAS}" in words[1]:
                return RESULT + json.dumps(self.answers)
            ran = [{"id": a["id"], "passed": a["id"] in self.right, "why": "AssertionError"} for a in self.answers]
            return RESULT + json.dumps([one | ({"why": ""} if one["passed"] else {}) for one in ran])
        return said


def evaluated(monkeypatch: pytest.MonkeyPatch, cluster: Cluster, *words: str) -> int:
    def found(*_: object) -> Site:
        return site(cluster)

    monkeypatch.setattr(command, "site_of", found)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([ALIAS, *words]))


def answers_of(count: int) -> list[Json]:
    plain: Json = {"text": "```python\npass\n```", "calls": [], "finish_reason": "stop", "error": ""}
    return [{"id": request["id"], **plain} for request in human_eval(count).requests]


@pytest.mark.parametrize(("right", "code"), [(7, 0), (6, 1)])
def test_the_exit_code_says_whether_the_gate_is_met_and_the_file_what_each_answer_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], right: int, code: int
) -> None:
    answers, file = answers_of(10), tmp_path / "found.json"
    cluster = Evaluated("c", states=[""], answers=answers, right=frozenset(a["id"] for a in answers[:right]))
    assert evaluated(monkeypatch, cluster, "--problems", "10", "--output", str(file)) == code
    found = json.loads(file.read_text())["suites"][0]
    assert (found["right"], found["of"]) == (right, 10)
    assert [row["right"] for row in found["answers"]] == [n < right for n in range(10)]
    told = capsys.readouterr().out
    assert f"HumanEval {right}/10 = {right * 10} % (gate: 70 %)" in told
    assert ("below the gate" in told) == bool(code)


def test_an_answer_that_never_came_is_not_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = answers_of(2)
    answers[1]["error"] = "TimeoutError: "
    cluster = Evaluated("c", states=[""], answers=answers, right=frozenset(a["id"] for a in answers))
    with pytest.raises(OpsError, match="did not run what it was given"):  # the simulated one runs both
        evaluated(monkeypatch, cluster, "--problems", "2", "--output", str(tmp_path / "f"))


def test_answers_of_another_run_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OpsError, match="other problems"):
        evaluated(monkeypatch, Evaluated("c", states=[""], answers=answers_of(3)), "--problems", "4")


def test_an_answer_may_be_half_as_long_as_the_context_so_that_the_question_has_room() -> None:
    here = site(Cluster("c"))
    object.__setattr__(here.model, "spec", here.spec.model_copy(update={"context": 1000}))
    wanted = command._asking(here, "eval-x", human_eval(3).requests)  # pyright: ignore[reportPrivateUsage]
    requests = json.loads(gzip.decompress((wanted.data or {})["requests.json.gz"]))
    assert [request["body"]["max_tokens"] for request in requests] == [500] * 3
