"""What the program renders for the gateway, and the one place where the tests get it from: a plan of `ai-dev`.

The proxy gets the ConfigMap's files as they are, hooks and all; only the models' addresses are replaced.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from models.spec import ModelSpec
from tests.catalog import CATALOG, GROUPS
from tests.checkout import clone

# Every alias that a stack can enable.
SERVED: Mapping[str, ModelSpec] = {
    alias: spec for alias, spec in CATALOG.items() if GROUPS[spec.group].unavailable is None
}


@dataclass(frozen=True)
class Rendered:
    """Of the gateway's resources, what a pod of it sees."""

    files: Mapping[str, str]  # the mounted directory of the proxy: config.yaml and the hooks
    model_state: str  # state.json
    keys: str  # keys.json of the reconcile job
    variables: Mapping[str, str]  # environment of the proxy that is neither a path, an address nor a secret
    migration: tuple[str, ...]  # command of the migration job

    @property
    def model_list(self) -> list[dict[str, Any]]:
        """`model_list` of config.yaml."""
        return yaml.safe_load(self.files["config.yaml"])["model_list"]


@cache
def rendered() -> Rendered:
    """The plan of `ai-dev`, by the program's own command in a clone."""
    with TemporaryDirectory() as folder:
        clone(Path(folder))
        done = subprocess.run(
            [sys.executable, "-m", "ops.cli", "plan", "--stack", "ai-dev", "--format", "json"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    objects: dict[tuple[str, str], Any] = {
        (resource["type"].rpartition(":")[2], resource["name"]): resource["inputs"]
        for resource in json.loads(done.stdout)["resources"]
    }
    proxy = _container(objects["Deployment", "litellm"])
    migration = _container(objects["Job", "litellm-migrate"])
    return Rendered(
        files=objects["ConfigMap", "litellm-config"]["data"],
        model_state=objects["ConfigMap", "litellm-model-state"]["data"]["state.json"],
        keys=objects["ConfigMap", "litellm-keys"]["data"]["keys.json"],
        variables={
            entry["name"]: entry["value"]
            for entry in proxy["env"]
            if "/" not in entry.get("value", "/") and "$" not in entry["value"]
        },
        migration=(*migration["command"], *migration["args"]),
    )


def _container(workload: Mapping[str, Any]) -> dict[str, Any]:
    return workload["spec"]["template"]["spec"]["containers"][0]


def files_at(url: str) -> dict[str, str]:
    """The rendered files with every model at one base URL; nothing else of them changes."""
    config = yaml.safe_load(rendered().files["config.yaml"])
    for entry in config["model_list"]:
        entry["litellm_params"]["api_base"] = f"{url}/v1"
    return {**rendered().files, "config.yaml": yaml.safe_dump(config, sort_keys=False)}
