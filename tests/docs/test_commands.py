"""Every command that README.md and docs/ tell a reader to type: run, judged by the program, or left out for a reason.

`ops plan` and `ops fit` run; other `ops` commands are read by their own parser; what sets config is applied to the
stack of the tests, block by block, and admitted; names in `kubectl`, `gcloud` and `curl` are those that
the program makes.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from components.gateway import litellm_gateway
from models.catalog import Group
from models.spec import ModelSpec
from models.tasks import TASKS, Task
from ops import cli
from ops.config_files import load
from stacks.admission import admit
from stacks.sections import GATEWAY
from stacks.settings import RawConfig
from tests.catalog import CATALOG
from tests.checkout import CHECKOUT, PROJECT_DIR
from tests.docs.snippets import PAGES, Command, commands
from tests.gguf_entries import GROUPS_WITH_GGUF, SPEC
from tests.guide_entries import ENTRIES
from tests.ops.typed import parses_as_ops
from tests.stacks.remedies import follow
from tests.support import object_name, recorded

_BY_TASK = {spec.task: spec for spec in ENTRIES.values()}
# What the pages name and the tests' own catalog lacks: a model of the tests under that name, and its group.
_NAMED: Mapping[str, tuple[ModelSpec, str]] = {
    **dict.fromkeys(("tinyllama", "phi-3-mini", "llama-2-7b"), (SPEC, "gguf")),
    **dict.fromkeys(("whisper-small", "whisper-small-japanese"), (_BY_TASK[Task.TRANSCRIPTION], "speech")),
    "reranker": (_BY_TASK[Task.RERANK], "search"),
    "embeddings-m3": (_BY_TASK[Task.EMBEDDING], "search"),
}
SHOWN = {
    **CATALOG,
    **{
        alias: spec.model_copy(update={"alias": alias, "served_name": f"{alias}-served", "group": group})
        for alias, (spec, group) in _NAMED.items()
    },
}
GROUPS_SHOWN = {**GROUPS_WITH_GGUF, **{group: Group(summary="models of a test") for _, group in _NAMED.values()}}
# What a reader fills in.
_BLANKS = {
    "gke_YOUR_PROJECT_": "gke_a-project_",
    "YOUR_PROJECT": "a-real-project",
    "gke_PROJECT_ZONE_": "gke_a-project_us-central1-a_",
    "ALIAS:SETTING VALUE": "coder-chat:maxModelLen 8192",
    "ALIAS": "coder-chat",
    "OTHER": "coder-mini",
    "NAMESPACE": "serving",
    "GIB": "40",
}
# What needs more than a test has, by its first words.
_LEFT_OUT = {
    "gcloud components install": "changes the machine",
    "gcloud auth application-default login": "needs an account",
    "gcloud auth login": "needs an account",
    "gcloud config set project": "needs an account",
    "gcloud services enable": "needs an account; its APIs are held to the program's by tests/stacks/test_program.py",
    "gcloud compute disks list": "needs an account",
    "gcloud compute addresses delete": "needs an account",
    "gcloud container ai profiles list": "needs an account",
    "gcloud compute regions describe": "needs an account",
    "kind create cluster": "needs Docker",
    "read -rs": "waits for a person",
    "export": "of the shell",
    "mkdir": "of the shell",
    "YOUR_KEY=$(": "of the shell; the command inside is checked by itself",
    "files=$(": "of the shell",
    "openssl": "what is piped into `pulumi config set` is checked with it",
}
# Commands of pulumi that a test of documents cannot run, with the flags they are given.
_PULUMI = {
    "up": (),
    "preview": ("--config", "--json", "--policy-pack", "--policy-pack-config"),
    "destroy": ("--exclude-protected", "--run-program", "--stack", "--config-file"),
    "refresh": ("--import-pending-creates",),
    "import": (),
    "cancel": (),
    "login": (),
    "stack init": (),
    "stack output": (),
    "config get": ("--path",),
    "config rm": (),
    "state unprotect": ("--all",),
}

_ALL = [command for page in PAGES for command in commands(page)]


def together(found: list[Command]) -> list[list[Command]]:
    """Commands of one block are one; in a sentence each stands alone."""
    blocks: dict[tuple[str, int], list[Command]] = {}
    for number, command in enumerate(found):
        blocks.setdefault((command.page, command.block or -number - 1), []).append(command)
    return list(blocks.values())


def filled(text: str) -> str:
    for blank, value in _BLANKS.items():
        text = text.replace(blank, value)
    return text


def simple(text: str) -> Iterator[str]:
    """The commands of a line, loops unrolled."""
    if loop := re.fullmatch(r"for (\w+) in (.+?); do (.+?) ; done", text):
        for value in loop[2].split():
            for one in loop[3].split(" ; "):
                yield from simple(one.replace(f"${loop[1]}", value))
        return
    if inner := re.fullmatch(r"\w+=\$\((pulumi .*)\)", text):
        yield inner[1]
        return
    yield from (one.strip().removesuffix("&").strip() for one in text.split("&&"))


class Reader:
    """Types the commands of one block, one after the other."""

    def __init__(self) -> None:
        self.config: RawConfig = load(PROJECT_DIR, "ai-dev")

    def types(self, text: str) -> None:
        for start, check in _CHECKS:
            if re.match(start, text):
                check(self, text)
                return
        assert any(text.startswith(words) for words in _LEFT_OUT), "neither checked nor left out for a reason"

    def makes(self, text: str) -> None:
        targets = re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
        assert shlex.split(text)[1] in targets

    def configures(self, text: str) -> None:
        if text == "pulumi config rm":  # the name of a command, in a sentence
            return
        self.config = follow(self.config, text)
        judged = admit(self.config, SHOWN, GROUPS_SHOWN, rehearsal=True)
        assert [str(problem) for problem in judged.problems] == []

    def deploys(self, text: str) -> None:
        words = shlex.split(text.replace("pulumi preview/up", "pulumi up"))[1:]
        command = next((c for c in _PULUMI if words[: len(c.split())] == c.split()), None)
        assert command is not None, f"no command of pulumi that is known here; there are {', '.join(_PULUMI)}"
        flags = {word for word in words if word.startswith("--")}
        assert flags <= set(_PULUMI[command])
        rest = [word for word in words[len(command.split()) :] if not word.startswith("-")]
        if command == "stack output":
            assert rest[0] in recorded().outputs
        if command == "config get":
            assert rest[0].removeprefix("keyValues.") in json.loads(self.config.values["ai-platform:keys"])

    def operates(self, text: str) -> None:
        words = shlex.split(re.split(r" [>|] ", text)[0].replace("$HOME", "/root"))
        if words[1].startswith("--"):  # answers by itself
            with pytest.raises(SystemExit, match=r"^0$"):
                cli.main(words[1:])
            return
        assert words[1] in cli._COMMANDS  # pyright: ignore[reportPrivateUsage]
        named = [word for word in words[2:] if word.startswith("--")]
        if len(words) == 2 or (named and words[-1] in _valued(words[1])):
            # Only named, in a sentence, maybe with a flag.
            assert set(named) <= _options(words[1])
            return
        assert parses_as_ops(shlex.join(words))
        if "--context" in words and words[words.index("--context") + 1].startswith("gke_"):
            cluster = recorded().all("Cluster")
            names = {resource.inputs["name"] for resource in cluster if "name" in resource.inputs}
            assert words[words.index("--context") + 1].rpartition("_")[2] in names

    def asks_kubernetes(self, text: str) -> None:
        words = shlex.split(re.sub(r"\$\(.*?\)|\$files", "-f FILE", text))
        record = recorded()
        for flag in ("-n", "--namespace"):
            if flag in words:
                assert words[words.index(flag) + 1] in {object_name(r) for r in record.all("Namespace")}
        if "port-forward" in words:
            service, port = words[words.index("port-forward") + 1 :][:2]
            manifest = record.manifest("Service", service.removeprefix("svc/"), words[words.index("-n") + 1])
            assert int(port) in [one["port"] for one in manifest["spec"]["ports"]]
        for word in words:
            if word.startswith("app.kubernetes.io/"):
                label, value = word.split("=")
                made = (*record.all("Deployment"), *record.all("StatefulSet"))
                assert any(r.inputs["metadata"]["labels"].get(label) == value for r in made)

    def gets_credentials(self, text: str) -> None:
        printed = str(recorded().outputs["kubectlLogin"])
        project = re.search(r"--project (\S+)", text)
        assert project is not None
        assert text == re.sub(r"--project \S+", project[0], printed)

    def names_in_google(self, text: str) -> None:
        words = shlex.split(text)
        kind, name = {"disks": "Disk", "instances": "DatabaseInstance"}[words[2]], words[4]
        made = (*recorded().all(kind), *recorded("gateway.database=cloud-sql").all(kind))
        assert name in {resource.inputs["name"] for resource in made}

    def asks_the_gateway(self, text: str) -> None:
        words = shlex.split(text)
        address = next(word for word in words if word.startswith("localhost:"))
        port, _, path = address.removeprefix("localhost:").partition("/")
        form = dict(word.split("=") for flag, word in pairwise(words) if flag == "-F")
        body = form or json.loads(words[words.index("-d") + 1])
        answers = TASKS[SHOWN[body["model"]].task]
        assert f"/{path}" == answers.route
        assert bool(form) == bool(answers.upload)
        assert body.keys() - {"model", "max_tokens", answers.upload} == answers.example.keys() - {"max_tokens"}
        assert not answers.upload or body[answers.upload].startswith("@")
        service = recorded().manifest("Service", litellm_gateway.APP, GATEWAY)
        assert int(port) in [one["port"] for one in service["spec"]["ports"]]

    def tests(self, text: str) -> None:
        for word in shlex.split(text):
            assert not word.startswith("tests/") or (CHECKOUT / word).exists()

    def runs_a_module(self, text: str) -> None:
        module = shlex.split(text)[2].replace(".", "/")
        assert (CHECKOUT / f"{module}.py").exists() or (CHECKOUT / module / "__main__.py").exists()


_CHECKS: tuple[tuple[str, Callable[[Reader, str], None]], ...] = (
    (r"make ", Reader.makes),
    (r"ops ", Reader.operates),
    (r"(.*\| )?pulumi config (set|rm)", Reader.configures),
    (r"pulumi ", Reader.deploys),
    (r"kubectl ", Reader.asks_kubernetes),
    (r"gcloud container clusters get-credentials", Reader.gets_credentials),
    (r"gcloud (compute disks|sql instances) (delete|patch)", Reader.names_in_google),
    (r"curl ", Reader.asks_the_gateway),
    (r"(ENGINE_SWAPS=50 )?pytest ", Reader.tests),
    (r"python -m ", Reader.runs_a_module),
)


def _parser(command: str) -> ArgumentParser:
    parser = ArgumentParser()
    cli._module(command).add_arguments(parser)  # pyright: ignore[reportPrivateUsage]
    return parser


def _options(command: str) -> set[str]:
    return {option for action in _parser(command)._actions for option in action.option_strings}  # pyright: ignore[reportPrivateUsage]


def _valued(command: str) -> set[str]:
    """Options that want a value."""
    return {o for a in _parser(command)._actions if a.nargs != 0 for o in a.option_strings}  # pyright: ignore[reportPrivateUsage]


def _place(block: list[Command]) -> str:
    return f"{block[0].page}:{block[0].number}"


@pytest.mark.parametrize("block", together(_ALL), ids=_place)
def test_what_a_page_tells_to_type_can_be_typed(block: list[Command]) -> None:
    reader = Reader()
    for command in block:
        for text in simple(filled(command.text)):
            try:
                reader.types(text)
            except Exception as error:
                raise AssertionError(f"{command}\n  {text}\n  {error}") from error


def test_every_program_that_is_named_is_found() -> None:
    """The reader of pages reads them: each of these is in some page."""
    typed = {filled(command.text).split()[0] for command in _ALL}
    assert {"ops", "make", "pulumi", "kubectl", "gcloud", "curl"} <= typed


RUN = [command for command in _ALL if re.match(r"ops (plan|fit) .*-", command.text) or command.output]


@pytest.mark.parametrize("command", RUN, ids=str)
def test_plans_and_fits_of_the_pages_run_and_answer_as_is_shown(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = command.text.replace("make preview", "ops plan --stack ai-dev").partition(" > ")[0]
    words = shlex.split(text)[1:]
    if "--against" in words or words[-1] in _valued(words[0]):
        pytest.skip("compares with a revision, which tests/ops/test_diff.py does, or is only named")
    (tmp_path / "config.json").write_text(json.dumps(_CONFIG))
    (tmp_path / "profiles.txt").write_text("Instance Type,Output Tokens/s\ng2-standard-8,900\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    project = ["--project-dir", str(PROJECT_DIR)] if words[0] == "plan" else []
    code = cli.main([*words, *project])
    shown = capsys.readouterr()
    refused = bool(command.output) and command.output[0].startswith("refused")
    assert code == (2 if refused else 0), shown.err
    if command.output:
        follows((shown.err if refused else shown.out).splitlines(), command.output)


# A model of 7B, of which nothing but these numbers is looked at.
_CONFIG = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18_944,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152_064,
    "max_position_embeddings": 32_768,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}


def follows(lines: list[str], shown: list[str]) -> None:
    """Whether what is shown is what was printed: `...` alone stands for any lines, at an end for the rest of one."""
    position, skipping = 0, False
    for text in shown:
        if text == "...":
            skipping = True
            continue
        start, cut = text.removesuffix("..."), text.endswith("...")
        places = range(position, len(lines)) if skipping else range(position, min(position + 1, len(lines)))
        found = next(
            (n for n in places if (lines[n].startswith(start) if cut else lines[n].rstrip() == text.rstrip())), None
        )
        assert found is not None, f"not printed: {text}\n" + "\n".join(lines)
        position, skipping = found + 1, False
    assert skipping or position == len(lines) or shown[-1].endswith("..."), f"more is printed: {lines[position:]}"


def test_an_excerpt_without_an_ellipsis_has_to_be_the_whole() -> None:
    follows(["a", "b", "c"], ["a", "...", "c"])
    follows(["a", "bcd"], ["a", "b..."])
    for wrong in (["a", "c"], ["a", "b"], ["a", "...", "d"]):
        with pytest.raises(AssertionError):
            follows(["a", "b", "c"], wrong)


@pytest.mark.skipif(shutil.which("pulumi") is None, reason="no pulumi on PATH")
@pytest.mark.parametrize("command", [command for command, flags in _PULUMI.items() if flags])
def test_the_real_cli_has_the_commands_and_flags_that_the_pages_use(command: str) -> None:
    told = subprocess.run(["pulumi", *command.split(), "--help"], capture_output=True, text=True, check=True).stdout
    assert [flag for flag in _PULUMI[command] if flag not in told] == []
