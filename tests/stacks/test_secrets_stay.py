"""Secrets set where no secret belongs: every place of config, every kind of secret, and no part of it is ever shown.

A trial is a place, a kind and a form of output. Each place meets two kinds here; `AI_PLATFORM_TRIALS=N` makes it every
place and every kind, N times.
"""

from __future__ import annotations

import base64
import json
import os
import random
import string
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from ops.cli import main
from ops.config_files import load
from stacks.admission import admit
from stacks.problems import random_looking
from stacks.secrets import KEY_VALUES, SECRETS
from stacks.sections import Gateway, Gcp, Key, Platform, Prices, Section, overrides_of
from tests.catalog import CATALOG
from tests.checkout import PROJECT_DIR
from tests.stacks.remedies import raw

ROUNDS = int(os.environ.get("AI_PLATFORM_TRIALS", "0"))
SEEDS = range(ROUNDS or 1)
_WINDOW = 8  # characters in a row that give a secret away

Kind = Callable[[random.Random], str]


def _letters(dice: random.Random, letters: str, length: int) -> str:
    return "".join(dice.choice(letters) for _ in range(length))


KINDS: Mapping[str, Kind] = {
    "hex, as openssl makes it": lambda dice: dice.randbytes(24).hex(),
    "short hex": lambda dice: dice.randbytes(8).hex(),
    "base64": lambda dice: base64.b64encode(dice.randbytes(24)).decode(),
    "letters": lambda dice: _letters(dice, string.ascii_lowercase, 20),
    "digits": lambda dice: _letters(dice, string.digits[1:], 20),
    "a password": lambda dice: _letters(dice, string.ascii_letters + "!#%&*+,-./:;<=>?@^_~", 18),
    "words": lambda dice: "-".join(_letters(dice, string.ascii_lowercase, 7) for _ in range(4)),
    "a sentence": lambda dice: " ".join(_letters(dice, string.ascii_lowercase, 9) for _ in range(5)),
    "a key": lambda dice: "sk-" + dice.randbytes(24).hex(),
    "a token": lambda dice: "hf_" + _letters(dice, string.ascii_letters + string.digits, 34),
    "a uuid": lambda dice: str(uuid.UUID(bytes=dice.randbytes(16), version=4)),
    "an address": lambda dice: f"postgres://llm:{dice.randbytes(16).hex()}@db:5432/litellm",
    "a web token": lambda dice: ".".join(base64.urlsafe_b64encode(dice.randbytes(30)).decode() for _ in range(3)),
    "lines": lambda dice: f"-----BEGIN KEY-----\n{base64.b64encode(dice.randbytes(40)).decode()}\n-----END KEY-----",
}


def _fields(cls: type[Section]) -> list[str]:
    return [field.alias or name for name, field in cls.model_fields.items()]


def _misspelt(name: str) -> str:
    return name[:-2] + name[-1] + name[-2]


