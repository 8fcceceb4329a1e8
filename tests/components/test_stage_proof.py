"""What the staging program takes for complete: never half a snapshot, a wrong file, or a marker that proves nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.components.hub import Failure, Hub, sha256
from tests.components.staging import FILES, FIRST, OUT_OF_TIME, PATTERNS, SIZE, Claim, wanted

HTML = b"<!doctype html><title>Sign in to the network</title>"
AWAY = [
    (429, ""),
    (503, ""),
    (401, ""),
    (403, ""),
    (500, ""),
    (200, "a proxy's page"),
    (200, "[]"),
    (200, '[{"type": 1}]'),
]


def shards(count: int = 3) -> dict[str, bytes]:
    """A repository whose weights are in shards, which an index names."""
    names = [f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]
    index = {"weight_map": {f"layer.{n}": name for n, name in enumerate(names)}}
    return {
        "config.json": b"{}",
        "model.safetensors.index.json": json.dumps(index).encode(),
        **{name: bytes([n]) * 200_000 for n, name in enumerate(names)},
    }


def fail_always(hub: Hub, where: str, status: int, body: str = "") -> None:
    hub.failures.append(Failure(where, status, times=10_000, body=body.encode() or None))


@pytest.mark.parametrize(("status", "body"), AWAY)
def test_half_a_snapshot_is_never_served_whatever_the_hub_answers_next(tmp_path: Path, status: int, body: str) -> None:
    with Hub({FIRST: shards()}, default=FIRST, failures=[]) as hub:
        claim = Claim(tmp_path, hub)
        fail_always(hub, "00002-of-00003", 429)
        assert claim.stage(deadline=3).code == OUT_OF_TIME
        hub.failures.clear()
        fail_always(hub, "/", status, body)
        result = claim.stage(deadline=3)
        final = status in (401, 403) or body.startswith("[")  # a list of nothing lacks what the engine needs
        assert result.code == (1 if final else OUT_OF_TIME), result.output
        assert "nothing to download" not in result.output
        assert not (claim.cache / "served").exists()
        assert not list((claim.cache / ".staged").glob("*.json"))
        hub.failures.clear()
        hub.forget()
        assert claim.stage().code == 0
        assert claim.served == shards()
        assert hub.downloaded == ["model-00002-of-00003.safetensors"]  # the others were there


def old_marker(claim: Claim) -> None:
    """As the program wrote it that proved nothing: the files that happened to be there."""
    snapshot = claim.folder / "snapshots" / FIRST
    marker = claim.cache / ".staged" / f"{claim.folder.name.removeprefix('models--')}@{FIRST}.json"
    marker.parent.mkdir(exist_ok=True)
    files = {p.name: p.stat().st_size for p in snapshot.iterdir()}
    marker.write_text(
        json.dumps({"snapshot": f"{claim.folder.name}/snapshots/{FIRST}", "patterns": list(PATTERNS), "files": files})
    )


def test_a_marker_of_an_older_program_proves_nothing(tmp_path: Path) -> None:
    with Hub({FIRST: shards()}, default=FIRST, failures=[]) as hub:
        claim = Claim(tmp_path, hub)
        claim.stage()
        (claim.folder / "snapshots" / FIRST / "model-00003-of-00003.safetensors").unlink()
        old_marker(claim)
        hub.forget()
        assert claim.stage().code == 0
        assert claim.served == shards()
        assert hub.downloaded == []  # its content was there, without a name
        hub.forget()
        assert claim.stage().code == 0
        assert hub.requests == []


def test_what_an_older_program_left_is_not_served_unproven_while_the_hub_is_away(tmp_path: Path) -> None:
    with Hub({FIRST: shards()}, default=FIRST, failures=[]) as hub:
        claim = Claim(tmp_path, hub)
        claim.stage()
        old_marker(claim)
        fail_always(hub, "/", 429)
        result = claim.stage(deadline=3)
        assert result.code == OUT_OF_TIME
        assert "README" in result.last_line


# --- damage -------------------------------------------------------------------------------------------------------

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda body: b"",
    "zeros": lambda body: bytes(len(body)),
    "other content of its size": lambda body: bytes([body[0] ^ 1]) + body[1:],
    "cut by two percent": lambda body: body[: len(body) * 98 // 100],
    "longer": lambda body: body + b"\n",
    "a page": lambda body: HTML,
    "a page of its size": lambda body: (HTML * (len(body) // len(HTML) + 1))[: len(body)],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_file_is_brought_anew_and_no_other_is(claim: Claim, hub: Hub, name: str, damage: str) -> None:
    claim.stage()
    for copied in (False, True):
        if copied:  # by somebody, without a marker
            shutil.rmtree(claim.cache / ".staged")
        blob = (claim.folder / "snapshots" / FIRST / name).resolve()
        blob.write_bytes(DAMAGES[damage](FILES[name]))
        hub.forget()
        result = claim.stage()
        assert result.code == 0, result.output
        assert claim.served == wanted()
        assert hub.downloaded == [name]


def test_a_damaged_file_is_not_served_while_the_hub_is_away(claim: Claim, hub: Hub) -> None:
    claim.stage()
    (claim.folder / "snapshots" / FIRST / "model.safetensors").resolve().write_bytes(bytes(400_000))
    fail_always(hub, "/", 503)
    assert claim.stage(deadline=3).code == OUT_OF_TIME


def test_files_that_were_touched_are_read_again_and_served_without_the_hub(claim: Claim, hub: Hub) -> None:
    """A claim that was copied whole, marker and all: every time of change is another."""
    claim.stage()
    for blob in (claim.folder / "blobs").iterdir():
        os.utime(blob, (0, 0))
    hub.forget()
    fail_always(hub, "/", 503)
    assert claim.stage().code == 0
    assert hub.requests == []
    # Proven again, the new times are those that count.
    assert '"changed_ns": 0' in claim.marker.read_text()


def test_what_the_hub_sends_is_checked_too(claim: Claim, hub: Hub) -> None:
    for name, body in FILES.items():
        page = (HTML * 10_000)[: len(body)]  # of its length
        hub.failures += [Failure(f"{FIRST}/{name}", 200, body=page), Failure(f"{FIRST}/{name}", 200, body=HTML)]
    result = claim.stage()
    assert result.code == 0, result.output
    assert claim.served == wanted()
    assert "is not the file of this revision" in result.output
    assert "sends 52 bytes" in result.output


def test_a_copy_of_files_in_place_of_links_is_served_as_it_is(claim: Claim, hub: Hub) -> None:
    """`cp -rL`, or a file system without links."""
    claim.stage()
    snapshot = claim.folder / "snapshots" / FIRST
    for entry in snapshot.iterdir():
        content = entry.read_bytes()
        entry.unlink()
        entry.write_bytes(content)
    shutil.rmtree(claim.folder / "blobs")
    shutil.rmtree(claim.cache / ".staged")
    hub.forget()
    assert claim.stage().code == 0
    assert hub.downloaded == []
    assert claim.served == wanted()


def test_links_that_lead_out_of_what_the_engine_mounts_are_not_trusted(claim: Claim, tmp_path: Path) -> None:
    claim.stage()
    elsewhere = tmp_path / "elsewhere"
    entry = claim.folder / "snapshots" / FIRST / "model.safetensors"
    entry.resolve().rename(elsewhere)
    entry.unlink()
    entry.symlink_to(elsewhere)
    assert claim.stage().code == 0
    elsewhere.unlink()
    assert claim.served == wanted()


# --- wrong types --------------------------------------------------------------------------------------------------

MARKERS = [
    b"", b"null", b"[]", b"7", b'"text"', b"{}", b"\xff\xfe", b"[" * 100_000, b'{"files": []}',
    b'{"commit": 7, "patterns": null, "files": {"a": 1}}',
    b'{"commit": "' + b"a" * 40 + b'", "patterns": ["*.safetensors", "*.json"], "files": {}}',
    b'{"commit": "' + b"a" * 40 + b'", "patterns": ["*.safetensors", "*.json"], "files": {"../x": {"size": "1"}}}',
    b'{"snapshot": {}, "patterns": ["*.safetensors", "*.json"], "files": [["config.json", 1]]}',
    b'{"snapshot": "..", "patterns": ["*.safetensors", "*.json"], "files": {"config.json": "1"}}',
]  # fmt: skip


@pytest.mark.parametrize("text", MARKERS, ids=[str(i) for i in range(len(MARKERS))])
def test_a_marker_of_another_shape_is_none(claim: Claim, text: bytes) -> None:
    claim.stage()
    claim.marker.write_bytes(text)
    (claim.folder / "snapshots" / FIRST / "model.safetensors").unlink()
    result = claim.stage()
    assert result.code == 0, result.output
    assert claim.served == wanted()
    assert json.loads(claim.marker.read_text())["commit"] == FIRST


def _file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way")


def _full_directory(path: Path) -> None:
    _file(path / "deeper" / "file")


def _loop(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(path)


def _pipe(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


BLOB = f"models--some-org--some-model/blobs/{sha256(FILES['model.safetensors'])}"
MARKER = f".staged/some-org--some-model@{FIRST}.json"
FOLDER = "models--some-org--some-model"
SNAPSHOT = f"{FOLDER}/snapshots/{FIRST}"
IN_THE_WAY = {
    "file": (_file, ["", ".staged", "served", FOLDER, f"{FOLDER}/blobs", f"{FOLDER}/snapshots", SNAPSHOT]),
    "directory": (
        _full_directory,
        ["served", ".served.part", MARKER, f"{MARKER}.part", ".staged/lock", f"{SNAPSHOT}/config.json",
         BLOB, f"{BLOB}.incomplete"],
    ),
    "link to itself": (
        _loop,
        ["served", ".staged", FOLDER, SNAPSHOT, f"{SNAPSHOT}/config.json",
         BLOB, f"{BLOB}.incomplete"],
    ),
    "pipe": (_pipe, ["served", f"{SNAPSHOT}/config.json", BLOB, f"{BLOB}.incomplete"]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "where"), [(kind, where) for kind, (_, places) in IN_THE_WAY.items() for where in places]
)
def test_whatever_lies_in_the_way_makes_room(claim: Claim, kind: str, where: str) -> None:
    IN_THE_WAY[kind][0](claim.cache / where)
    result = claim.stage()
    assert result.code == 0, result.output
    assert claim.served == wanted()


def test_leftovers_are_removed_whatever_they_are(claim: Claim) -> None:
    blobs = claim.folder / "blobs"
    _file(blobs / f"{'f' * 64}.0b1c2d3e.incomplete")
    _full_directory(blobs / "directory")
    _loop(blobs / "loop")
    _pipe(blobs / "pipe")
    _full_directory(claim.folder / "snapshots" / ("e" * 40))
    _full_directory(claim.cache / "models--other--model")
    _file(claim.cache / ".staged" / f"some-org--some-model@{FIRST}.begun")
    assert claim.stage().code == 0
    assert {path.name for path in blobs.iterdir()} == {
        path.resolve().name for path in (claim.folder / "snapshots" / FIRST).iterdir()
    }
    assert [path.name for path in (claim.folder / "snapshots").iterdir()] == [FIRST]
    assert {path.name for path in claim.cache.iterdir()} == {FOLDER, "served", ".staged"}
    assert {path.name for path in (claim.cache / ".staged").iterdir()} == {"lock", claim.marker.name}


@pytest.mark.parametrize("index", ["null", '{"weight_map": []}', '{"weight_map": {"a": 7}}', "[" * 50_000, "<html>"])
def test_an_index_of_another_shape_is_the_engine_s_to_judge(tmp_path: Path, index: str) -> None:
    files = {**FILES, "model.safetensors.index.json": index.encode()}
    with Hub({FIRST: files}, default=FIRST, failures=[]) as hub:
        claim = Claim(tmp_path, hub)
        for _ in range(2):
            result = claim.stage()
            assert result.code == 0, result.output


@pytest.mark.parametrize("name", ["../../escaped.json", "/escaped.json", "a/../../escaped.json", ".", "..", ""])
def test_a_name_that_is_no_file_of_a_repository_is_not_written(
    claim: Claim, hub: Hub, tmp_path: Path, name: str
) -> None:
    hub.revisions[FIRST] = {**FILES, name: b"{}"}
    result = claim.stage(deadline=3)
    assert result.code == OUT_OF_TIME
    assert "no list of files" in result.output
    assert not list(tmp_path.rglob("escaped.json"))


def test_a_mirror_that_states_no_digests_in_one_answer_is_asked_for_them_page_by_page(claim: Claim, hub: Hub) -> None:
    hub.states_blobs = False
    assert claim.stage().code == 0
    assert claim.served == wanted()
    assert len([request for request in hub.requests if "/tree/" in request]) > 1


# --- which files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "kept"),
    [
        (("model-00001-of-00001.safetensors", "consolidated.safetensors"), ("model-00001-of-00001.safetensors",)),
        (("model.safetensors", "consolidated.safetensors"), ("model.safetensors",)),
        (("model.safetensors", "consolidated-00001.safetensors", "original/model.safetensors"), ("model.safetensors",)),
        (("model.safetensors", "2_Dense/model.safetensors"), ("model.safetensors", "2_Dense/model.safetensors")),
        (("consolidated.safetensors",), ("consolidated.safetensors",)),
    ],
)
def test_weights_that_a_repository_holds_twice_are_staged_once(
    tmp_path: Path, weights: tuple[str, ...], kept: tuple[str, ...]
) -> None:
    files = {"config.json": b"{}", **{name: name.encode() * 1000 for name in weights}}
    with Hub({FIRST: files}, default=FIRST, failures=[]) as hub:
        claim = Claim(tmp_path, hub)
        assert claim.stage().code == 0
        assert claim.served.keys() == {"config.json", *kept}
        hub.forget()
        assert claim.stage().code == 0
        assert hub.requests == []


def test_safetensors_that_the_index_passes_over_are_left_behind(tmp_path: Path) -> None:
    """Engines read those that it names. The others are in another precision, or Mistral's with its own index."""
    again = {"model.fp16.safetensors": b"H" * 9000, "consolidated.safetensors": b"C" * 9000}
    own = {"consolidated.safetensors.index.json": b'{"weight_map": {"a": "consolidated.safetensors"}}'}
    with Hub({FIRST: {**shards(), **again, **own}}, default=FIRST, failures=[]) as hub:
        claim = Claim(tmp_path, hub)
        result = claim.stage(size=sum(map(len, shards().values())))
        assert result.code == 0
        assert claim.served == {**shards(), **own}
        assert "another size" not in result.output


