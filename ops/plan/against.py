"""`ops plan --against`: the plan of another revision, another stack file or an earlier day, beside this one."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from ops.config_files import load
from ops.console import errors as console_of_errors
from ops.console import refusal
from ops.engine import run_main
from ops.errors import OpsError
from ops.plan import REFUSED
from ops.plan.data import plan_data
from ops.plan.diff.compare import compare, nothing
from ops.plan.diff.markdown import as_markdown, refused_markdown
from ops.plan.diff.report import as_data
from ops.plan.diff.resources import PlanData
from ops.plan.diff.text import as_text
from stacks.admission import admit
from stacks.problems import Problem, masked
from stacks.settings import RawConfig

_SUFFIXES = (".json", ".yaml", ".yml")


@dataclass(frozen=True, kw_only=True)
class Base:
    """The old side."""

    label: str  # "origin/main (1a2b3c4)"
    plan: PlanData
    note: str | None = None  # why it is empty or not to be compared with
    comparable: bool = True
    ours: bool = False  # made by this code: what is wrong in it is a bug, and nobody's file


def run_against(args: argparse.Namespace) -> int:
    """Print what lies between; 2 if this side is refused, or the step from the other side to it."""
    errors = console_of_errors()
    if args.out is not None or args.format == "yaml":
        raise OpsError("--against compares, and manifests come from a plan without it", "ops plan --format yaml")
    try:
        raw = load(args.project_dir, args.stack, args.assignments)
        with _other_side(args.project_dir, args.stack, args.against) as finish:
            new = _plan_here(raw, args.project_dir)
            problems = tuple(Problem(**p) for p in new["problems"])
            # What another revision has to say is of no use beside a refusal.
            base = None if problems else finish()
        if base is not None:
            problems, told = _compared(base, new, args.format)
        else:
            told = _refused(new, problems, args.format)
    except OpsError as error:
        if args.format == "markdown":
            sys.stdout.write(masked(f"### `{args.stack}`: not compared\n\n{error}\n"))
        raise
    # A comment is read by more people than a config file: what looks like a key is masked, wherever it stands.
    sys.stdout.write(masked(told))
    if problems:
        errors.print(refusal(problems))
        return REFUSED
    return 0


def _refused(new: PlanData, problems: Sequence[Problem], format_: str) -> str:
    """A refusal as text stands on standard error alone."""
    match format_:
        case "json":
            return json.dumps(new, indent=2) + "\n"
        case "markdown":
            return refused_markdown(new["stack"], problems)
        case _:
            return ""


# What comes of a value that is not of the kind that a plan has there.
_OF_WRONG_CONTENT = (TypeError, LookupError, AttributeError, ValueError, ArithmeticError, RecursionError)


def _compared(base: Base, new: PlanData, format_: str) -> tuple[tuple[Problem, ...], str]:
    """What stands against the step from one side to the other, and what lies between."""
    try:
        difference = compare(base.plan, new) if base.comparable else None
        sides = difference, base.label, base.note, new
        problems = difference.problems if difference else ()
        # Each is made, so that a plan that cannot be told is refused in every form.
        forms = {
            "json": json.dumps(as_data(*sides), indent=2) + "\n",
            "markdown": as_markdown(*sides),
            "text": as_text(*sides, width=_width()),
        }
        return problems, forms[format_]
    except _OF_WRONG_CONTENT as error:
        if base.ours:
            raise
        raise _no_plan(base.label, str(new["stack"]), f"{type(error).__name__}: {error}") from error


def _width() -> int | None:
    """Columns of the terminal; None where nobody reads the output as it is, so that lines can be searched."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _plan_here(raw: RawConfig, project_dir: Path) -> dict[str, Any]:
    """The plan by this code. With problems it has no resources."""
    admission = admit(raw, rehearsal=True)
    return plan_data(admission, [] if admission.problems else run_main(raw, project_dir).resources)


@contextmanager
def _other_side(project_dir: Path, stack: str, against: str) -> Generator[Callable[[], Base]]:
    """What returns the old side. A revision's plan is made by another process meanwhile."""
    path = Path(against)
    if path.suffix in _SUFFIXES:
        if not path.is_file():
            remedy = f"ops plan --format json > {against}" if path.suffix == ".json" else "ls Pulumi.*.yaml"
            raise OpsError(f"{against} is not there, so there is nothing to compare with", remedy)
        yield lambda: _saved(path, stack) if path.suffix == ".json" else _config_file(project_dir, stack, path)
        return
    commit = _commit(project_dir, against)
    with TemporaryDirectory(prefix="ops-plan-") as directory:
        label = f"{against} ({commit[:7]})"
        tree = Path(directory)
        _unpack(project_dir, commit, tree)
        missing = [name for name in ("ops/cli.py", f"Pulumi.{stack}.yaml") if not (tree / name).exists()]
        if missing:
            nothing = _nothing(label, stack, f"{label} has no {missing[0]}, so everything is new")
            yield lambda: nothing
            return
        with _planning(tree, stack) as process:
            yield lambda: _planned(process, label, stack)


def _nothing(label: str, stack: str, note: str) -> Base:
    return Base(label=label, plan=nothing(stack), note=note)


