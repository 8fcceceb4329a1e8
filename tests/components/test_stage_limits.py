"""The staging program at its limits: time, room, another program beside it, and its own end at any instant."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.components.hub import Failure, Hub, sha256
from tests.components.staging import FILES, FIRST, OUT_OF_TIME, SECOND, Claim, wanted
from tests.patience import at_least, patient

WEIGHTS = "model.safetensors"
MIB = 2**20


# --- time ---------------------------------------------------------------------------------------------------------


def test_the_deadline_ends_a_download_that_trickles_and_the_next_start_goes_on_from_there(
    claim: Claim, hub: Hub
) -> None:
    hub.failures.append(Failure(WEIGHTS, 200, times=100, pace=40_000))
    started = time.monotonic()
    result = claim.stage_in_real_time(deadline=4)
    assert time.monotonic() - started < at_least(8)
    assert result.code == OUT_OF_TIME
    assert "gave up on" in result.last_line
    assert "goes on where this one was" in result.last_line
    here = (claim.folder / "blobs" / f"{sha256(FILES[WEIGHTS])}.incomplete").stat().st_size
    assert 0 < here < len(FILES[WEIGHTS])
    hub.failures.clear()
    hub.forget()
    assert claim.stage().code == 0
    assert claim.served == wanted()
    assert hub.sent[WEIGHTS] <= len(FILES[WEIGHTS]) - here + 4_000  # and what was on its way to the one that ended


@pytest.mark.parametrize("where", ["/revision/", WEIGHTS])
def test_the_deadline_ends_a_hub_that_says_nothing(claim: Claim, hub: Hub, where: str) -> None:
    hub.failures.append(Failure(where, 200, times=100, pace=0.01, body=b"[" * 1000))
    started = time.monotonic()
    result = claim.stage_in_real_time(deadline=3)
    assert time.monotonic() - started < at_least(7)
    assert result.code == OUT_OF_TIME
    assert "gave up on" in result.last_line


def test_a_connection_that_is_cut_again_and_again_brings_the_file_in_the_end(claim: Claim, hub: Hub) -> None:
    hub.failures.append(Failure(WEIGHTS, 0, times=8))  # each time half of what is missing comes
    result = claim.stage()
    assert result.code == 0, result.output
    assert hub.sent[WEIGHTS] == len(FILES[WEIGHTS])


@pytest.mark.parametrize(
    ("headers", "least"), [({"Retry-After": "77"}, 77), ({"RateLimit": '"resolvers";r=0;t=55'}, 55), ({}, 4)]
)
def test_the_pause_is_what_the_hub_says(claim: Claim, hub: Hub, headers: dict[str, str], least: int) -> None:
    hub.failures.append(Failure("/resolve/", 429, times=3, headers=headers))
    result = claim.stage()
    assert result.code == 0
    assert least <= result.waits[0] < least + 4


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["/revision/", "/resolve/"])
@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("token", ["", "hf_secret"])
def test_a_gated_model_is_refused_with_what_to_do(claim: Claim, hub: Hub, where: str, status: int, token: str) -> None:
    hub.failures.append(Failure(where, status, times=1000))
    result = claim.stage(HF_TOKEN=token)
    assert (result.code, result.waits) == (1, [])
    assert "pulumi config set --secret huggingFaceToken && pulumi up" in result.last_line
    # Without `gated` the entry gets no token, whatever config has.
    assert ("gated=True in the weights of some-alias" in result.last_line) == (not token)
    assert "hf_secret" not in result.output


@pytest.mark.parametrize(
    "variables",
    [
        {"HF_TOKEN": "hf\nsecret"},
        {"HF_ENDPOINT": "no address"},
        {"HF_ENDPOINT": ""},
        {"MODEL_FILES": "{"},
        {"MODEL_FILES": "7"},
        {"MODEL_BYTES": "much"},
        {"STAGE_DEADLINE_S": ""},
        {"MODEL_DIRECTORIES": "[7]"},
        {"HF_HUB_ETAG_TIMEOUT": "soon"},
    ],
)
def test_an_environment_that_says_no_job_is_told_in_a_line(claim: Claim, variables: dict[str, Any]) -> None:
    result = claim.stage(**variables)
    assert result.code == 1
    assert "secret" not in result.output


# --- room ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_claim(tmp_path: Path, hub: Hub) -> Iterator[Claim]:
    """A claim on a file system of its own, of 64 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={64 * MIB}", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system of 64 MiB")
    try:
        yield Claim(disk, hub)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def weigh(hub: Hub, size: int) -> dict[str, Any]:
    """Give the model weights of this size in both revisions."""
    for revision, letter in ((FIRST, b"W"), (SECOND, b"X")):
        hub.revisions[revision] = {**FILES, WEIGHTS: letter * size}
    return {"size": size}


