"""The staging program and the hub's library, in the versions that images carry: what one leaves, the other reads."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.components.hub import REPO, Failure, Hub
from tests.components.hub_library import LOCKED, VERSIONS, python_with
from tests.components.libraries import UnavailableError
from tests.components.staging import FILES, FIRST, OUT_OF_TIME, PATTERNS, SECOND, Claim, wanted
from tests.patience import at_least, patient

every_version = pytest.mark.parametrize("version", VERSIONS)
KEEPS_THE_LIST = LOCKED  # of the versions here, the one that writes trees/<commit>.json

# What vLLM does, offline, and what `hf download` does.
LIBRARY = """
import json, sys
from huggingface_hub import snapshot_download
print(snapshot_download(**json.loads(sys.argv[1])))
"""


class Library:
    """One version of it, as a program of its own."""

    def __init__(self, version: str, claim: Claim) -> None:
        try:
            self._python = python_with(version)
        except UnavailableError as error:
            pytest.skip(str(error))
        self.claim = claim

    def _command(self, arguments: dict[str, object]) -> list[str]:
        asked = {"repo_id": REPO, "revision": FIRST, "cache_dir": str(self.claim.cache), **arguments}
        return [self._python, "-c", LIBRARY, json.dumps(asked)]

    def _environment(self, **variables: str) -> dict[str, str]:
        return {
            **self.claim.environment(),
            "HF_HOME": str(self.claim.cache.parent / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **variables,
        }

    def download(self, **arguments: object) -> None:
        """`hf download`, to its end."""
        command = self._command({"allow_patterns": list(PATTERNS), **arguments})
        subprocess.run(command, env=self._environment(), check=True, capture_output=True, timeout=at_least(120))

    def begin(self, **arguments: object) -> subprocess.Popen[bytes]:
        """`hf download`, not waited for."""
        command = self._command({"allow_patterns": list(PATTERNS), **arguments})
        return subprocess.Popen(command, env=self._environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def found_offline(self, **arguments: object) -> dict[str, bytes]:
        """What an engine finds that is started with `--model` and `--revision`, and may not ask the hub."""
        command = self._command(arguments)
        done = subprocess.run(
            command, env=self._environment(HF_HUB_OFFLINE="1"), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return {p.name: p.read_bytes() for p in Path(done.stdout.strip().splitlines()[-1]).iterdir()}


@every_version
def test_an_engine_of_any_version_finds_what_is_staged(claim: Claim, hub: Hub, version: str) -> None:
    library = Library(version, claim)
    assert claim.stage().code == 0
    hub.forget()
    assert library.found_offline() == wanted()
    assert claim.stage(revision="").code == 0
    assert library.found_offline(revision="main") == wanted(SECOND, hub)
    assert not any("/resolve/" in request for request in hub.requests if FIRST in request)


@every_version
def test_a_copy_of_any_version_s_download_is_proven_and_not_downloaded(claim: Claim, hub: Hub, version: str) -> None:
    library = Library(version, claim)
    library.download()
    hub.forget()
    result = claim.stage()
    assert result.code == 0, result.output
    assert hub.downloaded == []
    assert claim.served == wanted() == library.found_offline()


def test_a_copy_with_the_library_s_own_list_needs_no_hub(claim: Claim, hub: Hub) -> None:
    """Which is what the README has a user do where the hub limits the cluster's address."""
    library = Library(KEEPS_THE_LIST, claim)
    library.download(allow_patterns=None)
    hub.forget()
    result = claim.stage()
    assert result.code == 0, result.output
    assert "is copied onto the claim" in result.output
    assert hub.requests == []
    assert {name: claim.served[name] for name in wanted()} == wanted()
    assert claim.stage().code == 0
    assert hub.requests == []


@pytest.mark.parametrize(
    "list_says", ["null", "[]", "{", '{"format_version": 2, "files": {}}', '{"format_version": 1}']
)
def test_a_list_of_another_shape_is_none(claim: Claim, hub: Hub, list_says: str) -> None:
    assert claim.stage().code == 0
    (claim.cache / ".staged").rename(claim.cache.parent / "moved")
    tree = claim.folder / "trees" / f"{FIRST}.json"
    tree.parent.mkdir()
    tree.write_text(list_says)
    hub.forget()
    assert claim.stage().code == 0
    assert hub.requests != []
    assert hub.downloaded == []


@every_version
def test_a_download_of_any_version_that_was_killed_is_completed(tmp_path: Path, version: str) -> None:
    """With what it leaves: half files under names of its own, links to the whole ones, its list of them all."""
    files = {**FILES, "model-2.safetensors": b"X" * 400_000}
    with Hub({FIRST: files}, default=FIRST, failures=[Failure("model-2", 200, times=100, pace=100_000)]) as hub:
        claim = Claim(tmp_path, hub)
        program = Library(version, claim).begin(max_workers=1)
        for _ in patient(60):
            if hub.sent.get("model-2.safetensors", 0) > 50_000:
                break
        time.sleep(0.2)
        program.kill()
        program.wait()
        assert list(claim.folder.glob("blobs/*.incomplete"))
        hub.failures.clear()
        hub.forget()
        hub.failures.append(Failure("/api/models/", 429, times=1000))
        half = claim.stage(deadline=3)
        assert (half.code, "nothing to download" in half.output) == (OUT_OF_TIME, False)
        hub.failures.clear()
        result = claim.stage()
        assert result.code == 0, result.output
        assert claim.served == {name: files[name] for name in (*wanted(), "model-2.safetensors")}
        assert not list(claim.folder.glob("blobs/*.incomplete"))
