"""`ops` as a whole: one kind of error, told in one place, and exit codes from it."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import pkgutil
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import ops
from ops import cli
from ops.errors import FailedError, OpsError
from tests.catalog import CATALOG
from tests.checkout import CHECKOUT, PROJECT_DIR

NOWHERE = "http://127.0.0.1:9"


def _exceptions() -> Iterator[type[BaseException]]:
    for found in pkgutil.walk_packages(ops.__path__, "ops."):
        module = importlib.import_module(found.name)
        for _, thing in inspect.getmembers(module, inspect.isclass):
            if issubclass(thing, BaseException) and thing.__module__ == found.name:
                yield thing


def test_every_error_that_leaves_a_module_of_ops_is_of_the_one_kind() -> None:
    found = list(_exceptions())
    assert {OpsError, FailedError} <= set(found)
    # A leading underscore: it never leaves its module. A path of config is told by what reads config, with the command.
    inner = {"PathError", "YamlError"}
    others = [e for e in found if not issubclass(e, OpsError) and not e.__name__.startswith("_")]
    others = [e for e in others if e.__name__ not in inner]
    assert others == []


@pytest.mark.parametrize("path", sorted(Path(cli.__file__).parent.rglob("*.py")), ids=lambda path: path.name)
def test_only_the_command_line_prints_an_error_and_no_message_is_left_without_its_remedy(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for handler in (node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)):
        if path != Path(cli.__file__) and "OpsError" in ast.dump(handler.type or handler):
            returned = [node for node in ast.walk(handler) if isinstance(node, ast.Return)]
            said = [node for node in ast.walk(handler) if "stderr" in ast.dump(node)]
            assert not (returned and said), f"{path}:{handler.lineno} tells an error itself"
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Name) and call.func.id in ("OpsError", "FailedError"):
            assert len(call.args) >= 2, f"{path}:{call.lineno} has a message and no remedy"


@pytest.mark.parametrize(
    ("words", "code_and_fact"),
    [
        (("fit",), (2, "one model is to be named")),
        (("fit", "--config", "/proc/self/mem"), (2, "/proc/self/mem")),
        (("plan", "--out", "FILE"), (2, "FILE is a file, and --out wants a folder")),
        (("plan", "--out", "/proc/nowhere"), (2, "/proc/nowhere")),
        (("plan", "--project-dir", "FILE"), (2, "there is no Pulumi.yaml in FILE")),
        (("plan", "--format", "markdown"), (2, "markdown compares two plans")),
        (("plan", "--against", "FILE.json"), (2, "FILE.json is not there")),
        (("plan", "--against", "no-such-revision"), (2, "no revision that git has")),
        (("up", "--stack", "ai-dev"), (1, "whose cluster only Pulumi makes")),
        (("up", "--project-dir", "/nonexistent"), (2, "there is no Pulumi.yaml")),
        (("cluster", "--project-dir", "/nonexistent", "up"), (2, "there is no Pulumi.yaml")),
        (("pin", "--hub", "nonsense"), (2, "'nonsense' is no address of a server")),
        (("smoke", "--gateway-url", "nonsense", "--key-env", "HOME"), (2, "'nonsense' is no address of a server")),
        (("doctor",), (2, "stack 'ai-dev' has none in its file")),
        (("doctor", "--stack", "local"), (2, "the embedded cluster is not up")),
        (("doctor", "--kubeconfig", "FILE"), (2, "without --context")),
        (("doctor", "--kubeconfig", "FILE", "--context", "nobody"), (2, 'context "nobody" does not exist')),
        (("keys", "--gateway-url", NOWHERE, "--master-key-env", "HOME"), (2, "cannot be reached")),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_what_stops_a_command_is_a_fact_and_a_remedy_on_stderr_with_the_commands_exit_code(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: tuple[str, ...],
    code_and_fact: tuple[int, str],
) -> None:
    code, fact = code_and_fact
    monkeypatch.chdir(PROJECT_DIR)
    file = tmp_path / "file"
    file.touch()
    assert cli.main([word.replace("FILE", str(file)) for word in words]) == code
    told = capsys.readouterr()
    first, *rest = told.err.splitlines()
    assert first.startswith("failed: " if code == 1 else "refused: ")
    assert fact.replace("FILE", str(file)) in first
    assert any(line.startswith("  remedy: ") for line in rest)
    assert "Traceback" not in told.err


def test_a_bug_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        @staticmethod
        def add_arguments(_: object) -> None: ...

        @staticmethod
        def run(_: object) -> int:
            raise KeyError("a bug")

    def broken(_: str) -> type:
        return Broken

    monkeypatch.setattr(cli, "_module", broken)
    with pytest.raises(KeyError, match="a bug"):
        cli.main(["plan"])


def _unread(words: str, *, unbuffered: bool, both: bool) -> tuple[int, str]:
    """The exit code and what stderr got, where standard output (or both) has no reader any more."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ops.cli", *words.split()],
            env=environment | ({"PYTHONUNBUFFERED": "1"} if unbuffered else {}),
            stdout=writer,
            stderr=writer if both else subprocess.PIPE,
            text=True,
            check=False,
            cwd=CHECKOUT,
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize("unbuffered", [False, True], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("words", ["plan", "fit coder-chat", "--help", "--version"])
def test_a_reader_who_leaves_is_no_failure_and_nothing_is_told(words: str, unbuffered: bool) -> None:
    assert _unread(words, unbuffered=unbuffered, both=False) == (0, "")
    assert _unread(words, unbuffered=unbuffered, both=True) == (0, "")


@pytest.mark.parametrize("unbuffered", [False, True], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    "words", ["plan --stack nowhere", "fit nonsense", "nonsense", "plan --set ai-platform:clusterMode=nonsense"]
)
def test_a_refusal_that_nobody_reads_is_still_one(words: str, unbuffered: bool) -> None:
    code, told = _unread(words, unbuffered=unbuffered, both=False)
    assert (code, "Traceback" in told) == (2, False)
    assert told
    assert _unread(words, unbuffered=unbuffered, both=True) == (2, "")


# --- version and completion ------------------------------------------------------------------------------------


def test_the_version_is_the_packages_and_the_changelog_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    assert capsys.readouterr().out == f"ops {version}\n"
    released = re.findall(r"(?m)^## \[(\d\S*)\]", (CHECKOUT / "CHANGELOG.md").read_text())
    assert released[0] == version


def _completed(line: str) -> set[str]:
    """What a real bash offers at the end of a line, after the script that `ops completion bash` prints."""
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    typed = " ".join(shlex.quote(word) for word in words)
    program = (
        'source <("$1" -m ops.cli completion bash); '
        f"COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; COMP_LINE={shlex.quote(line)}; COMP_POINT={len(line)}; "
        f"$(complete -p ops | sed -E 's/.*-F ([^ ]+).*/\\1/') ops {shlex.quote(words[-1])} {shlex.quote(words[-2])}; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", program, "bash", sys.executable],
        capture_output=True,
        text=True,
        check=True,
        cwd=CHECKOUT,
    )
    assert done.stderr == ""
    return {word.strip() for word in done.stdout.split()}


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ops ", {"plan", "up", "fit", "doctor", "completion", "schema"}),
        ("ops doctor --", {"--context", "--stack", "--format"}),
        ("ops pl", {"plan"}),
        ("ops plan --ag", {"--against"}),
        ("ops plan --format ", {"text", "json", "yaml", "markdown"}),
        ("ops cluster ", {"up", "down", "status"}),
        ("ops fit coder-", {alias for alias in CATALOG if alias.startswith("coder-")}),
        ("ops smoke ", set(CATALOG)),
        ("ops up --model ", set(CATALOG)),
        ("ops plan --out mod", {"models"}),
        ("ops fit --config READ", {"README.md"}),
    ],
)
def test_bash_completes_commands_options_and_models(line: str, offered: set[str]) -> None:
    assert offered <= _completed(line)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_take_their_script(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "--against" in script
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here to read it with")
    (tmp_path / "script").write_text(script)
    done = subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_completion_and_schemas_cost_a_plan_nothing() -> None:
    program = (
        "import sys; from ops.cli import parser; parser(['plan']);"
        "import models.catalog;"
        "heavy = 'shtab', 'ops.schema', 'ops.completion', 'ops.add', 'ops.catalog', 'models.catalog.overlay';"
        "sys.exit([m for m in heavy if m in sys.modules] or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr.splitlines()[-1]


# --- a full disk, and Ctrl-C -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("words", ["plan", "plan --format json", "fit coder-chat"])
def test_output_that_cannot_be_written_is_told_in_a_line_and_is_a_failure(words: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ops.cli", *words.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=PROJECT_DIR,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("refused: the output cannot be written: No space left on device\n  remedy: df -h .")
    assert "Traceback" not in done.stderr


def test_an_interrupt_ends_with_130_also_where_another_error_covers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_off(_: str) -> object:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("an extension that an interrupt broke off") from error

    monkeypatch.setattr(cli, "_module", broken_off)
    assert cli.main(["plan"]) == 130


def test_ctrl_c_at_any_moment_of_a_plan_is_130_without_a_traceback() -> None:
    began = time.monotonic()
    command = [sys.executable, "-m", "ops.cli", "plan"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, cwd=PROJECT_DIR)
    whole = time.monotonic() - began
    for share in (0.1, 0.3, 0.5, 0.7):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=PROJECT_DIR
        )
        time.sleep(whole * share)
        process.send_signal(signal.SIGINT)
        told = process.communicate()[1]
        # -2: before the first line of `ops` was read, where the interpreter itself ends.
        assert process.returncode in (0, 130, -signal.SIGINT), share
        assert "Traceback" not in told or process.returncode == -signal.SIGINT, (share, told)
