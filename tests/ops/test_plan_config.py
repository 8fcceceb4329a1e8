"""Stack files and `--set`, read as the Pulumi CLI reads them (measured on a real one)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ops.config_files import ConfigFileError, load
from stacks.settings import RawConfig
from tests.support import PROJECT_DIR


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "Pulumi.yaml").write_text("name: demo\nruntime: python\n")
    return tmp_path


def read(project: Path, stack_file: str, *assignments: str) -> RawConfig:
    (project / "Pulumi.dev.yaml").write_text(stack_file)
    return load(project, "dev", assignments)


def value(project: Path, written: str) -> str:
    """What the program gets for a value in a stack file."""
    return read(project, f"config:\n  key: {written}\n").values["demo:key"]


@pytest.mark.parametrize(
    ("written", "arrives"),
    [
        # YAML as go-yaml reads it; PyYAML would make booleans and a sexagesimal number of these.
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("12:30", "12:30"),
        ("2026-08-20", "2026-08-20"),
        # typed, and handed over as text
        ("true", "true"),
        ("True", "true"),
        ("1", "1"),
        ("1.0", "1"),
        ("1.5", "1.5"),
        ("1e3", "1000"),
        ("0x10", "16"),
        ("-3", "-3"),
        ('"1.0"', "1.0"),
        ('"true"', "true"),
        ("''", ""),
        ("plain text", "plain text"),
        # objects become JSON
        ("{b: 1, a: [true, yes]}", '{"a":[true,"yes"],"b":1}'),
        ("[]", "[]"),
        ("{n: 1.0}", '{"n":1.0}'),
    ],
)
def test_a_value_arrives_as_the_cli_hands_it_over(project: Path, written: str, arrives: str) -> None:
    assert value(project, written) == arrives


def test_bare_keys_get_the_project_s_prefix_and_old_spellings_lose_theirs(project: Path) -> None:
    found = read(project, "config:\n  bare: 1\n  other:key: 2\n  old:config:key: 3\n").values
    assert found == {"demo:bare": "1", "other:key": "2", "old:key": "3"}


def test_a_stack_s_value_replaces_the_project_s_whole(project: Path) -> None:
    (project / "Pulumi.yaml").write_text(
        "name: demo\nconfig:\n  object:\n    value: {a: 1, b: 2}\n  kept:\n    value: 5\n  other:key:\n    value: 6\n"
    )
    found = read(project, "config:\n  object: {a: 3}\n").values
    assert found == {"demo:object": '{"a":3}', "demo:kept": "5", "other:key": "6"}


def test_encrypted_values_are_known_by_key_and_never_by_value(project: Path) -> None:
    found = read(
        project,
        "config:\n  one: {secure: v1:CIPHER}\n  many: {a: {secure: v1:CIPHER}, b: {secure: v1:CIPHER}}\n  open: 1\n",
    )
    assert found.values == {"demo:open": "1"}
    assert set(found.secrets) == {"demo:one", "demo:many"}
    assert found.secrets["demo:one"] is None
    assert json.loads(found.secrets["demo:many"] or "") == {"a": None, "b": None}
    assert "CIPHER" not in repr(found)
    assert "CIPHER" not in str(found.secrets)


@pytest.mark.parametrize(
    ("assignments", "key", "arrives"),
    [
        (["other:key=1"], "other:key", "1"),
        (["key=1"], "demo:key", "1"),
        (["key=a=b"], "demo:key", "a=b"),
        (["key="], "demo:key", ""),
        (["key=1", "key=2"], "demo:key", "2"),
        (["object.a=9"], "demo:object", '{"a":9,"b":{"c":2}}'),
        (["object.b.c=true"], "demo:object", '{"a":1,"b":{"c":true}}'),
        (["object.new.deep=text"], "demo:object", '{"a":1,"b":{"c":2},"new":{"deep":"text"}}'),
        (["fresh.a=1", "fresh.b=false"], "demo:fresh", '{"a":1,"b":false}'),
        (["object=7"], "demo:object", "7"),
    ],
)
def test_an_assignment_goes_on_top_of_the_file(project: Path, assignments: list[str], key: str, arrives: str) -> None:
    found = read(project, "config:\n  object: {a: 1, b: {c: 2}}\n", *assignments)
    assert found.values[key] == arrives


def test_an_assignment_changes_nothing_in_the_file(project: Path) -> None:
    before = "config:\n  object: {a: 1}\n"
    read(project, before, "object.a=2", "more=1")
    assert (project / "Pulumi.dev.yaml").read_text() == before


@pytest.mark.parametrize("assignment", ["novalue", "=1", ":=1", ""])
def test_an_assignment_without_key_or_value_is_refused(project: Path, assignment: str) -> None:
    with pytest.raises(ConfigFileError, match="namespace:key=value"):
        read(project, "", assignment)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("config: [unclosed", "Pulumi.dev.yaml is not valid YAML"),
        ("config:\n\tkey: 1", "Pulumi.dev.yaml is not valid YAML"),
        ("- a\n- b\n", "is not a mapping"),
        ("config: 5\n", "is not a mapping"),
        ("config: [a]\n", "is not a mapping"),
        ("config: {a: 1}\n---\nconfig: {}\n", "is not valid YAML"),
        ("config: {a: !!python/object:os.system {}}\n", "is not valid YAML"),
        ("config: {a: &x [*x]}\n", "is not valid YAML"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_in_one_line(project: Path, content: str, said: str) -> None:
    with pytest.raises(ConfigFileError, match=said) as told:
        read(project, content)
    assert "\n" not in str(told.value)


def test_bytes_that_are_no_text_are_told(project: Path) -> None:
    (project / "Pulumi.dev.yaml").write_bytes(b"config:\n  a: \xff\xfe\n")
    with pytest.raises(ConfigFileError, match=r"Pulumi\.dev\.yaml"):
        load(project, "dev")


@pytest.mark.parametrize("content", ["", "config:\n", "config: {}\n", "# nothing\n"])
def test_a_file_without_config_is_empty(project: Path, content: str) -> None:
    assert read(project, content).values == {}


def test_a_stack_that_does_not_exist_is_told_with_those_that_do() -> None:
    with pytest.raises(ConfigFileError, match=r"there is no stack 'ai-prod'.*ai-dev, local"):
        load(PROJECT_DIR, "ai-prod")


def test_a_directory_without_a_project_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError, match=r"Pulumi\.yaml cannot be read"):
        load(tmp_path, "dev")