def _places() -> Iterator[tuple[str, Callable[[str], str]]]:
    """A key of config, and the text that its value is with a secret in it."""

    def plain(secret: str) -> str:
        return secret

    def at(*path: str | int) -> Callable[[str], str]:
        def written(secret: str) -> str:
            value: Any = secret
            for part in reversed(path):
                value = [value] if isinstance(part, int) else {part: value}
            return json.dumps(value)

        return written

    project = "ai-platform"
    model = overrides_of(type(CATALOG["coder-chat"].engine))
    known = {
        project: _fields(Platform),
        "gcp": _fields(Gcp),
        "coder-chat": _fields(model),
        "embeddings": _fields(model),
    }
    for namespace, names in known.items():
        for name in names:
            for key in dict.fromkeys((name, _misspelt(name), name.upper(), name.lower())):
                yield f"{namespace}:{key}", plain
            yield f"{_misspelt(namespace)}:{name}", plain
            yield f"{namespace}:{name}", at("a")
            yield f"{namespace}:{name}", at(0)
    for name in (*SECRETS, KEY_VALUES, "apiKey", "password", "token", "secret"):
        for key in dict.fromkeys((name, name.lower(), _misspelt(name))):
            for namespace in (project, "gcp", "coder-chat", "kubernetes", "pulumi", "litellm", _misspelt(project)):
                yield f"{namespace}:{key}", plain
    for name in (KEY_VALUES, KEY_VALUES.lower(), _misspelt(KEY_VALUES), "keys", "teams"):
        yield f"{project}:{name}", at("editor")
        yield f"{project}:{name}.editor", plain
    for section in ("keys", "teams"):
        for field in (*_fields(Key), "key", "value", "secret"):
            yield f"{project}:{section}", at("editor", field)
            yield f"{project}:{section}", at("editor", field, 0)
            yield f"{project}:{section}.editor.{field}", plain
    for section, cls in (("gateway", Gateway), ("prices", Prices)):
        for field in (*_fields(cls), "password", "masterKey"):
            yield f"{project}:{section}", at(section, field)
            yield f"{project}:{section}", at(field)
            yield f"{project}:{section}.{field}", plain
    yield f"{project}:prices", at("onDemand", "g2-standard-8")
    yield f"{project}:groups", at("baseline")
    # As text that spells an object, which a remedy would write out.
    yield f"{project}:keys", lambda secret: json.dumps({"a": json.dumps({"models": [secret], "maxBudgetUsd": 5})})
    yield f"{project}:keys.a", lambda secret: json.dumps({"models": ["baseline"], "team": secret, "maxBudgetUsd": 5})
    yield f"{project}:groups", lambda secret: f"{{{secret}"


# Names: where a secret stands as the key, and something else as its value.
NAMED: list[Callable[[str], tuple[str, str]]] = [
    lambda secret: (f"ai-platform:{secret}", "litellmSaltKey"),
    lambda secret: (f"coder-chat:{secret}", "1"),
    lambda secret: (f"gcp:{secret}", "x"),
    lambda secret: (f"{secret}:password", "1"),
    lambda secret: ("ai-platform:groups", json.dumps({secret: True})),
    lambda secret: ("ai-platform:keys", json.dumps({secret: {"models": ["baseline"], "maxBudgetUsd": 1}})),
    lambda secret: ("ai-platform:teams", json.dumps({"a": {secret: 1, "models": ["baseline"]}})),
    lambda secret: ("ai-platform:prices", json.dumps({"onDemand": {secret: 1}})),
    lambda secret: ("ai-platform:gateway", json.dumps({secret: 1})),
]
PLACES = list(_places())


def shows(text: str, secret: str) -> bool:
    """Whether a part of a secret stands in a text, as it is or as JSON and shells write it."""
    body = secret.removeprefix("-----BEGIN KEY-----\n").removeprefix("postgres://llm:").removeprefix("sk-")
    body = body.removesuffix("\n-----END KEY-----").removesuffix("@db:5432/litellm").removeprefix("hf_")
    return any(body[n : n + _WINDOW] in text for n in range(len(body) - _WINDOW + 1))


def told(values: Mapping[str, str], secrets: Mapping[str, str | None] | None = None) -> str:
    """Everything that the program says of a config."""
    base = raw()
    config = replace(base, values={**base.values, **values}, secrets={**base.secrets, **(secrets or {})})
    said = ""
    for rehearsal in (True, False) if ROUNDS else (True,):
        admission = admit(config, rehearsal=rehearsal)
        said += "\n".join(map(str, (*admission.problems, *admission.notices)))
    return said


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_part_of_a_secret_in_the_wrong_place_is_told(kind: str, seed: int) -> None:
    dice = random.Random(f"{kind} {seed}")  # noqa: S311  made up
    leaked: list[str] = []
    every = 1 if ROUNDS else len(KINDS) // 2
    for key, written in PLACES[list(KINDS).index(kind) % every :: every]:
        secret = KINDS[kind](dice)
        if shows(told({key: written(secret)}), secret):
            leaked.append(f"{key} = {written('...')}")
    assert not leaked


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["hex, as openssl makes it", "base64", "a key", "a token", "a uuid"])
def test_nor_is_one_that_stands_as_a_name(kind: str, seed: int) -> None:
    dice = random.Random(f"{kind} {seed}")  # noqa: S311  made up
    for named in NAMED:
        secret = KINDS[kind](dice)
        key, value = named(secret)
        assert not shows(told({key: value}), secret), key
        assert not shows(told({}, {key: None, "ai-platform:keyValues": json.dumps({secret: None})}), secret), key


