"""Stack files as go-yaml reads them: what the real CLI made of each, and what it refuses; and no file costs minutes."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from models import go_yaml
from ops.config_files import load
from ops.errors import OpsError

# A file, and its values by the CLI 3.259.0; None where that refuses it.
CASES: list[tuple[str, dict[str, str] | None]] = json.loads(
    Path(__file__).with_name("go_yaml_cases.json").read_text(encoding="utf-8")
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "Pulumi.yaml").write_text("name: demo\nruntime: python\n")
    return tmp_path


def read(project: Path, content: str) -> dict[str, str] | None:
    """Values of a stack file; None where it is refused."""
    (project / "Pulumi.dev.yaml").write_text(content, encoding="utf-8")
    try:
        return dict(load(project, "dev").values)
    except OpsError:
        return None


@pytest.mark.parametrize("loader", ["c", "python"])
def test_a_file_is_read_as_the_cli_reads_it(project: Path, monkeypatch: pytest.MonkeyPatch, loader: str) -> None:
    if loader == "python":  # where PyYAML was built without the C library
        monkeypatch.setattr(go_yaml, "_Loader", yaml.SafeLoader)
    assert {content: read(project, content) for content, _ in CASES} == dict(CASES)


@pytest.mark.skipif(shutil.which("pulumi") is None, reason="no `pulumi` on PATH")
def test_the_real_cli_reads_them_so(project: Path) -> None:
    environment = {
        **os.environ,
        "PULUMI_BACKEND_URL": f"file://{project}",
        "PULUMI_HOME": str(project / "home"),
        "PULUMI_CONFIG_PASSPHRASE": "test",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }

    def pulumi(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["pulumi", *words, "--stack", "dev", "--non-interactive"]
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)

    assert pulumi("stack", "init").returncode == 0
    salt = (project / "Pulumi.dev.yaml").read_text()
    for content, values in random.Random(0).sample(CASES, 25):  # noqa: S311  half a second each
        (project / "Pulumi.dev.yaml").write_text(f"{salt}\n{content}", encoding="utf-8")
        done = pulumi("config", "--json")
        found = {k: v["value"] for k, v in json.loads(done.stdout).items()} if done.returncode == 0 else None
        assert found == values, content


def _bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join([*lines, f"config: {{a: *a{levels - 1}}}\n"])


EXPENSIVE = {
    "brackets": "config: {a: " + "[" * 5_000 + "]" * 5_000 + "}\n",
    "brackets that nobody closes": "config: {a: " + "[" * 200_000,
    "braces": "config: " + "{a: " * 5_000,
    "dashes": "config:\n  a:\n    " + "- " * 20_000 + "x\n",
    "an alias bomb": _bomb(9),
    "merges of merges": "a0: &a0 {k: 1}\n"
    + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], k{n}: 1}}\n" for n in range(1, 60)),
}


@pytest.mark.parametrize("loader", ["c", "python"])
@pytest.mark.parametrize("name", EXPENSIVE)
def test_a_file_that_would_cost_minutes_is_refused_in_a_second(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str, loader: str
) -> None:
    if loader == "python":
        monkeypatch.setattr(go_yaml, "_Loader", yaml.SafeLoader)
    began = time.process_time()
    assert not read(project, EXPENSIVE[name])
    assert time.process_time() - began < 1


def test_nothing_of_a_file_that_cannot_be_read_is_in_the_message(project: Path) -> None:
    secret = "0f9a8b7c6d5e4f3a2b1c"
    for content in (
        f"config:\n  a: {secret}: x\n",
        f"config:\n  a: !!int {secret}\n",
        f"config:\n  a: *{secret}\n",
        f"config:\n  a: !{secret}!b x\n",  # a tag handle of nowhere
        f"config:\n  {secret}: 1\n  {secret}: 2\n",
        f"config:\n  a: &{secret} [*{secret}]\n",
        f"config:\n  a: '{secret}\n",
        f'config:\n  a: "\\q{secret}"\n',
        f"config: {secret}\n",
        f"config:\n  b:{secret}:c: 1\n",
        f"config:\n  {secret}: 1\n  demo:{secret}: 1\n",
    ):
        for loader in (getattr(yaml, "CSafeLoader", yaml.SafeLoader), yaml.SafeLoader):
            (project / "Pulumi.dev.yaml").write_text(content)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(go_yaml, "_Loader", loader)
                with pytest.raises(OpsError) as told:
                    load(project, "dev")
            assert secret[:8] not in str(told.value), content
