"""Stack files and `--set`, read as the Pulumi CLI reads them (measured on a real one)."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from ops.config_files import load
from ops.config_paths import parse_path, split_assignment
from ops.errors import OpsError
from stacks.problems import config_path
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
        ("2026-08-20", "2026-08-20 00:00:00 +0000 UTC"),
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
        ("{n: 1.0}", '{"n":1}'),
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


# Each key of these is set alone, on the file below; what arrives is what the CLI's stack file then hands over.
BEFORE = """config:
  list: [a, b]
  object: {a: 1, b: {c: 2}, list: [x]}
  text: plain
  secret: {secure: v1:CIPHER}
  secrets: {old: {secure: v1:CIPHER}}
"""
PATHS = {
    "one[0]=x": '["x"]',
    "two.ci.models[0]=x": '{"ci":{"models":["x"]}}',
    'three["odd key"].team=x': '{"odd key":{"team":"x"}}',
    'four["a.b"]["c[0]"]=x': '{"a.b":{"c[0]":"x"}}',
    'backslash["a\\\\b"]=x': '{"a\\\\\\\\b":"x"}',
    'five["a \\"quoted\\" name"]=x': '{"a \\"quoted\\" name":"x"}',
    '["six"].a=x': '{"a":"x"}',
    "seven.onDemand.g2-standard-8=0.8": '{"onDemand":{"g2-standard-8":"0.8"}}',
    "eight[2]=x": '[null,null,"x"]',
    "nine[0].a=x": '[{"a":"x"}]',
    "ten[0][0]=x": '[["x"]]',
    "eleven.a:b=true": '{"a:b":true}',
    "twelve..a=x": '{"a":"x"}',
    'thirteen={"a":[1,true]}': '{"a":[1,true]}',
    "fourteen=[1]": "[1]",
    'fifteen.a={"b":1}': '{"a":"{\\"b\\":1}"}',  # text: only the top is read as JSON, by the program
    "sixteen[0]nested=x": '[{"nested":"x"}]',
    "other:seventeen.a=1": '{"a":1}',
    "other:config:eighteen.a=1": '{"a":1}',
    "numbers[0]=10": "[10]",
    "minus[0]=-1": "[-1]",
    "plus[0]=+5": "[5]",
    "zero[0]=0": "[0]",
    "zeros[0]=007": '["007"]',
    "float[0]=1.5": '["1.5"]',
    "huge[0]=18446744073709551616": '["18446744073709551616"]',
    "truth[0]=true": "[true]",
    "yes[0]=yes": '["yes"]',
    "empty[0]=": '[""]',
    "equals[0]=a=b": '["a=b"]',
    "list[1]=y": '["a","y"]',
    "list[2]=y": '["a","b","y"]',
    "list[2].a=y": '["a","b",{"a":"y"}]',
    "object.list[1]=y": '{"a":1,"b":{"c":2},"list":["x","y"]}',
    "text.a=1": '{"a":1}',
    "text[0]=1": "[1]",
    "secret.a=1": '{"a":1}',
    "declared.b=2": '{"b":2}',  # the project's own value is replaced whole
}
REFUSED_PATHS = {
    "object.=1": "ends with a name",
    ".object=1": "begins with a name",
    "list.[0]=1": "a dot leads to a name",
    "list[0=1": "closing bracket",
    "object[b.c=1": "closing bracket",
    'object["a=1': "closing quote",
    'object["a"=1': "closing bracket",
    "list[]=1": "neither an index nor a quoted name",
    "object[odd key]=1": "neither an index nor a quoted name",
    "[0]=1": "begins with a name",
    "list.a=1": "is a list, which has indices and no names",
    "list[3]=1": "has no place [3]; its next free one is [2]",
    "list[-1]=1": "has no place [-1]",
    "object[0]=1": "is a mapping, which has names and no index",
    "object.a.b=1": "object.a has a value, so nothing can be set inside it",
    "object.a[0]=1": "object.a has a value, so nothing can be set inside it",
    "secrets.old.a=1": "secrets.old has a value",
    "new.secure=x": "encrypted value",
    "new[1000]=x": "would be far out",
}


def key_of(assignment: str) -> str:
    """The key of config that an assignment changes."""
    namespace = "other" if assignment.startswith("other:") else "demo"
    return f"{namespace}:{re.findall(r'[a-z]+', assignment.replace('other:', '').replace('config:', ''))[0]}"


@pytest.mark.parametrize("assignment", PATHS)
def test_a_path_leads_into_lists_and_objects(project: Path, assignment: str) -> None:
    (project / "Pulumi.yaml").write_text("name: demo\nconfig:\n  declared:\n    value: {a: 1}\n")
    assert read(project, BEFORE, assignment).values[key_of(assignment)] == PATHS[assignment]


@pytest.mark.parametrize(
    "name", ["plain", "odd key", "a.b", "c[0]", 'a "quoted" name', "back\\slash", "a=b", "a:b", "0", ""]
)
def test_a_path_that_the_program_writes_is_read_as_it_was_meant(name: str) -> None:
    namespace, _, path = config_path("ai-platform", "keys", name, "models", 2).partition(":")
    assert namespace == "ai-platform"
    assert parse_path(path) == ["keys", name, "models", 2]
    assert split_assignment(f"{path}=x=y") == (path, "x=y")


def test_a_value_inside_an_object_of_secrets_leaves_the_others_secret(project: Path) -> None:
    found = read(project, BEFORE, "secrets.new=x")
    assert json.loads(found.secrets["demo:secrets"] or "") == {"old": None, "new": None}
    assert "demo:secrets" not in found.values


@pytest.mark.parametrize("assignment", REFUSED_PATHS)
def test_a_path_that_leads_nowhere_is_refused_with_one_that_leads_somewhere(project: Path, assignment: str) -> None:
    with pytest.raises(OpsError) as told:
        read(project, BEFORE, assignment)
    said, remedy = told.value.problem.message, told.value.problem.remedy.removeprefix("ops plan ")
    assert REFUSED_PATHS[assignment] in said
    assert repr(assignment) in said
    stack, dev, word, meant = shlex.split(remedy)
    assert (stack, dev, word) == ("--stack", "dev", "--set")
    assert read(project, BEFORE, meant).values.keys() >= {"demo:list", "demo:text"}


@pytest.mark.skipif(shutil.which("pulumi") is None, reason="no `pulumi` on PATH")
def test_the_cli_sets_the_same_and_refuses_the_same(project: Path) -> None:
    environment = {
        **os.environ,
        "PULUMI_BACKEND_URL": f"file://{project}",
        "PULUMI_HOME": str(project / "home"),
        "PULUMI_CONFIG_PASSPHRASE": "test",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }

    def pulumi(*words: str) -> int:
        command = ["pulumi", *words, "--non-interactive"]
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, check=False).returncode

    file = project / "Pulumi.dev.yaml"
    assert pulumi("stack", "init", "dev") == 0
    salt = file.read_text()
    # Keys do not touch each other: all are set at once that are not of the same one.
    rounds: list[dict[str, str]] = []
    for assignment in PATHS:
        free = next((known for known in rounds if key_of(assignment) not in known), None)
        if free is None:
            rounds.append(free := {})
        free[key_of(assignment)] = assignment
    for assignments in rounds:
        file.write_text(salt + BEFORE)
        words = [word for assignment in assignments.values() for word in ("--plaintext", assignment)]
        assert pulumi("config", "set-all", "--path", *words) == 0
        found = load(project, "dev").values
        assert {key: found[key] for key in assignments} == {key: PATHS[text] for key, text in assignments.items()}
    file.write_text(salt + BEFORE)
    for assignment in REFUSED_PATHS.keys() - {"new[1000]=x"}:
        key, _, text = assignment.partition("=")
        assert pulumi("config", "set", "--path", key, text) != 0, assignment


@pytest.mark.parametrize("assignment", ["novalue", "=1", ":=1", "", ":a=1", "a:b:c=1", '[""]=1'])
def test_an_assignment_without_key_or_value_is_refused(project: Path, assignment: str) -> None:
    with pytest.raises(OpsError, match=r"namespace:key=value.*\n.*: ops plan --stack dev --set coder-chat:replicas=1"):
        read(project, "", assignment)


def test_a_key_that_was_pasted_into_a_bad_assignment_is_not_shown(project: Path) -> None:
    with pytest.raises(OpsError) as told:
        read(project, "", "keyValues[ci=sk-0123456789abcdef")
    assert "0123456789abcdef" not in str(told.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("config: [unclosed", "Pulumi.dev.yaml is not valid YAML"),
        ("config:\n\tkey: 1", "Pulumi.dev.yaml is not valid YAML"),
        ("- a\n- b\n", "is not a mapping"),
        ("config: 5\n", "is not a mapping"),
        ("config: [a]\n", "is not a mapping"),
        ("config: ''\n", "is not a mapping"),
        ("config: {a: !!bool x}\n", "is not valid YAML"),
        ("config: {a: 1, a: 2}\n", "is not valid YAML"),
        ("config: {a: 1, 'demo:a': 2}\n", "demo:a is set twice"),
        ("config: {'a:b:c': 1}\n", "is not of the form namespace:name"),
        ("config: {a: &x [*x]}\n", "is not valid YAML"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_in_one_line(project: Path, content: str, said: str) -> None:
    with pytest.raises(OpsError, match=said) as told:
        read(project, content)
    assert "\n" not in told.value.problem.message


def test_bytes_that_are_no_text_are_told(project: Path) -> None:
    (project / "Pulumi.dev.yaml").write_bytes(b"config:\n  a: \xff\xfe\n")
    with pytest.raises(OpsError, match=r"Pulumi\.dev\.yaml"):
        load(project, "dev")


@pytest.mark.parametrize("content", ["", "config:\n", "config: {}\n", "# nothing\n"])
def test_a_file_without_config_is_empty(project: Path, content: str) -> None:
    assert read(project, content).values == {}


def test_a_stack_that_does_not_exist_is_told_with_those_that_do() -> None:
    with pytest.raises(OpsError, match=r"there is no stack 'ai-prod'.*ai-dev, local"):
        load(PROJECT_DIR, "ai-prod")


def test_a_directory_without_a_project_is_told(tmp_path: Path) -> None:
    with pytest.raises(OpsError, match=r"there is no Pulumi\.yaml in"):
        load(tmp_path, "dev")
