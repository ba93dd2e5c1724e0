"""Settings: defaults of a kind, layers, the user's own; wrong keys and values named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kit.errors import SettingsError
from kit.settings import (
    DEFAULTS,
    SMOKE,
    Settings,
    describe,
    difference,
    parse,
    resolve,
    settings_key,
)

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("kind", DEFAULTS)
def test_every_kind_resolves_with_and_without_smoke(kind: str) -> None:
    usual, smoke = (resolve(kind, smoke=flag, overrides={}) for flag in (False, True))
    assert usual == Settings(**DEFAULTS[kind])
    assert smoke.model_dump().items() >= SMOKE.items()


def test_later_layers_win_and_the_user_wins_over_all() -> None:
    found = resolve(
        "images", {"epochs": 3, "seed": 1}, {"epochs": 4}, smoke=True,
        overrides={"image_size": "24"},
    )  # fmt: skip
    assert found.seed == 1
    assert found.augment == "fundus"
    assert found.epochs == SMOKE["epochs"]
    assert found.image_size == 24


def test_an_unknown_setting_names_its_neighbours() -> None:
    with pytest.raises(SettingsError, match=r"'epoch' is unknown.*epoch=3.*did you mean epochs"):
        resolve("images", overrides={"epoch": "3"})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("epochs", "0", "greater than or equal to 1"),
        ("epochs", "many", "valid integer"),
        ("epochs", "1.5", "valid integer"),
        ("min_tissue", "80", "less than or equal to 1"),
        ("learning_rate", "0", "greater than 0"),
        ("learning_rate", "nan", "finite"),
        ("mpp", "inf", "finite"),
        ("tta", "perhaps", "valid boolean"),
        ("optimizer", "adamm", "'adamw', 'adam', 'radam'"),
        ("threshold", "7", "less than or equal to 1"),
        ("threshold", "yuden", "'mean_of_six', 'youden' or 'f1'"),
        ("epochs", None, "valid integer"),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_its_meaning(
    key: str, value: Any, said: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve("images", overrides={key: value})
    error = caught.value
    assert error.what == f"setting {key} does not fit"
    assert said in str(error.expected)
    assert error.received == f"{key}={value!r}"
    assert error.remedy == f"{key} means: {Settings.model_fields[key].description}"


def test_texts_become_values_of_their_types() -> None:
    pairs = ["epochs=3", "tta=false", "mpp=0.5", "threshold=0.3", "model = x=y ", "seed= 2"]
    found = resolve("slides", overrides=parse(pairs))
    assert (found.epochs, found.tta, found.mpp, found.threshold) == (3, False, 0.5, 0.3)
    assert (found.model, found.seed) == ("x=y", 2)


def test_none_is_nothing_where_a_setting_may_be_nothing_and_a_word_elsewhere() -> None:
    assert parse(["mpp=None", "limit=none", "augment=none"]) == {
        "mpp": None, "limit": None, "augment": "none",
    }  # fmt: skip
    assert resolve("slides", overrides=parse(["augment=none"])).augment == "none"


@pytest.mark.parametrize("text", ["epochs", "=3", ""])
def test_a_text_without_a_key_or_a_sign_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="KEY=VALUE"):
        parse([text])


def test_settings_cannot_be_changed() -> None:
    settings = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.seed = 3


def test_every_setting_says_what_it_is() -> None:
    silent = [name for name, field in Settings.model_fields.items() if not field.description]
    assert silent == []


@pytest.mark.parametrize("text", ["mean", "top", "top=0.05", "top=5", "best", "logistic"])
def test_the_rule_of_slides_is_a_rule(text: str) -> None:
    assert resolve("slides", overrides={"aggregate": text}).aggregate == text


@pytest.mark.parametrize(
    ("text", "said"), [("meen", "did you mean mean"), ("top=0", "cannot take this number")]
)
def test_a_rule_that_is_none_says_what_there_is(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        resolve("slides", overrides={"aggregate": text})


def test_a_difference_shows_both_values() -> None:
    found = difference({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 5, "d": 4})
    assert found == {"b": (2, 5), "c": (3, None), "d": (None, 4)}
    assert describe({"b": (2, 5)}) == "b: 5 there, 2 now"


def test_a_key_sees_the_settings_named_and_no_other() -> None:
    base, more, seeded = Settings(), Settings(epochs=3), Settings(seed=1)
    assert settings_key(base, "seed") == settings_key(more, "seed") != settings_key(seeded, "seed")
    assert len({settings_key(s) for s in (base, more, seeded)}) == 3


def test_another_process_gives_the_same_key() -> None:
    code = "from kit.settings import Settings, settings_key; print(settings_key(Settings(seed=5)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == settings_key(Settings(seed=5))