def test_an_index_that_names_what_is_not_staged_is_told(tmp_path: Path) -> None:
    with Hub({FIRST: shards()}, default=FIRST, failures=[]) as hub:
        result = Claim(tmp_path, hub).stage(files=("*.json", "*-00001-of-*"))
        assert result.code == 1
        assert "names model-00002-of-00003.safetensors in an index" in result.last_line
        assert "models/catalog" in result.last_line


def test_two_files_of_one_content_are_both_staged(tmp_path: Path) -> None:
    files = {f"{n}/same.json": b'{"a": 1}' for n in range(12)} | {f"{n}.safetensors": b"W" * 100_000 for n in range(6)}
    with Hub({FIRST: files}, default=FIRST, failures=[]) as hub:
        claim = Claim(tmp_path, hub)
        assert claim.stage().code == 0
        assert claim.served == files
        assert len(hub.downloaded) == 2


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    files = {**FILES, "added_tokens.json": b""}
    with Hub({FIRST: files}, default=FIRST, failures=[]) as hub:
        claim = Claim(tmp_path, hub)
        assert claim.stage().code == 0
        assert claim.served["added_tokens.json"] == b""


@pytest.mark.parametrize("off", [0.5, 1.0, 2.0])
def test_a_size_that_is_not_the_catalog_s_is_told_with_the_right_one(claim: Claim, off: float) -> None:
    result = claim.stage(size=int(SIZE * off))
    assert result.code == 0
    assert (f"bytes_on_disk of some-alias should be {SIZE:_}" in result.output) == (off != 1.0)