def fill(path: Path) -> None:
    """A file that takes the last block of its file system. Raises OSError."""
    with path.open("wb", buffering=0) as out:
        while True:
            out.write(bytes(4096))


def test_a_claim_without_room_is_told_before_a_byte_with_what_is_on_it(small_claim: Claim, hub: Hub) -> None:
    job = weigh(hub, 60 * MIB)
    (small_claim.cache.parent / "theirs").write_bytes(bytes(20 * MIB))
    result = small_claim.stage(**job)
    assert (result.code, hub.downloaded) == (1, [])
    assert "has no room for" in result.last_line
    assert "0.02 of other files" in result.last_line
    assert "pulumi config set some-alias:claimGib" in result.last_line
    assert (small_claim.cache.parent / "theirs").exists()


def test_leftovers_and_other_revisions_make_room(small_claim: Claim, hub: Hub) -> None:
    job = weigh(hub, 30 * MIB)
    assert small_claim.stage(**job).code == 0
    orphan = small_claim.folder / "blobs" / f"{'f' * 64}.0b1c.incomplete"
    orphan.write_bytes(bytes(10 * MIB))
    result = small_claim.stage(revision=SECOND, **job)
    assert result.code == 0, result.output
    assert small_claim.served[WEIGHTS] == b"X" * 30 * MIB
    assert not orphan.exists()


def test_a_damaged_file_is_not_what_leaves_no_room_for_itself(small_claim: Claim, hub: Hub) -> None:
    job = weigh(hub, 40 * MIB)
    assert small_claim.stage(**job).code == 0
    (small_claim.cache / "served" / WEIGHTS).resolve().write_bytes(bytes(40 * MIB))
    result = small_claim.stage(**job)
    assert result.code == 0, result.output
    assert small_claim.served[WEIGHTS] == b"W" * 40 * MIB


def test_what_is_there_already_needs_no_room_again(small_claim: Claim, hub: Hub) -> None:
    job = weigh(hub, 50 * MIB)
    assert small_claim.stage(**job).code == 0
    shutil.rmtree(small_claim.folder / "snapshots")
    assert small_claim.stage(**job).code == 0
    partial = small_claim.folder / "blobs" / f"{sha256(b'W' * 50 * MIB)}.incomplete"
    (small_claim.cache / "served" / WEIGHTS).resolve().rename(partial)
    with partial.open("r+b") as out:
        out.truncate(45 * MIB)
    hub.forget()
    assert small_claim.stage(**job).code == 0
    assert hub.sent[WEIGHTS] == 5 * MIB


def test_compiled_code_gives_way_to_weights(small_claim: Claim, hub: Hub) -> None:
    job = weigh(hub, 40 * MIB)
    compiled = small_claim.cache.parent / "compile"
    (compiled / "torch_compile_cache").mkdir(parents=True)
    (compiled / "torch_compile_cache" / "kernel").write_bytes(bytes(30 * MIB))
    result = small_claim.stage(MODEL_DIRECTORIES=json.dumps([str(compiled)]), **job)
    assert result.code == 0, result.output
    assert list(compiled.iterdir()) == []
    assert f"emptying {compiled}" in result.output


@pytest.mark.parametrize("revision", [FIRST, ""])
def test_a_model_that_is_proven_comes_up_on_a_full_disk(small_claim: Claim, hub: Hub, revision: str) -> None:
    assert small_claim.stage(revision=revision).code == 0
    with pytest.raises(OSError, match="No space"):
        fill(small_claim.cache.parent / "filler")
    hub.forget()
    result = small_claim.stage(revision=revision)
    assert result.code == 0, result.output
    assert hub.requests == []


