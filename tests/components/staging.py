"""The staging program as a process against a hub on loopback: what a pod's init container does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.checkout import CHECKOUT
from tests.components.hub import REPO, Hub
from tests.patience import at_least

PROGRAM = CHECKOUT / "components" / "serving" / "stage_weights.py"
PYTHON = os.environ.get("STAGE_PYTHON", sys.executable)  # another interpreter: other versions of the hub's library
OUT_OF_TIME = 75  # exit code where waiting was not enough; 1 where it mends nothing
FIRST, SECOND = "a" * 40, "b" * 40
FILES = {
    "config.json": b'{"model_type": "qwen2"}',
    "tokenizer.json": b'{"version": "1.0"}',
    "model.safetensors": b"W" * 400_000,
    "README.md": b"not for the engine",
    "pytorch_model.bin": b"P" * 100_000,
}
WANTED = ("config.json", "model.safetensors", "tokenizer.json")
PATTERNS = ("*.safetensors", "*.json")
SIZE = sum(len(FILES[name]) for name in WANTED)

# Runs the program with waits that pass at once, on a clock that they move.
LAUNCHER = """
import builtins, io, os, runpy, sys, time
sleep, clock, skipped = time.sleep, time.monotonic, 0.0
def skip(seconds):
    global skipped
    if seconds < 1:
        return sleep(seconds)
    print(f"WAIT {seconds:.1f}", flush=True)
    skipped += seconds
time.sleep, time.monotonic = skip, lambda: clock() + skipped
if "FULL_DISK" in os.environ:
    opened = io.open
    class Full(io.FileIO):
        def write(self, data):
            raise OSError(28, "No space left on device")
    def on_full_disk(file, *args, **keywords):
        full = str(file).endswith(os.environ["FULL_DISK"])
        return io.BufferedRandom(Full(file, "r+b")) if full else opened(file, *args, **keywords)
    builtins.open = io.open = on_full_disk
for blocked in sys.argv[2:]:
    sys.modules[blocked] = None
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@dataclass
class Result:
    code: int
    output: str

    @property
    def waits(self) -> list[float]:
        """Pauses of the program itself; the hub's library has its own from some version on."""
        return [float(w) for w in re.findall(r"trying again in (\d+) s\nWAIT", self.output)]

    @property
    def pauses(self) -> list[float]:
        """Every pause."""
        return [float(w) for w in re.findall(r"WAIT (\S+)", self.output)]

    @property
    def last_line(self) -> str:
        return self.output.strip().splitlines()[-1]


class Claim:
    """A claim, and the init container that fills it."""

    def __init__(self, directory: Path, hub: Hub) -> None:
        self.cache = directory / "hub"
        self.hub = hub

    def environment(
        self,
        *,
        revision: str = FIRST,
        files: tuple[str, ...] = PATTERNS,
        size: int = SIZE,
        deadline: float = 600,
        **variables: str,
    ) -> dict[str, str]:
        """What a pod gives the program."""
        return {
            "PATH": os.environ["PATH"],
            "MODEL_ALIAS": "some-alias",
            "MODEL_ID": REPO,
            "MODEL_REVISION": revision,
            "MODEL_FILES": json.dumps(files),
            "MODEL_BYTES": str(size),
            "STAGE_DEADLINE_S": str(deadline),
            "HF_HUB_CACHE": str(self.cache),
            "HF_ENDPOINT": self.hub.url,
            "PYTHONDONTWRITEBYTECODE": "1",
            **variables,
        }

    def stage(self, *, blocked: tuple[str, ...] = (), **job: Any) -> Result:
        """The program as a pod runs it, but for pauses, which pass at once."""
        return self._run(PYTHON, "-c", LAUNCHER, str(PROGRAM), *blocked, env=self.environment(**job))

    def stage_in_real_time(self, **job: Any) -> Result:
        """The program as a pod runs it."""
        return self._run(PYTHON, str(PROGRAM), env=self.environment(**job))

    def start(self, **job: Any) -> subprocess.Popen[bytes]:
        """The same, not waited for; its words go to a file beside the claim."""
        with (self.cache.parent / "log").open("ab") as log:
            return subprocess.Popen([PYTHON, str(PROGRAM)], env=self.environment(**job), stdout=log, stderr=log)

    def _run(self, *command: str, env: dict[str, str]) -> Result:
        done = subprocess.run(
            command,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=at_least(60),
            check=False,
        )
        assert "Traceback" not in done.stdout
        return Result(done.returncode, done.stdout)

    @property
    def folder(self) -> Path:
        """The repository in the cache."""
        return self.cache / f"models--{REPO.replace('/', '--')}"

    @property
    def marker(self) -> Path:
        return next((self.cache / ".staged").glob("*.json"))

    @property
    def served(self) -> dict[str, bytes]:
        """What an engine finds behind the link."""
        root = self.cache / "served"
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def wanted(revision: str = FIRST, hub: Hub | None = None) -> dict[str, bytes]:
    files = hub.revisions[revision] if hub else FILES
    return {name: files[name] for name in WANTED}
