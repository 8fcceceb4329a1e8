"""Remedies of the commands: each is a command that something takes, about the cluster that was named."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.checkout import nearest_project
from ops.cli import main
from ops.endpoint import readiness
from ops.kube import Kube
from tests.checkout import CHECKOUT
from tests.ops.fakes import Kubectl, Server
from tests.ops.typed import remedies, why_not_typable
from tests.support import PROJECT_DIR

_ERRORS = {"OpsError": 1, "FailedError": 1}  # where their remedy is
_FILES = [
    CHECKOUT / "ops" / name
    for name in ("kube.py", "endpoint.py", "keys", "smoke", "up", "cluster", "doctor", "findings")
]


def _written() -> Iterator[tuple[str, str]]:
    """Every remedy that is written out in the code of the commands, with a word in place of each value."""
    for top in _FILES:
        for path in [top] if top.is_file() else sorted(top.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _ERRORS:
                    remedy = node.args[_ERRORS[node.func.id]]
                    if text := _text(remedy):
                        yield f"{path.relative_to(CHECKOUT)}:{remedy.lineno}", text


def _text(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if not isinstance(node, ast.JoinedStr):
        return None  # made elsewhere
    first, *rest = [part.value if isinstance(part, ast.Constant) else "x" for part in node.values]
    # A command that is put together by a function is tried where it is called.
    return None if isinstance(node.values[0], ast.FormattedValue) else "".join(map(str, (first, *rest)))


WRITTEN = dict(_written())


@pytest.mark.parametrize("where", WRITTEN)
def test_a_remedy_in_the_code_is_a_command_that_is_taken(where: str) -> None:
    assert why_not_typable(WRITTEN[where]) is None


def test_the_code_has_remedies_to_try() -> None:
    assert len(WRITTEN) > 15


# --- no circles ------------------------------------------------------------------------------------------------------


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """One whose database is away."""
    for name in ("LITELLM_MASTER_KEY", "SMOKE_KEY"):
        monkeypatch.setenv(name, "sk-0123456789abcdef")
    with Server() as server:
        from dataclasses import replace

        body = {"error": {"message": "no db", "type": "no_db_connection"}}
        server.fault = lambda _, answer: replace(answer, body=body, status=503)
        yield server


def test_without_a_database_neither_keys_nor_smoke_sends_to_the_other(
    gateway: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "--gateway-url", gateway.url]) == 2
    assert remedies(capsys.readouterr().err) == [readiness(gateway.url)]
    smoke = ["smoke", "--gateway-url", gateway.url, "--key-env", "SMOKE_KEY"]
    assert main(smoke) == 2
    assert remedies(capsys.readouterr().err) == [readiness(gateway.url)]
    assert main([*smoke, "coder-chat"]) == 1
    assert readiness(gateway.url) in capsys.readouterr().out


def test_in_a_cluster_both_show_the_pods_of_the_gateway_there(
    gateway: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "sk-0123456789abcdef"
    kubectl = Kubectl(
        tmp_path,
        secrets={
            "gateway/litellm-master-key": {"key": key},
            "gateway/litellm-keys": {"smoke": key},
            "serving/vllm-api-key": {"api-key": key},
        },
        deployments={"coder-chat": (1, 0)},
        forwards={"gateway/svc/litellm": gateway.port},
    )
    kubectl.write()
    monkeypatch.setenv("PATH", kubectl.path)
    here = ["--kubeconfig", "a file", "--context", "some where", "--project-dir", str(PROJECT_DIR)]
    look = "kubectl --kubeconfig 'a file' --context 'some where' -n gateway get pods"
    assert main(["keys", *here]) == 2
    assert remedies(capsys.readouterr().err) == [look]
    assert main(["smoke", *here]) == 1
    out = capsys.readouterr().out
    assert look in out
    assert "kubectl --kubeconfig 'a file' --context 'some where' -n serving describe pods -l " in out


def test_a_context_that_is_not_there_is_answered_with_the_command_that_makes_it() -> None:
    gke, own = Kube("gke_my-project_us-central1-a_ai-platform-dev"), Kube("kind-ai", "my file")
    missing = 'error: context "x" does not exist'
    assert gke._remedy(missing) == (  # pyright: ignore[reportPrivateUsage]
        "gcloud container clusters get-credentials ai-platform-dev --zone us-central1-a --project my-project "
        "--dns-endpoint"
    )
    listed = own._remedy(missing)  # pyright: ignore[reportPrivateUsage]
    assert listed.startswith("kubectl --kubeconfig 'my file' config get-contexts")
    assert shlex.split(own._remedy("Unable to connect"))[:5] == [  # pyright: ignore[reportPrivateUsage]
        *("kubectl", "--kubeconfig", "my file", "--context", "kind-ai"),
    ]


# --- the project -----------------------------------------------------------------------------------------------------


def test_a_subfolder_of_a_checkout_is_in_its_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    for file in PROJECT_DIR.glob("Pulumi*.yaml"):
        (tmp_path / file.name).write_text(file.read_text())
    assert nearest_project(below) == tmp_path
    assert nearest_project(tmp_path) == tmp_path
    monkeypatch.chdir(below)
    assert main(["keys", "--stack", "ai-dev"]) == 2
    assert "stack 'ai-dev' has none in its file" in capsys.readouterr().err


def test_outside_of_any_checkout_it_is_said_where_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan"]) == 2
    assert f"there is no Pulumi.yaml in {tmp_path} or above it" in capsys.readouterr().err
