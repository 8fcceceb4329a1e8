"""`make bench`: what a plan costs in time: beside imports alone, beside the real engine, and as the catalog grows."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import pulumi
from rich.table import Table

from models.catalog import CATALOG
from models.spec import ModelSpec
from ops.config_files import load
from ops.console import output
from ops.engine import Recording, Registered, engine_config
from ops.engine import run as run_program
from stacks.admission import admit
from stacks.program import deploy

IMPORTS = "import pulumi, pulumi_kubernetes, pulumi_gcp.container"
_HERE = Path(__file__).parents[1]
_NO_BUDGET = ("maxMonthlyUsd=1000000", "maxHourlyUsd=1000000")  # a thousand models would be refused
PROJECT = "gcp:project=benchmark"  # the example's own is refused by `pulumi up`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("--models", type=int, nargs="*", default=[10, 100, 1000], help="sizes of a synthetic catalog")
    parser.add_argument("--repeat", type=int, default=5, help="the best of so many runs counts (default: 5)")


def run(args: argparse.Namespace) -> int:
    """Prints two tables. Judges nothing: on a busy machine every number is too high."""
    console = output()
    console.print(f"imports alone: python -c '{IMPORTS}'")
    console.print(start_up(args.repeat))
    console.print(growth(args.models))
    return 0


# --- whole processes -----------------------------------------------------------------------------------------


def start_up(repeat: int) -> Table:
    """Whole processes on `ai-dev`, the best of `repeat`: wall clock, and CPU, which a busy machine distorts less."""
    table = Table("process", "seconds", "x imports", "CPU seconds", "x imports", title="ai-dev, whole processes")
    imports = _best(repeat, [sys.executable, "-c", IMPORTS])
    plan = _best(repeat, [str(Path(sys.executable).with_name("ops")), "plan", "--set", PROJECT], cwd=_HERE)
    for name, cost in (("imports alone", imports), ("ops plan", plan)):
        table.add_row(name, *_beside(cost, imports))
    if shutil.which("pulumi") is None:
        table.add_row("pulumi preview", "no `pulumi` on PATH")
        return table
    with tempfile.TemporaryDirectory() as folder:
        try:
            table.add_row("pulumi preview", *_beside(_preview(Path(folder), repeat), imports))
        except subprocess.CalledProcessError as error:
            table.add_row("pulumi preview", f"failed: {_last_line(error)}")
    return table


class _Cost(NamedTuple):
    wall: float
    cpu: float


def _beside(cost: _Cost, base: _Cost) -> tuple[str, str, str, str]:
    return f"{cost.wall:.2f}", f"{cost.wall / base.wall:.1f}", f"{cost.cpu:.2f}", f"{cost.cpu / base.cpu:.1f}"


def _best(repeat: int, command: Sequence[str], **options: Any) -> _Cost:
    costs: list[_Cost] = []
    for _ in range(repeat):
        start, before = time.perf_counter(), _cpu_of_children()
        subprocess.run(command, check=True, capture_output=True, text=True, **options)
        costs.append(_Cost(time.perf_counter() - start, _cpu_of_children() - before))
    return _Cost(min(cost.wall for cost in costs), min(cost.cpu for cost in costs))


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _last_line(error: subprocess.CalledProcessError) -> str:
    return next((line for line in reversed(f"{error.stdout}{error.stderr}".splitlines()) if line.strip()), str(error))


def _preview(folder: Path, repeat: int) -> _Cost:
    """A real preview of a copy of this project, with a state and secrets of its own."""
    copy = folder / "project"
    copy.mkdir()
    for package in ("components", "models", "ops", "stacks"):
        shutil.copytree(_HERE / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("Pulumi.yaml", "Pulumi.ai-dev.yaml", "__main__.py"):
        shutil.copy(_HERE / file, copy)
    (copy / ".venv").symlink_to(sys.prefix)
    (folder / "state").mkdir()
    options: dict[str, Any] = {
        "cwd": copy,
        "env": {
            **os.environ,
            "PULUMI_BACKEND_URL": f"file://{folder}/state",
            "PULUMI_CONFIG_PASSPHRASE": "benchmark",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        },
    }
    config, secrets = engine_config(load(_HERE, "ai-dev", [PROJECT]))
    _best(1, ["pulumi", "stack", "init", "ai-dev", "--non-interactive"], **options)
    _best(1, ["pulumi", "config", "set", *PROJECT.split("=")], **options)
    for key in secrets:
        _best(1, ["pulumi", "config", "set", "--secret", key, config[key]], **options)
    _best(1, ["pulumi", "preview", "--non-interactive"], **options)  # bytecode, plugins
    return _best(repeat, ["pulumi", "preview", "--non-interactive"], **options)


# --- growth --------------------------------------------------------------------------------------------------


def growth(sizes: Sequence[int]) -> Table:
    """In-process plans of a synthetic catalog, each beside the same resources registered by the bare SDK."""
    table = Table(
        *("models", "resources", "CPU seconds", "ms a resource", "bare SDK", "our share", "peak MiB"),
        title="a synthetic catalog, in-process, imports excluded",
    )
    for size in sizes:
        # Of its own: what one run leaves behind must not slow down the next, or count in its peak.
        with get_context("spawn").Pool(1) as process:
            resources, ours, bare, peak = process.apply(_measure, (size,))
        per, base = 1000 * ours / resources, 1000 * bare / resources
        table.add_row(
            *(str(size), str(resources), f"{ours:.2f}", f"{per:.2f}", f"{base:.2f}", f"{per - base:.2f}", f"{peak}")
        )
    return table


def catalog_of(size: int) -> dict[str, ModelSpec]:
    """So many models: the catalog's own that run here, over and over, under other aliases."""
    own = [spec for spec in CATALOG.values() if spec.engine.runs_here]
    return {
        alias: spec.model_copy(update={"alias": alias})
        for number, spec in enumerate(islice(cycle(own), size))
        for alias in [f"m{number}-{spec.alias}"]
    }