def _no_plan(label: str, stack: str, why: str) -> OpsError:
    return OpsError(f"{label} is not a plan ({why})", f"ops plan --stack {stack} --format json > FILE.json")


def _checked(plan: Any, label: str, stack: str) -> Base:
    """A plan that somebody else printed."""
    if wrong := next(_wrong(plan), None):
        raise _no_plan(label, stack, wrong)
    data = cast("dict[str, Any]", plan)
    if data["stack"] != stack:
        raise OpsError(
            f"{label} is a plan of the stack '{data['stack']}', and nothing in it has the names of '{stack}'",
            f"ops plan --stack {data['stack']} --against {label}",
        )
    if problems := cast("list[dict[str, Any]]", data.get("problems", [])):
        told = "; ".join(str(problem["message"]) for problem in problems)
        note = f"{label} is itself refused, so there is nothing to compare with: {told}"
        return Base(label=label, plan=data, note=note, comparable=False)
    return Base(label=label, plan=data)


# What every version has told of each. What else is wrong shows when it is compared.
_OF_PLAN: Mapping[str, type] = {"project": str, "stack": str, "resources": list, "models": list}
_OF_RESOURCE: Mapping[str, type] = {
    "urn": str,
    "type": str,
    "inputs": dict,
    "parent": str,
    "dependencies": list,
    "protect": bool,
    "retainOnDelete": bool,
}
_OF_MODEL: Mapping[str, type] = {"alias": str, "group": str, "state": str, "replicas": int, "gpus": int}
_OF_PROBLEM: Mapping[str, type] = {"message": str}
_KINDS = {str: "text", list: "a list", dict: "an object", bool: "true or false", int: "a whole number"}


def _wrong(plan: Any) -> Iterator[str]:
    """What of a plan is not there, or is something else."""
    yield from _untold(plan, _OF_PLAN, "it")
    data = cast("dict[str, Any]", plan)
    if not isinstance(data.get("problems", []), list):
        yield "problems is not a list"
    for section, kinds in (("resources", _OF_RESOURCE), ("models", _OF_MODEL), ("problems", _OF_PROBLEM)):
        for index, entry in enumerate(cast("list[object]", data.get(section, []))):
            yield from _untold(entry, kinds, f"{section}[{index}]")


def _untold(entry: Any, kinds: Mapping[str, type], where: str) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield f"{where} is not an object"
        return
    data = cast("dict[str, Any]", entry)
    for key, kind in kinds.items():
        if key not in data:
            yield f"{where} has no {key}"
        elif not isinstance(data[key], kind):
            yield f"{key} of {where} is not {_KINDS[kind]}"


def _saved(path: Path, stack: str) -> Base:
    try:
        plan = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise OpsError(f"{path} is not a saved plan ({error})", f"ops plan --format json > {path}") from error
    return _checked(plan, str(path), stack)


def _config_file(project_dir: Path, stack: str, path: Path) -> Base:
    """The same code on the other file, as if it were this stack's."""
    plan = _plan_here(load(project_dir, stack, stack_file=path), project_dir)
    return replace(_checked(plan, str(path), stack), ours=True)


# --- revisions -----------------------------------------------------------------------------------------------


def _git(project_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["git", "-C", project_dir, *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise OpsError("there is no git, which knows other revisions", "ops plan --against PLAN.json") from error


def _commit(project_dir: Path, revision: str) -> str:
    found = _git(project_dir, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if found.returncode:
        remote, _, branch = revision.partition("/")
        fetch = f"git fetch {remote} {branch}" if branch else "git fetch --all --tags"
        raise OpsError(f"'{revision}' is no revision that git has here, so there is nothing to compare with", fetch)
    return found.stdout.strip()


def _unpack(project_dir: Path, commit: str, tree: Path) -> None:
    """The files of a revision, without touching the checkout."""
    archive = tree / ".archive.tar"
    made = _git(project_dir, "archive", "--format=tar", f"--output={archive}", commit)
    if made.returncode:
        raise OpsError(f"git cannot read {commit}: {made.stderr.strip()}", f"git fsck {commit}")
    with tarfile.open(archive) as files:
        files.extractall(tree, filter="data")
    archive.unlink()


@contextmanager
def _planning(tree: Path, stack: str) -> Generator[subprocess.Popen[str]]:
    """Another process that plans a tree with that tree's code, and this environment's packages."""
    command = [sys.executable, "-m", "ops.cli", "plan", "--format", "json", "--stack", stack]
    # `-m` puts the working directory first on the path, before the installed project.
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "MODELS_LOCAL": ""}
    process = subprocess.Popen(
        command, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _planned(process: subprocess.Popen[str], label: str, stack: str) -> Base:
    stdout, stderr = process.communicate()
    if process.returncode in (0, REFUSED) and stdout.strip():
        try:
            plan = json.loads(stdout)
        except (ValueError, RecursionError):
            plan = None  # of a version that printed something else
        return _checked(plan, label, stack)
    last = stderr.strip().splitlines()[-1] if stderr.strip() else f"exit code {process.returncode}"
    raise OpsError(
        f"{label} cannot be planned with the packages that are installed here ({last}); save its plan with its own, "
        "and compare with that",
        f"ops plan --stack {stack} --format json > old.json   # there; here: ops plan --against old.json",
    )
