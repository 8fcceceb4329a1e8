"""Where the tests find the program and their own project, and a clone of it to run as a program of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
# Of the tests: Pulumi.yaml, the stacks `ai-dev` and `local`, and the checkout's own `__main__.py`.
PROJECT_DIR = CHECKOUT / "tests" / "project"

ROOMS = ("components", "models", "ops", "stacks")
_OWN_CATALOG = """
from models import catalog_of_the_tests
catalog_of_the_tests.install()
"""


def clone(folder: Path) -> Path:
    """A user's clone: this program, with a catalog and stacks of its own, which are those of the tests.

    A process that is started in it (`python -m`, the real engine) finds them as it finds the shipped ones here.
    """
    folder.mkdir(exist_ok=True)
    for room in ROOMS:
        shutil.copytree(CHECKOUT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "tests" / "catalog.py", folder / "models" / "catalog_of_the_tests.py")
    with (folder / "models" / "__init__.py").open("a") as package:
        package.write(_OWN_CATALOG)
    for path in PROJECT_DIR.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    return folder
