"""The staging program itself: what it leaves on a claim, and what it says when it cannot."""

from __future__ import annotations

import json
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from tests.components.hub import REPO, Failure, Hub
from tests.components.staging import FILES, FIRST, OUT_OF_TIME, SECOND, WANTED, Claim, wanted


def test_only_the_wanted_files_of_the_pinned_revision_are_staged(claim: Claim, hub: Hub) -> None:
    result = claim.stage()
    assert result.code == 0, result.output
    assert claim.served == wanted()
    assert sorted(hub.downloaded) == sorted(WANTED)
    assert not any(SECOND in request for request in hub.requests)


def test_the_link_that_an_engine_follows_holds_under_any_mount_path(claim: Claim, tmp_path: Path) -> None:
    claim.stage()
    target = (claim.cache / "served").readlink()
    assert not target.is_absolute()
    assert target.name == FIRST
    elsewhere = tmp_path / "other"
    claim.cache.rename(elsewhere)
    assert (elsewhere / "served" / "config.json").read_bytes() == FILES["config.json"]


def test_a_warm_start_asks_nobody_and_needs_no_hub_library(claim: Claim, hub: Hub) -> None:
    claim.stage()
    hub.requests.clear()
    result = claim.stage(blocked=("huggingface_hub",))
    assert result.code == 0, result.output
    assert hub.requests == []
    assert "nothing to download" in result.output


def test_without_a_pinned_revision_the_default_branch_is_staged_and_found_again_offline(claim: Claim, hub: Hub) -> None:
    assert claim.stage(revision="").code == 0
    assert claim.served == wanted(SECOND, hub)
    hub.requests.clear()
    assert claim.stage(revision="", blocked=("huggingface_hub",)).code == 0
    assert hub.requests == []
    # The engine is started without a revision then, and looks the branch up in the cache.
    assert (claim.cache / f"models--{REPO.replace('/', '--')}" / "refs" / "main").read_text() == SECOND


@pytest.mark.parametrize("where", ["/api/", "/resolve/"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_rate_limit_or_an_outage_is_waited_out_with_growing_pauses(
    claim: Claim, hub: Hub, where: str, status: int
) -> None:
    hub.failures.append(Failure(where, status, times=40))  # the hub's library answers some of them by itself
    result = claim.stage(deadline=100_000)
    assert result.code == 0, result.output
    assert claim.served == wanted()
    assert 4 <= result.waits[0] <= 6
    assert all(later > earlier for earlier, later in pairwise(result.waits[:4]))


def test_the_pause_that_the_hub_asks_for_is_kept(claim: Claim, hub: Hub) -> None:
    hub.failures.append(Failure("/api/", 429, times=1, headers={"Retry-After": "77"}))
    result = claim.stage()
    assert result.code == 0, result.output
    assert any(77 <= pause < 80 for pause in result.pauses)


def test_a_hub_that_stays_away_is_given_up_on_at_the_deadline_with_the_way_out(claim: Claim, hub: Hub) -> None:
    hub.failures.append(Failure("/api/", 429, times=1000))
    result = claim.stage(deadline=40)
    assert result.code == OUT_OF_TIME
    assert sum(result.waits) <= 40
    assert "gave up on" in result.last_line
    assert "README" in result.last_line


def test_a_download_that_is_cut_is_taken_up_again(claim: Claim, hub: Hub) -> None:
    hub.failures.append(Failure("GET /some-org/some-model/resolve/" + FIRST + "/model.safetensors", 0))
    result = claim.stage()
    assert result.code == 0, result.output
    assert claim.served == wanted()


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (401, {"X-Error-Code": "RepoNotFound"}, "huggingFaceToken"),
        (403, {"X-Error-Code": "GatedRepo"}, "huggingFaceToken"),
        (404, {"X-Error-Code": "RepoNotFound"}, "models/catalog"),
    ],
)
def test_what_waiting_does_not_mend_fails_at_once_with_the_remedy(
    claim: Claim, hub: Hub, status: int, headers: dict[str, str], said: str
) -> None:
    hub.failures.append(Failure("/", status, times=1000, headers=headers))
    result = claim.stage()
    assert (result.code, result.waits) == (1, [])
    assert f"({status})" in result.last_line
    assert said in result.last_line
    assert "pulumi up" in result.last_line


def test_an_unknown_revision_fails_at_once(claim: Claim) -> None:
    result = claim.stage(revision="c" * 40)
    assert (result.code, result.waits) == (1, [])
    assert "does not know" in result.last_line


