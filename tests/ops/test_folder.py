"""The folder of `ops plan --out`: what a plan wrote is its own, by its list, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.errors import OpsError
from ops.plan.folder import LIST, NOTE, write
from tests.checkout import CHECKOUT
from tests.support import recorded

CONFIG_MAP = "03-configmap-gateway-litellm-config.yaml"


def planned(folder: Path, *assignments: str) -> list[str]:
    return write(recorded(*assignments, stack="local").resources, folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_list_names_every_file_with_its_checksum_and_a_second_run_writes_nothing(tmp_path: Path) -> None:
    names = planned(tmp_path)
    assert {*names, LIST} == {path.name for path in tmp_path.iterdir()}
    checked = subprocess.run(["sha256sum", "--check", "--quiet", LIST], cwd=tmp_path, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    before = {path: path.stat().st_ino for path in tmp_path.iterdir() if path.name != LIST}
    planned(tmp_path)
    assert {path: path.stat().st_ino for path in tmp_path.iterdir() if path.name != LIST} == before


def test_what_left_the_plan_is_removed_and_whatever_else_is_there_stays(tmp_path: Path) -> None:
    first = set(planned(tmp_path))
    for name in ("05-mine-of-my-own.yaml", "99-service-other.yaml", "kustomization.yaml", ".hidden"):
        (tmp_path / name).write_text("kept: true\n")
    second = set(planned(tmp_path, "groups.retrieval=false"))
    gone = first - second
    assert any("embeddings" in name for name in gone)
    there = {path.name for path in tmp_path.iterdir()}
    assert not there & gone
    assert there >= second | {"05-mine-of-my-own.yaml", "99-service-other.yaml", "kustomization.yaml", ".hidden"}


def _theirs(folder: Path) -> None:
    (folder / CONFIG_MAP).write_text("theirs: true\n")


def _link(folder: Path) -> None:
    (folder / "elsewhere").write_text("theirs\n")
    (folder / CONFIG_MAP).symlink_to(folder / "elsewhere")


def _dangling(folder: Path) -> None:
    (folder / NOTE).symlink_to(folder / "nowhere")


def _folder(folder: Path) -> None:
    (folder / CONFIG_MAP).mkdir()


def _list(folder: Path) -> None:
    (folder / LIST).write_text("my shopping\n")


def _empty_list(folder: Path) -> None:
    (folder / LIST).touch()


def _list_that_claims_mine(folder: Path) -> None:
    planned(folder)
    (folder / "mine.yaml").write_text("mine: true\n")
    with (folder / LIST).open("a") as file:
        file.write(f"{'0' * 64}  mine.yaml\n")


def _list_of_elsewhere(folder: Path) -> None:
    planned(folder)
    with (folder / LIST).open("a") as file:
        file.write(f"{'0' * 64}  ../other/mine.yaml\n")


def _list_of_no_name(folder: Path) -> None:
    planned(folder)
    with (folder / LIST).open("a") as file:
        file.write(f"{'0' * 64}  a\0b\n")


def _changed_since(folder: Path) -> None:
    planned(folder)
    with (folder / CONFIG_MAP).open("a") as file:
        file.write("# edited\n")


def _linked_since(folder: Path) -> None:
    planned(folder)
    (folder / CONFIG_MAP).rename(folder / "elsewhere")
    (folder / CONFIG_MAP).symlink_to(folder / "elsewhere")


@pytest.mark.parametrize(
    "prepare",
    [
        *(_theirs, _link, _dangling, _folder, _list, _empty_list),
        *(_list_that_claims_mine, _list_of_elsewhere, _list_of_no_name, _changed_since, _linked_since),
    ],
)
def test_what_no_plan_wrote_is_refused_before_anything_changes(prepare: Callable[[Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    prepare(folder)
    before = contents(folder)
    with pytest.raises(OpsError, match="nothing was written"):
        planned(folder, "groups.retrieval=false")
    assert contents(folder) == before


def test_a_link_for_a_folder_is_not_followed_and_its_target_is_named(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OpsError, match="symbolic link") as refused:
        planned(tmp_path / "link")
    assert str(tmp_path / "real") in refused.value.problem.remedy
    assert contents(tmp_path) == {}


def test_a_file_for_a_folder_is_refused_with_another_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OpsError, match="is a file"):
        planned(tmp_path / "file")
    with pytest.raises(OpsError, match="cannot be written"):
        planned(tmp_path / "file" / "inside")
    assert contents(tmp_path) == {"file": b"mine"}


def test_a_disk_that_is_full_is_told_and_the_next_run_goes_on(tmp_path: Path) -> None:
    """A limit on the size of files stands for it: the write itself fails, as on a full disk."""
    out = tmp_path / "out"
    planned(out, "groups.retrieval=false")
    before = contents(out)
    program = f"""
import resource
from pathlib import Path
from ops.plan.folder import write
from ops.errors import OpsError
from tests.support import recorded
resources = recorded(stack="local").resources
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
try:
    write(resources, Path({str(out)!r}))
except OpsError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert f"cannot be written to {out}: File too large" in done.stdout, done.stderr
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    after = contents(out)
    assert all(after[name] == content for name, content in before.items() if name not in (LIST, CONFIG_MAP, NOTE))
    assert set(planned(out)) | {LIST} == {path.name for path in out.iterdir()}
