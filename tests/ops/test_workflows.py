"""The workflows as GitHub runs them: what they may do, and what they post of a plan that is good, refused or dead."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ops.sandbox import CHECKOUT, commit, edit, sandbox

FOLDER = CHECKOUT / ".github" / "workflows"
# YAML 1.1 reads `on` as true.
WORKFLOWS: dict[str, Any] = {p.name: yaml.safe_load(p.read_text()) for p in sorted(FOLDER.glob("*.yml"))}
JOBS = [(name, job) for name, workflow in WORKFLOWS.items() for job in workflow["jobs"]]
every_workflow = pytest.mark.parametrize("name", WORKFLOWS)
every_job = pytest.mark.parametrize(("name", "job"), JOBS)
PLAN = WORKFLOWS["plan.yml"]["jobs"]


def _steps(name: str, job: str) -> list[dict[str, Any]]:
    return WORKFLOWS[name]["jobs"][job]["steps"]


# --- what they may do ----------------------------------------------------------------------------------------------


@every_workflow
def test_every_action_is_pinned_by_its_commit_with_the_version_beside_it(name: str) -> None:
    used = [line.strip() for line in (FOLDER / name).read_text().splitlines() if "uses:" in line]
    assert used
    for line in used:
        assert re.fullmatch(r"- uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


@every_workflow
def test_a_workflow_reads_and_a_job_asks_for_what_it_needs_beyond(name: str) -> None:
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    asked = {
        job: content["permissions"] for job, content in WORKFLOWS[name]["jobs"].items() if "permissions" in content
    }
    expected = {
        "comment": {"pull-requests": "write"},
        "preview": {"contents": "read", "id-token": "write"},
    }
    assert asked == (expected if name == "plan.yml" else {})


@every_job
def test_nothing_of_a_pull_request_is_pasted_into_a_script(name: str, job: str) -> None:
    """A title or a branch with a quote in it would be a command."""
    assert all("${{" not in step.get("run", "") for step in _steps(name, job))


@every_job
def test_a_job_ends_by_itself_and_leaves_no_credential_in_the_checkout(name: str, job: str) -> None:
    assert WORKFLOWS[name]["jobs"][job]["timeout-minutes"] <= 60
    for step in _steps(name, job):
        if "actions/checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


def test_no_job_that_runs_the_code_of_a_fork_can_write_or_has_a_secret() -> None:
    for workflow in WORKFLOWS.values():
        assert "pull_request_target" not in workflow[True]
        assert "workflow_run" not in workflow[True]
    ours = "github.event.pull_request.head.repo.full_name == github.repository"
    for job in PLAN.values():
        if "permissions" in job or "secrets." in json.dumps(job):
            assert ours in job["if"]
    checks_out = {job for job, content in PLAN.items() if "actions/checkout" in json.dumps(content)}
    assert "comment" not in checks_out


def test_the_job_with_the_passphrase_waits_for_the_reviewers_of_an_environment() -> None:
    holding = [name for name, job in PLAN.items() if "secrets." in json.dumps(job) or "id-token" in json.dumps(job)]
    assert holding == ["preview"]
    assert PLAN["preview"]["environment"] == "preview"


def test_the_preview_gets_the_auth_plugin_where_gcloud_can_install_it() -> None:
    """The runner's own gcloud came by apt, and its component manager is off."""
    text = json.dumps(PLAN["preview"])
    assert "gcloud components" not in text
    setup = next(s for s in PLAN["preview"]["steps"] if "google-github-actions/setup-gcloud" in s.get("uses", ""))
    assert setup["with"]["install_components"] == "gke-gcloud-auth-plugin"
    # With skip_install it would be the runner's own again.
    assert "skip_install" not in setup["with"]
    order = [s.get("uses", "").partition("@")[0] for s in PLAN["preview"]["steps"]]
    assert order.index("google-github-actions/auth") < order.index("google-github-actions/setup-gcloud")
    assert order[-1] == "pulumi/actions"


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="actionlint is not on PATH")
def test_actionlint_finds_nothing() -> None:
    found = subprocess.run(["actionlint", *sorted(FOLDER.glob("*.yml"))], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


# --- what they post ------------------------------------------------------------------------------------------------

# Lists comments as the API does, through the real jq, and keeps what is asked of it.
GH = """#!/usr/bin/env bash
set -e
printf '%s\\n' "$*" >> "$GH_CALLS"
if [ "$2" = --paginate ]; then
  [ "$4" = --jq ]
  jq -r "$5" "$GH_COMMENTS"
else
  [ "$5" = --field ] && [ "$6" = body=@comment.md ]
  cp comment.md "$GH_BODY"
fi
"""


@dataclass(frozen=True)
class Ran:
    """What a pull request ends with."""

    code: int
    calls: list[str]
    body: str
    summary: str


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pull request's merge: one model goes up. Set up already, as far as make can see."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / ".gitignore").write_text(".venv\n.tools\nplan.md\nplan.log\n__pycache__\n")
    sandbox(folder)
    edit(folder, "Pulumi.ai-dev.yaml", "coder-chat:replicas: 0", "coder-chat:replicas: 1")
    commit(folder, "the pull request")
    (folder / ".venv").symlink_to(CHECKOUT / ".venv")
    return folder


def _script(job: str, name: str) -> str:
    return next(s["run"] for s in PLAN[job]["steps"] if s.get("name") == name)


def _bash(script: str, folder: Path, environment: dict[str, str]) -> int:
    """As the runner runs a step: GitHub's default shell."""
    ran = subprocess.run(["bash", "-e", "-c", script], cwd=folder, env=environment, capture_output=True, check=False)
    return ran.returncode


class Pipeline:
    """The two jobs on one machine: the artifact is a file that is carried from one folder to the other."""

    def __init__(self, folder: Path, checkout: Path) -> None:
        self.checkout, self.folder = checkout, folder
        self.tools, self.elsewhere = folder / "bin", folder / "comment"
        self.tools.mkdir()
        self.elsewhere.mkdir()
        self.tool("gh", GH)
        self.tool("uv", "#!/bin/sh\necho 'set-up was not to be made again' >&2\nexit 1\n")
        self.comments = folder / "comments.json"
        self.comments.write_text("[]")
        self.environment = {
            **os.environ,
            "PATH": f"{self.tools}:{os.environ['PATH']}",
            "PYTHONPATH": str(checkout),  # before the installed project, which is another checkout
            "PYTHONDONTWRITEBYTECODE": "1",
            "STACK": WORKFLOWS["plan.yml"]["env"]["STACK"],
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
            "GH_CALLS": str(folder / "calls"),
            "GH_BODY": str(folder / "body.md"),
            "GH_COMMENTS": str(self.comments),
            "REPOSITORY": "owner/name",
            "NUMBER": "7",
            "COMMIT": "0123abcd",
            "RESULT": "failure",
            "RUN": "https://example.invalid/run/1",
        }
        for name in ("requirements.lock", "pyproject.toml"):
            os.utime(checkout / name, (0, 0))  # older than .venv: set-up has nothing to do

    def tool(self, name: str, script: str) -> None:
        path = self.tools / name
        path.write_text(script)
        path.chmod(0o755)

    def run(self, *, planned: bool = True) -> Ran:
        """The job `diff`, then the job `comment` with what it left; without a plan if it was stopped before."""
        code = _bash(_script("diff", "ops plan"), self.checkout, self.environment) if planned else 1
        if planned:
            shutil.move(self.checkout / "plan.md", self.elsewhere / "plan.md")
        name = "Post the plan, or replace what was posted"
        assert _bash(_script("comment", name), self.elsewhere, self.environment) == 0
        read = {n: p.read_text() if (p := self.folder / n).exists() else "" for n in ("calls", "body.md", "summary.md")}
        return Ran(code=code, calls=read["calls"].splitlines(), body=read["body.md"], summary=read["summary.md"])


@pytest.fixture
def pipeline(tmp_path: Path, checkout: Path) -> Pipeline:
    if shutil.which("jq") is None:
        pytest.skip("jq, which gh has built in, is not on PATH")
    if not (CHECKOUT / ".venv" / ".synced").exists():
        pytest.skip("there is no .venv of `make setup`, which the workflow runs first")
    return Pipeline(tmp_path, checkout)


def test_a_good_plan_is_posted_with_what_it_does_and_what_it_is_of(pipeline: Pipeline) -> None:
    ran = pipeline.run()
    assert ran.code == 0
    first, headline = ran.body.splitlines()[:2]
    assert first == "<!-- ops plan ai-dev -->"
    assert re.fullmatch(r"### `ai-dev`: \d+ changed, .*\+\$0\.\d+/h", headline)
    assert "`coder-chat`: off -> up (goes up, first answer within" in ran.body.partition("<details>")[0]
    assert ran.body.endswith("<sub>0123abcd, [log](https://example.invalid/run/1)</sub>\n")
    assert ran.summary in ran.body
    assert [call.partition(" --jq")[0] for call in ran.calls] == [
        "api --paginate repos/owner/name/issues/7/comments",
        "api --method POST repos/owner/name/issues/7/comments --field body=@comment.md --silent",
    ]


def test_a_comment_of_ours_is_replaced_and_one_that_only_looks_like_it_is_not(pipeline: Pipeline) -> None:
    mark = "<!-- ops plan ai-dev -->"
    comments = [
        {"id": 1, "user": {"login": "somebody"}, "body": f"{mark}\nnot ours"},
        {"id": 2, "user": {"login": "github-actions[bot]"}, "body": f"see {mark}"},
        {"id": 3, "user": {"login": "github-actions[bot]"}, "body": "<!-- ops plan other -->\nanother stack"},
        {"id": 4, "user": {"login": "github-actions[bot]"}, "body": f"{mark}\nof the last push"},
    ]
    pipeline.comments.write_text(json.dumps(comments))
    ran = pipeline.run(planned=False)
    assert ran.calls[1] == "api --method PATCH repos/owner/name/issues/comments/4 --field body=@comment.md --silent"


def test_a_refused_plan_is_posted_with_its_problems_and_fails_the_check(pipeline: Pipeline) -> None:
    edit(pipeline.checkout, "Pulumi.ai-dev.yaml", "gpuQuota: 1", "gpuQuota: 0")
    try:
        ran = pipeline.run()
    finally:
        edit(pipeline.checkout, "Pulumi.ai-dev.yaml", "gpuQuota: 0", "gpuQuota: 1")
    assert ran.code == 2
    assert "### `ai-dev`: refused, 1 problem" in ran.body
    assert "pulumi config set gpuQuota 1" in ran.body


def test_a_program_that_crashes_posts_its_last_lines_without_secrets(pipeline: Pipeline) -> None:
    program = pipeline.checkout / "stacks" / "plan.py"
    text = program.read_text()
    secrets = "sk-0123456789abcdef https://me:pass-word@example.invalid ghp_0123456789abcdef"
    program.write_text(text.replace("from __future__ import annotations\n", f"raise RuntimeError('''{secrets}''')\n"))
    try:
        ran = pipeline.run()
    finally:
        program.write_text(text)
    assert ran.code not in (0, 2)
    assert f"### `ai-dev`: no plan, exit code {ran.code}" in ran.body
    assert "    RuntimeError: sk-... https://...@example.invalid ghp_..." in ran.body
    for secret in ("0123456789", "pass-word"):
        assert secret not in ran.body + ran.summary


def test_a_set_up_that_fails_posts_why(pipeline: Pipeline) -> None:
    pipeline.tool("uv", "#!/bin/sh\necho 'no such package: ```' >&2\nexit 1\n")
    os.utime(pipeline.checkout / "pyproject.toml", (4e9, 4e9))  # newer than .venv
    ran = pipeline.run()
    assert ran.code != 0
    assert "no plan, exit code" in ran.body
    # Indented, so that no fence of its own can end the block.
    assert "    no such package: ```" in ran.body


def test_a_job_that_was_stopped_leaves_a_comment_that_says_so(pipeline: Pipeline) -> None:
    ran = pipeline.run(planned=False)
    assert 'The job `diff` ended with "failure" before it wrote one.' in ran.body
    assert "[log](https://example.invalid/run/1)" in ran.body