def test_a_token_is_shown_to_the_hub_and_not_in_the_log(claim: Claim, hub: Hub) -> None:
    result = claim.stage(HF_TOKEN="hf_secretsecretsecret")
    assert result.code == 0
    assert "Bearer hf_secretsecretsecret" in hub.authorizations
    assert "hf_secretsecretsecret" not in result.output


def test_a_claim_that_is_too_small_is_named_before_anything_is_downloaded(claim: Claim, hub: Hub) -> None:
    result = claim.stage(size=10**15)
    assert (result.code, hub.requests) == (1, [])
    assert "pulumi config set some-alias:claimGib" in result.last_line


def test_a_claim_that_fills_up_on_the_way_is_named_with_a_larger_size(claim: Claim) -> None:
    result = claim.stage(FULL_DISK=".incomplete")
    assert (result.code, result.waits) == (1, [])
    assert "has no room for" in result.last_line
    assert "pulumi config set some-alias:claimGib" in result.last_line


def test_a_file_that_the_engine_needs_and_the_repository_lacks_is_named(claim: Claim) -> None:
    result = claim.stage(files=("*.safetensors", "merges.txt"))
    assert result.code == 1
    assert "no file 'merges.txt'" in result.last_line
    assert not list((claim.cache / ".staged").glob("*.json"))


def test_a_download_that_was_interrupted_is_completed_and_never_taken_for_complete(claim: Claim, hub: Hub) -> None:
    """The weights are there, a pattern matches, the size is right to a percent: only a small file is missing."""
    hub.failures.append(Failure("/tokenizer.json", 503, times=1000))
    assert claim.stage(deadline=3).code == OUT_OF_TIME
    hub.failures.clear()
    result = claim.stage()
    assert result.code == 0, result.output
    assert claim.served == wanted()


def test_a_snapshot_that_lost_a_file_is_staged_again(claim: Claim) -> None:
    claim.stage()
    (claim.cache / "served" / "model.safetensors").resolve().unlink()
    assert claim.stage().code == 0
    assert claim.served == wanted()


def test_another_list_of_files_is_staged_again(claim: Claim) -> None:
    claim.stage(files=("*.json",), size=40)
    assert "model.safetensors" not in claim.served
    claim.stage()
    assert claim.served == wanted()


def test_another_revision_replaces_the_one_before(claim: Claim, hub: Hub) -> None:
    claim.stage()
    result = claim.stage(revision=SECOND)
    assert result.code == 0, result.output
    assert claim.served == wanted(SECOND, hub)
    snapshots = claim.cache / f"models--{REPO.replace('/', '--')}" / "snapshots"
    assert [s.name for s in snapshots.iterdir()] == [SECOND]
    blobs = [b.read_bytes() for b in (snapshots.parent / "blobs").iterdir()]
    assert FILES["model.safetensors"] not in blobs


def test_the_directories_of_an_engine_are_made_by_the_user_who_writes_there(claim: Claim, tmp_path: Path) -> None:
    compile_cache = tmp_path / "compile"
    assert claim.stage(MODEL_DIRECTORIES=json.dumps([str(compile_cache)])).code == 0
    assert compile_cache.is_dir()


def test_weights_that_somebody_copied_are_proven_by_the_hub_s_list_and_not_downloaded(
    claim: Claim, hub: Hub, tmp_path: Path
) -> None:
    elsewhere = Claim(tmp_path / "laptop", hub)
    elsewhere.stage()
    for ours in (".staged", "served"):
        subprocess.run(["rm", "-r", str(elsewhere.cache / ours)], check=True)
    elsewhere.cache.rename(claim.cache)
    hub.forget()
    result = claim.stage()
    assert result.code == 0, result.output
    assert hub.downloaded == []
    assert claim.served == wanted()


def test_copied_weights_that_are_not_whole_are_completed(claim: Claim) -> None:
    claim.stage()
    (claim.cache / "served" / "model.safetensors").unlink()
    subprocess.run(["rm", "-r", str(claim.cache / ".staged")], check=True)
    assert claim.stage().code == 0
    assert claim.served == wanted()


def test_copied_weights_without_one_of_their_shards_are_completed(tmp_path: Path) -> None:
    """The index names it; the size would not show that so small a one is missing."""
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    files = {
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-1.safetensors": b"W" * 400_000,
        "model-2.safetensors": b"W",
    }
    with Hub({FIRST: files}, default=FIRST, failures=[]) as hub:
        claim = Claim(tmp_path, hub)
        claim.stage()
        (claim.cache / "served" / "model-2.safetensors").unlink()
        subprocess.run(["rm", "-r", str(claim.cache / ".staged")], check=True)
        assert claim.stage().code == 0
        assert claim.served == files