def test_a_token_is_shown_to_the_hub_and_to_nobody_that_it_leads_to(claim: Claim, hub: Hub) -> None:
    assert claim.stage(HF_TOKEN="hf_secret\n").code == 0
    assert hub.authorizations == {"Bearer hf_secret"}
    assert hub.seen_elsewhere == {""}


# --- digests of the catalog ------------------------------------------------------------------------------------


def digests(content: bytes) -> dict[str, Any]:
    return {"MODEL_DIGESTS": json.dumps({"model.safetensors": sha256(content)})}


def test_a_hub_that_lists_another_file_than_the_catalog_is_refused_before_anything_is_downloaded(
    tmp_path: Path,
) -> None:
    with Hub({FIRST: FILES}, default=FIRST, failures=[]) as hub:
        claim = Claim(tmp_path, hub)
        result = claim.stage(**digests(b"what the catalog has seen"))
        assert result.code == 1
        assert "has another model.safetensors than the catalog: SHA-256" in result.last_line
        assert "correct `sha256` of some-alias in models/catalog" in result.last_line
        assert not (claim.cache / "served").exists()
        assert claim.stage(**digests(FILES["model.safetensors"])).code == 0
        assert claim.served == wanted()


def test_what_is_on_the_claim_counts_only_with_the_digest_of_the_catalog(tmp_path: Path) -> None:
    with Hub({FIRST: FILES}, default=FIRST, failures=[]) as hub:
        claim = Claim(tmp_path, hub)
        assert claim.stage().code == 0
        assert "nothing to download" in claim.stage(**digests(FILES["model.safetensors"])).output
        result = claim.stage(**digests(b"another file"))
        assert result.code == 1, result.output
        assert "nothing to download" not in result.output
