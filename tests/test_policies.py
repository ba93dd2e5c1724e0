"""Policies: what their names say, what may be taken away, and how mild they are."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from kit.errors import SettingsError
from kit.policies import MIXES, POLICIES, STEPS, Policy, policy

ROOT = Path(__file__).parents[1]
MILD = ("flips", "patch", "fundus", "mri", "ultrasound")
STRONG = tuple(name for name in POLICIES if name.endswith("_strong"))


def test_every_kind_of_image_has_a_mild_and_a_strong_policy() -> None:
    kinds = {"patch", "fundus", "mri", "ultrasound"}
    assert set(POLICIES) == {
        "none",
        "both_flips",
        "flips",
        *kinds,
        *(f"{kind}_strong" for kind in kinds),
    }
    assert MIXES == ("none", "mixup", "cutmix", "both")


@pytest.mark.parametrize("name", POLICIES)
def test_a_plain_name_is_the_policy_itself(name: str) -> None:
    assert policy(name) == POLICIES[name]


def test_steps_are_taken_away_by_name() -> None:
    assert policy("patch-stain") == dataclasses.replace(POLICIES["patch"], stain=0.0)
    assert policy("fundus-rotate-zoom") == dataclasses.replace(
        POLICIES["fundus"], rotate=0.0, zoom=0.0
    )
    assert policy("patch-symmetries").symmetries is False
    assert policy("patch_strong-cutout").cutout == 0


def test_taking_away_a_step_that_is_off_changes_nothing() -> None:
    """An ablation takes the same step from every kind of image."""
    assert policy("mri-stain") == POLICIES["mri"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("patchx", r"augment=patchx.*did you mean patch or"),
        ("patchx-stain", r"augment=patchx.*did you mean patch"),
        ("patch-stian", r"augment=patch-stian, step 'stian'.*did you mean stain"),
        ("patch-chance", r"step 'chance'"),
        ("patch-", r"step ''.*known: blur"),
        ("", r"augment is unknown"),
    ],
)
def test_an_unknown_policy_or_step_names_its_neighbours(name: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        policy(name)


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        POLICIES["patch"].flip = True  # type: ignore[misc]


def test_active_steps_are_those_that_are_on() -> None:
    assert POLICIES["none"].active == ()
    assert POLICIES["patch"].active == ("symmetries", "stain", "contrast", "brightness")
    assert "chance" not in STEPS
    assert len(STEPS) == len(dataclasses.fields(Policy)) - 1


@pytest.mark.parametrize("name", STRONG)
def test_a_strong_policy_is_stronger_in_every_step_of_the_mild_one(name: str) -> None:
    mild, strong = POLICIES[name.removesuffix("_strong")], POLICIES[name]
    for step in mild.active:
        assert getattr(strong, step) >= getattr(mild, step), step
    assert len(strong.active) > 2 * len(mild.active)


@pytest.mark.parametrize("name", STRONG)
def test_a_strong_policy_leaves_only_other_kinds_steps_off(name: str) -> None:
    off = set(STEPS) - set(POLICIES[name].active)
    patch = name == "patch_strong"  # whose symmetries hold the flip
    assert off <= ({"flip", "vertical"} if patch else {"vertical", "symmetries", "stain", "hue"})


@pytest.mark.parametrize("name", MILD)
def test_default_policies_lose_no_part_of_an_image_and_bend_nothing(name: str) -> None:
    steps = POLICIES[name]
    assert not {"elastic", "cutout", "noise", "blur", "jpeg", "crop"} & set(steps.active)
    assert steps.rotate <= 15
    assert steps.zoom <= 0.1


def test_policies_load_no_keras() -> None:
    code = "import sys, kit.policies; print('keras' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "False"
