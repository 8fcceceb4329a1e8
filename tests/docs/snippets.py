"""What README.md and docs/ tell a reader to type, and what they show as the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.checkout import CHECKOUT

PAGES = [
    CHECKOUT / "README.md",
    CHECKOUT / "CONTRIBUTING.md",
    CHECKOUT / "SECURITY.md",
    *sorted((CHECKOUT / "docs").glob("*.md")),
]
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[a-z]*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_SHELL, _SESSION = "sh", "console"
_PROGRAMS = ("ops ", "openssl ", "pulumi ", "make ", "kubectl ", "gcloud ", "curl ", "pytest ", "python -m ")


@dataclass(frozen=True)
class Command:
    """A line to type, and what is shown below it."""

    page: str
    number: int  # of its line in the page
    text: str  # continued lines in one, without a comment behind it
    block: int  # commands of one block are typed one after the other; 0 for those in a sentence
    output: list[str] = field(default_factory=list[str])

    def __str__(self) -> str:
        return f"{self.page}:{self.number}: {self.text}"


def blocks(page: Path) -> Iterator[tuple[str, int, str]]:
    """Language, line and text of each fenced block."""
    text = page.read_text()
    for found in _FENCE.finditer(text):
        indent = len(found["indent"])
        body = "\n".join(line[indent:] for line in found["body"].splitlines())
        yield found["language"], text.count("\n", 0, found.start()) + 2, body


def commands(page: Path) -> Iterator[Command]:
    """Every command of a page, those in sentences too."""
    name = str(page.relative_to(CHECKOUT))
    for number, (language, line, body) in enumerate(blocks(page), 1):
        if language == _SHELL:
            yield from _typed(name, line, body, number)
        elif language == _SESSION:
            yield from _session(name, line, body, number)
    text = _FENCE.sub(lambda m: "\n" * m[0].count("\n"), page.read_text())
    for found in re.finditer(r"(?<!`)`([^`]+)`(?!`)", text):
        words = " ".join(found[1].split()).removeprefix(".venv/bin/")
        if words.startswith(_PROGRAMS) and "→" not in words:
            yield Command(name, text.count("\n", 0, found.start()) + 1, _bare(words), 0)


def _typed(page: str, line: int, body: str, block: int) -> Iterator[Command]:
    """Lines of a script: what a backslash or an open loop continues is one command."""
    whole, start, depth = "", line, 0
    for offset, text in enumerate(body.splitlines()):
        if not whole:
            start = line + offset
        words = _bare(f" {text.strip()}")
        continued = words.endswith("\\")
        depth += bool(re.search(r"\bdo$", words)) - (words == "done")
        end = "" if continued or not words or not depth or words.endswith(" do") else " ;"
        whole = f"{whole} {words.removesuffix(chr(92)).strip()}{end}".strip()
        if whole and not continued and not depth:
            yield Command(page, start, whole, block)
            whole = ""
    assert not whole, f"{page}:{start}: not ended: {whole}"


def _session(page: str, line: int, body: str, block: int) -> Iterator[Command]:
    found: Command | None = None
    for offset, text in enumerate(body.splitlines()):
        if text.startswith("$ "):
            if found:
                yield found
            found = Command(page, line + offset, _bare(text[2:]), block)
        elif found:
            found.output.append(text)
    if found:
        yield found


def _bare(text: str) -> str:
    """Without a comment, and without the folder of the tools."""
    return re.sub(r"\s+#\s.*$", "", text).replace(".venv/bin/", "").strip()
