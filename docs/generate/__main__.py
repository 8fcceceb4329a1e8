"""`python -m docs.generate`: writes docs/ anew from the shipped catalog and a stack; `--check` only says what is stale.

A page that shows another catalog, stack or list of engines than there is now is told and is no failure: whoever adds
a model in a clone of his own has broken nothing. `make test` makes pages anew first, and CI wants them committed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from docs.generate.pages import DOCS, made, mark_of
from docs.generate.shown import Shown
from models.catalog import GROUPS
from models.catalog import SHIPPED as CATALOG  # what this checkout has for itself alone is in no page
from ops.config_files import load
from ops.errors import OpsError


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 1 with the names of what is stale."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, say what is stale")
    parser.add_argument("--stack", default="ai-dev", help="stack whose costs are shown (default: ai-dev)")
    args = parser.parse_args(argv)
    try:
        raw = load(DOCS.parent, args.stack)
    except OpsError as error:  # somebody without that stack: what is shown is another's, and stays
        print(f"docs/ is left as it is: {error}")  # noqa: T201
        return 0
    shown = Shown(catalog=CATALOG, groups=GROUPS, raw=raw)
    pages = made(shown, DOCS)
    stale = [name for name, text in pages.items() if not _same(DOCS / name, text)]
    if not args.check:
        for name in stale:
            (DOCS / name).parent.mkdir(exist_ok=True)
            (DOCS / name).write_text(pages[name])
            print(f"docs/{name}")  # noqa: T201
        return 0
    if not stale:
        return 0
    names = ", ".join(f"docs/{name}" for name in stale)
    if mark_of(DOCS) != shown.mark:
        print(f"{names} show other models, another stack or other engines than there are: make docs")  # noqa: T201
        return 0
    print(f"stale: {names}; make docs", file=sys.stderr)  # noqa: T201
    return 1


def _same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


if __name__ == "__main__":
    sys.exit(main())
