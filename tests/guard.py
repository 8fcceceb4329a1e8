"""Keeps the tests of behaviour away from what a user changes: the shipped stack files cannot be opened in them."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from pathlib import Path

# They ask only what holds of any good catalog and any good stack; so must what joins them.
ABOUT_WHAT_IS_SHIPPED = {
    "tests/models/test_catalog.py",
    "tests/models/test_questions.py",
    "tests/models/test_reference.py",
    "tests/ops/test_schema.py",
    "tests/test_imports.py",
    "tests/test_shipped.py",
}


def watch(files: Collection[Path]) -> None:
    """From now on a test that is not about what is shipped fails where it opens one of these files."""
    guarded = {str(file) for file in files}

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | Path):
            path = os.path.abspath(arguments[0])  # noqa: PTH100  cheap: it runs at every open
            # "tests/ops/test_up.py::test_name (call)"; nothing while tests are collected.
            module = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[0]
            if path in guarded and module not in ABOUT_WHAT_IS_SHIPPED:
                raise ReadsWhatIsShippedError(
                    f"{module or 'a test module'} opens {path}, which is another file in every clone. "
                    "Use the stacks of tests/project (PROJECT_DIR of tests.support); tests/support.py says how"
                )

    sys.addaudithook(hook)


class ReadsWhatIsShippedError(AssertionError):
    """A test of behaviour would pass or fail with the settings of whoever runs it."""