def test_what_config_and_catalog_name_is_not_taken_for_a_secret() -> None:
    sections = (Platform, Gcp, Gateway, Prices, Key, *{overrides_of(type(spec.engine)) for spec in CATALOG.values()})
    names = [name for cls in sections for name in _fields(cls)]
    names += [*CATALOG, *SECRETS, KEY_VALUES]
    names += ["gke_my-project-123_us-central1-a_ai-platform-ai-dev", "claude-3-5-haiku-20241022", "g2-standard-32"]
    names += ["desk-assistants", "task-scheduler-eu", "mixtral-8x7b-v0-1", "someone@example.org", "team-2026-q3-b"]
    assert [name for name in names if random_looking(name)] == []


# --- in every form of output -----------------------------------------------------------------------------------------

FORMS = {
    "text": ("plan",),
    "json": ("plan", "--format", "json"),
    "markdown": ("plan", "--format", "markdown", "--against", "Pulumi.ai-dev.yaml"),
    "difference": ("plan", "--format", "json", "--against", "Pulumi.ai-dev.yaml"),
    "up": ("up", "--stack", "local"),
}


def _assignments(dice: random.Random, kind: str) -> dict[str, tuple[str, str]]:
    """Key, secret and value of one trial a key: not two of one, since the later one would hide the other."""
    found: dict[str, tuple[str, str]] = {}
    for key, written in dice.sample(PLACES, len(PLACES)):
        secret = KINDS[kind](dice)
        found.setdefault(key, (secret, written(secret)))
    return {key: trial for key, trial in found.items() if "." not in key and key != "ai-platform:target"}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_output_shows_one(
    form: str, seed: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT_DIR)
    dice = random.Random(f"{form} {seed}")  # noqa: S311  made up
    for kind in KINDS:
        trials = _assignments(dice, kind)
        words = [word for key, (_, value) in trials.items() for word in ("--set", f"{key}={value}")]
        assert main([*FORMS[form], *words]) == 2
        said = "".join(capsys.readouterr())
        assert len(said) > 1000
        assert [key for key, (secret, _) in trials.items() if shows(said, secret)] == [], kind


def test_an_assignment_that_sets_nothing_shows_no_value(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT_DIR)
    dice = random.Random(0)  # noqa: S311  made up
    broken = ("{}", "={}", ":={}", "litellmSaltKey:{}", "a:b:c={}", "keys[ci={}", ".a={}", "keys.={}", "teams[0]={}")
    broken += ("keys[{}]=1", "keys.{}.=1", '["{}=1', "a:{}:c=1", "groups.baseline.x={}", "keys.editor.models[77]={}")
    for kind in KINDS:
        for form in broken:
            secret = KINDS[kind](dice)
            name = form.index("{}") < form.index("=") if "=" in form else False
            if "=" in secret or (name and not random_looking(secret)):
                continue
            assert main(["plan", "--set", form.format(secret)]) == 2, form
            assert not shows("".join(capsys.readouterr()), secret), form


def test_what_is_read_may_be_shown() -> None:
    assert "'g2-standrad-8'" in told({"ai-platform:machineType": "g2-standrad-8"})
    assert "'48h'" in told({"ai-platform:teams": '{"a": {"models": ["baseline"], "budgetPeriod": "48h"}}'})
    assert "coder-chat:replicas is 'two'" not in told({"coder-chat:replicas": "two"})
    assert "coder-chat:replicas is text of 3 characters" in told({"coder-chat:replicas": "two"})
    assert "coder-chat:replicas is a number of 20 digits" in told({"coder-chat:replicas": "1" * 20})
    assert "coder-chat:replicas is '-1'" in told({"coder-chat:replicas": "-1"})
    assert "pulumi config set coder-chat:replicas 1" in told({"coder-chatt:replicas": "1"})


def test_the_project_these_trials_are_made_on_is_admitted() -> None:
    assert not admit(load(PROJECT_DIR, "ai-dev"), rehearsal=True).problems