def _measure(size: int) -> tuple[int, float, float, int]:
    """Resources, CPU seconds of a plan and of the bare SDK, peak memory of the plan in MiB."""
    gc.disable()  # as `ops plan` does
    # The first run is for the imports, and what the SDK finds out about its types.
    _plan(min(size, len(CATALOG)))
    start = time.process_time()
    recording = _plan(size)
    ours = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    gc.collect()
    start = time.process_time()
    again = run_program(load(_HERE, "ai-dev"), _bare(recording.resources))
    bare = time.process_time() - start
    if len(again.resources) != len(recording.resources):
        raise RuntimeError(f"{len(again.resources)} resources are not the {len(recording.resources)} to compare with")
    return len(recording.resources), ours, bare, peak


def _plan(size: int) -> Recording:
    raw = load(_HERE, "ai-dev", [PROJECT, *_NO_BUDGET])
    # Overrides of the stack file are for the real aliases.
    own = {key: value for key, value in raw.values.items() if key.partition(":")[0] in (raw.project, "gcp")}
    raw = type(raw)(project=raw.project, stack=raw.stack, values=own)
    admission = admit(raw, catalog_of(size), rehearsal=True)
    if admission.problems:
        raise RuntimeError("\n".join(map(str, admission.problems)))
    return run_program(raw, lambda: deploy(admission.plan))


def _bare(recorded: Sequence[Registered]) -> Callable[[], None]:
    """A program of nothing but the SDK: the same resources with constants for inputs, without our code."""

    def program() -> None:
        made: dict[str, pulumi.Resource] = {}
        for item in recorded[1:]:  # the first is the stack, which the SDK registers
            opts = pulumi.ResourceOptions(parent=made.get(item.parent))
            made[item.urn] = _register(item, opts)

    return program


def _register(item: Registered, opts: pulumi.ResourceOptions) -> pulumi.Resource:
    if not item.custom:
        return pulumi.ComponentResource(item.type, item.name, None, opts)
    if not item.type.startswith("kubernetes:"):
        return pulumi.CustomResource(item.type, item.name, dict(item.inputs), opts)
    _, api, kind = item.type.split(":")
    group, version = api.split("/")
    # `networking.k8s.io/v1` is `pulumi_kubernetes.networking.v1`.
    cls = getattr(importlib.import_module(f"pulumi_kubernetes.{group.partition('.')[0]}.{version}"), kind)
    inputs = {"string_data" if key == "stringData" else key: value for key, value in item.inputs.items()}
    return cls(item.name, opts=opts, **{key: inputs[key] for key in inputs.keys() - {"apiVersion", "kind"}})


def main() -> int:
    """`python -m ops.plan_speed`."""
    parser = argparse.ArgumentParser(prog="python -m ops.plan_speed", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
