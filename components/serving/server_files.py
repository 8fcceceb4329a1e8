"""Where the files are that servers read at their start: templates and parsers. What they import is not here."""

from __future__ import annotations

from pathlib import Path

FILES = Path(__file__).with_name("files")
