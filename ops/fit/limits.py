"""`--limit-mm-per-prompt`, as vLLM takes it: what of it the profiling run of a multimodal model depends on."""

from __future__ import annotations

import argparse
import json
from typing import Any, cast

_MODALITIES = ("image", "video", "audio")
WITHOUT_VIDEOS = '{"video": 0}'


def per_prompt(text: str) -> str:
    """The flag's value, checked. Raises ArgumentTypeError for what vLLM would not understand."""
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    limits = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    whole = all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in limits.values())
    if not limits or not whole or not limits.keys() <= set(_MODALITIES):
        raise argparse.ArgumentTypeError(
            f"{text[:80]!r} does not say how many of {', '.join(_MODALITIES)} a prompt may have, as in "
            f"'{WITHOUT_VIDEOS}'"
        )
    return json.dumps(limits)


def videos(text: str | None) -> bool:
    """Whether videos are taken."""
    return text is None or json.loads(text).get("video") != 0


def text_only(text: str | None) -> bool:
    """Whether neither images nor videos are taken, so that vLLM leaves their encoder out."""
    return text is not None and json.loads(text).get("image") == 0 and not videos(text)