@pytest.mark.parametrize(("limit", "kept"), [(2 * MIB, False), (4 * MIB, True)])
def test_compiled_code_is_kept_until_it_outgrows_its_share(
    claim: Claim, tmp_path: Path, limit: int, kept: bool
) -> None:
    compiled = tmp_path / "compile"
    (compiled / "deeper").mkdir(parents=True)
    (compiled / "deeper" / "kernel").write_bytes(bytes(3 * MIB))
    job: dict[str, Any] = {"MODEL_DIRECTORIES": json.dumps([str(compiled)]), "MODEL_DIRECTORY_BYTES": str(limit)}
    result = claim.stage(**job)
    assert result.code == 0
    assert (compiled / "deeper" / "kernel").exists() == kept
    assert compiled.is_dir()
    assert ("the engine compiles anew" in result.output) == (not kept)


def test_a_disk_that_is_full_of_compiled_code_is_not_blamed_on_the_weights(claim: Claim, tmp_path: Path) -> None:
    compiled = tmp_path / "compile"
    compiled.mkdir()
    (compiled / "kernel").write_bytes(bytes(64 * MIB))
    result = claim.stage(MODEL_DIRECTORIES=json.dumps([str(compiled)]), FULL_DISK=".incomplete")
    assert result.code == 1
    assert "0.06 of compiled code" in result.last_line


# --- its own end, and another one beside it ------------------------------------------------------------------------


def holds(claim: Claim) -> None:
    """What is true of a claim at any instant: a marker is a proof."""
    markers = list((claim.cache / ".staged").glob("*.json"))
    for marker in markers:
        for name in json.loads(marker.read_text())["files"]:
            assert (claim.folder / "snapshots" / FIRST / name).read_bytes() == FILES[name]
    if (claim.cache / "served").exists():
        assert markers


def test_killed_at_any_instant_it_leaves_nothing_that_is_served_by_mistake(claim: Claim, hub: Hub) -> None:
    hub.failures.append(Failure("/", 200, times=10_000, pace=600_000))
    dice = random.Random(13)  # noqa: S311
    ends = list[int]()
    for _ in range(15):
        program = claim.start()
        time.sleep(dice.uniform(0.05, 1.5))
        program.kill()
        ends.append(program.wait())
        holds(claim)
        if ends[-1] == 0:
            shutil.rmtree(claim.cache / ".staged")
            (claim.cache / "served").unlink()
    hub.failures.clear()
    assert claim.stage().code == 0
    assert claim.served == wanted()
    assert -signal.SIGKILL in ends
    assert sorted(p.name for p in (claim.folder / "blobs").iterdir() if p.name.endswith(".incomplete")) == []


def test_a_pod_that_is_deleted_ends_at_once(claim: Claim, hub: Hub) -> None:
    hub.failures.append(Failure(WEIGHTS, 200, times=100, pace=1000))
    program = claim.start()
    for _ in patient(30):
        if hub.sent.get(WEIGHTS):
            break
    program.terminate()
    assert program.wait(timeout=at_least(5)) == 128 + signal.SIGTERM


def test_two_pods_on_one_claim_download_once(claim: Claim, hub: Hub) -> None:
    hub.failures.append(Failure(WEIGHTS, 200, times=100, pace=200_000))
    programs = [claim.start() for _ in range(3)]
    assert [program.wait(timeout=at_least(60)) for program in programs] == [0, 0, 0]
    assert claim.served == wanted()
    assert hub.downloaded.count(WEIGHTS) == 1
    assert "another pod stages on this claim" in (claim.cache.parent / "log").read_text()


def test_a_pod_that_waits_for_another_one_gives_up_at_its_deadline(claim: Claim, hub: Hub) -> None:
    hub.failures.append(Failure(WEIGHTS, 200, times=100, pace=1000))
    first = claim.start()
    for _ in patient(30):
        if hub.sent.get(WEIGHTS):
            break
    second = claim.stage_in_real_time(deadline=2)
    first.kill()
    first.wait()
    assert second.code == OUT_OF_TIME
    assert "another pod stages on this claim" in second.last_line


def test_a_claim_that_cannot_be_written_is_told_with_the_command(claim: Claim) -> None:
    result = claim.stage(HF_HUB_CACHE="/proc/hub")  # refused to root as well
    assert result.code == 1
    assert "chown -R" in result.last_line
