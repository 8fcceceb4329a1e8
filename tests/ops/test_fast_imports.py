"""What `ops plan` imports fast is what Python would have imported. Every import here is in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import CHECKOUT, clone

# Prints a plan, the types that the SDK has resolved on the way, and what was imported for it.
PLAN = """
import functools, json, sys
from dataclasses import asdict
from pathlib import Path
if sys.argv[1] == "fast":
    from ops import fast_imports
    fast_imports.install()
from pulumi import _types
from ops.config_files import load
from ops.engine import run_main

resolved, resolve = {}, _types._raw_return_hints.__wrapped__

@functools.cache
def recorded(cls):
    hints = resolve(cls)
    resolved[f"{cls.__module__}.{cls.__qualname__}"] = {name: repr(hint) for name, hint in hints.items()}
    return hints

_types._raw_return_hints = recorded
recording = run_main(load(Path(), "ai-dev", sys.argv[2:]), Path())
resources = sorted(map(asdict, recording.resources), key=lambda r: r["urn"])
sdk = sorted(m for m in sys.modules if m.startswith(("pulumi_gcp.", "pulumi_kubernetes.")))
json.dump({"resources": resources, "outputs": recording.outputs, "types": resolved, "modules": sdk}, sys.stdout)
"""

# A generated package in small, and what may be asked of it.
PACKAGE = {
    "__init__.py": "from .Disk import *\nfrom ._inputs import *\nfrom . import outputs\n",
    "_inputs.py": (
        "import typing\n__all__ = [\n    'KeyArgs',\n    'UnusedArgs',\n]\n"
        "class KeyArgs:\n"
        "    def get(self, key: 'Nowhere') -> typing.Optional['UnusedArgs']:\n        return None\n"
        "class UnusedArgs:\n    print('executed UnusedArgs')\n"
    ),
    "outputs.py": "from . import outputs\n__all__ = ['Key']\nclass Key:\n    pass\n",
    "Disk.py": (
        "import typing\nfrom typing import Literal\nfrom . import outputs\nfrom ._inputs import *\n__all__ = ['Disk']\n"
        "class Disk:\n"
        "    def key(self) -> typing.Optional['outputs.Key']:\n        return None\n"
        "    def kind(self) -> Literal['Disk']:\n        return 'Disk'\n"
        "    def args(self):\n        return KeyArgs()\n"
    ),
}
USE = """
import sys, typing
from pathlib import Path
from ops import fast_imports
fast_imports.install(["sdk"], Path(sys.argv[1]))
import sdk
from sdk import Disk
print(Disk.__module__, Disk().args().__class__ is sdk.KeyArgs, Disk is sdk.Disk)
for method in (Disk.key, Disk.kind):
    print(typing.get_type_hints(method, vars(sys.modules[Disk.__module__])))
"""


def python(program: str, *arguments: str, path: Path = CHECKOUT, project: Path = CHECKOUT) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "sdk"
    folder.mkdir()
    for name, text in PACKAGE.items():
        (folder / name).write_text(text)
    return folder


def use(package: Path, cache: Path, then: str = "") -> list[str]:
    return python(USE + then, str(cache), path=package.parent).splitlines()


@pytest.fixture(scope="module")
def cloned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tmp_path_factory.mktemp("clone"))


@pytest.mark.parametrize(
    "assignments",
    [
        ("gcp:project=acme-ai", "coder-chat:replicas=1"),
        ("gcp:project=acme-ai", "gateway.database=cloud-sql"),
    ],
)
def test_a_plan_is_the_same_whichever_way_the_sdk_is_imported(cloned: Path, assignments: tuple[str, ...]) -> None:
    plain, fast = (
        json.loads(python(PLAN, way, *assignments, path=cloned, project=cloned)) for way in ("plain", "fast")
    )
    assert len(fast["resources"]) > 50
    assert fast["resources"] == plain["resources"]
    assert fast["outputs"] == plain["outputs"]
    assert fast["types"] == plain["types"]
    assert len(fast["modules"]) < len(plain["modules"]) / 2


def test_a_class_is_executed_only_when_it_is_asked_for(package: Path, tmp_path: Path) -> None:
    said = use(package, tmp_path / "cache")
    assert said == [
        "sdk.Disk True True",
        "{'return': typing.Optional[sdk.outputs.Key]}",
        "{'return': typing.Literal['Disk']}",
    ]
    asked = use(package, tmp_path / "cache", "sdk.UnusedArgs; print('executed' in str(sdk.UnusedArgs))")
    assert asked == [*said, "executed UnusedArgs", "False"]


def test_a_type_is_found_when_the_sdk_resolves_it(package: Path, tmp_path: Path) -> None:
    resolved = use(
        package, tmp_path / "cache", "print(typing.get_type_hints(sdk.KeyArgs.get, vars(sys.modules['sdk._inputs'])))"
    )
    assert resolved[-2:] == ["executed UnusedArgs", "{'return': typing.Optional[sdk._inputs.UnusedArgs]}"]


def test_an_unknown_name_is_an_error_as_ever(package: Path, tmp_path: Path) -> None:
    asked = use(package, tmp_path / "cache", "print(hasattr(sdk, 'Dsik'))")
    assert asked[-1] == "False"


def test_a_changed_sdk_is_cut_anew(package: Path, tmp_path: Path) -> None:
    use(package, tmp_path / "cache")
    (package / "_inputs.py").write_text(PACKAGE["_inputs.py"] + "    more = 'of it'\n")
    assert use(package, tmp_path / "cache", "print(sdk.UnusedArgs.more)")[-1] == "of it"


def test_what_has_been_cut_is_not_cut_again(package: Path, tmp_path: Path) -> None:
    said = use(package, tmp_path / "cache")
    made = {file: file.stat().st_ino for file in (tmp_path / "cache").iterdir()}
    assert len(made) == len(PACKAGE)
    assert use(package, tmp_path / "cache") == said
    assert {file: file.stat().st_ino for file in (tmp_path / "cache").iterdir()} == made


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("_inputs.py", PACKAGE["_inputs.py"] + "KeyArgs.default = UnusedArgs()\n"),
        ("_inputs.py", PACKAGE["_inputs.py"] + "def helper():\n    return UnusedArgs()\n"),
        ("_inputs.py", PACKAGE["_inputs.py"].replace("__all__", "__some__")),
        ("Disk.py", PACKAGE["Disk.py"] + "    other = globals()['KeyArgs']\n"),
    ],
    ids=["a class used by its module", "a function", "no list of exports", "a class looked up by another's code"],
)
def test_a_module_of_another_shape_works_too(package: Path, tmp_path: Path, file: str, text: str) -> None:
    (package / file).write_text(text)
    assert use(package, tmp_path / "cache")[-3] == "sdk.Disk True True"


def test_a_cache_that_cannot_be_written_costs_only_time(package: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    said = use(package, tmp_path / "cache", "print(type(sys.modules['sdk._inputs']).__name__)")
    assert said[0] == "executed UnusedArgs"
    assert said[-4] == "sdk.Disk True True"


def test_a_damaged_cache_is_made_anew(package: Path, tmp_path: Path) -> None:
    said = use(package, tmp_path / "cache")
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(b"\0\0\0\5damage")
    assert use(package, tmp_path / "cache") == said
