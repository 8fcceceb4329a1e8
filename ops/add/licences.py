"""What is known of licences by their names on the hub: commercial use, and what surprises in them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """A licence. `commercial_use` is None where nobody here knows it."""

    name: str
    commercial_use: bool | None
    terms: str | None = None


_FREE = {
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "cc0-1.0": "CC0-1.0",
    "openrail": "OpenRAIL",
    "bigcode-openrail-m": "BigCode OpenRAIL-M",
}
_META = "commercial use up to 700 million monthly users, its acceptable use policy, and a notice with copies"
_OWN = {
    **dict.fromkeys(("llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4"), (True, _META)),
    "gemma": (True, "its prohibited use policy, passed on to whoever gets the model"),
    **dict.fromkeys(("qwen-research", "mrl", "mnpl", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"), (False, None)),
}


def licence_of(licence: str | None, name: str | None) -> Known:
    """By what the hub calls it: "apache-2.0", or "other" and a name."""
    said = (name if licence in (None, "other") else licence) or licence or "unknown"
    plain = said.lower()
    if plain in _FREE:
        return Known(_FREE[plain], commercial_use=True)
    if plain in _OWN:
        commercial, terms = _OWN[plain]
        return Known(said, commercial, terms)
    return Known(said, commercial_use=False if "-nc" in plain or "research" in plain else None)
