"""Every setting of a run: flat, validated, frozen, reached by `--set KEY=VALUE`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from kit.checks import first, nearest
from kit.errors import SettingsError
from kit.files import fingerprint
from kit.rules import Rule
from kit.thresholds import DEMANDED


class Settings(BaseModel):
    """What a run does. Two runs with equal settings and equal data give equal tables."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seed: int = Field(0, ge=0, description="the one seed that all others derive from")
    seeds: int = Field(1, ge=1, description="networks trained for each fold")
    n_splits: int = Field(5, ge=2, description="folds, stratified and grouped")
    limit: int | None = Field(None, ge=2, description="about so many training cases, whole groups")

    image_size: int = Field(48, ge=8, le=4096, description="side of the network's input, pixels")
    mixed_sizes: Literal["resize", "pad"] | None = Field(
        None, description="how images of other sizes than the first are fitted; None: an error"
    )
    fundus: Literal["none", "crop", "graham"] = Field(
        "none", description="photographs of eyes: cut to the eye, then Ben Graham's normalisation"
    )

    patch_size: int = Field(
        64, ge=8, le=4096, description="side of a slide's patch, its own pixels"
    )
    mpp: float | None = Field(None, gt=0, description="µm per pixel of a patch; None: use level")
    level: int = Field(0, ge=0, description="slide level of a patch where mpp is None")
    stride: int | None = Field(None, ge=1, description="step of the grid; None: patch_size")
    tissue: Literal["stain", "otsu", "saturation"] = Field(
        "stain", description="rule that finds tissue; otsu: HeLP's, dark and not black"
    )
    min_tissue: float = Field(0.5, ge=0, le=1, description="least tissue fraction of a patch")
    min_tumour: float = Field(0.5, ge=0, le=1, description="tumour fraction that labels a patch")
    max_normal: float = Field(0.0, ge=0, lt=1, description="tumour fraction that normal may have")
    partial: Literal["unsure", "drop"] = Field(
        "unsure", description="patches between the two: kept unlabelled, or dropped (HeLP)"
    )
    min_focus: float = Field(
        0.0, ge=0, description="least sharpness; 0: not looked at; .32: blurred"
    )
    smaller: int | None = Field(
        None, ge=8, description="patch size of slides with fewer than 100 tumour patches"
    )
    channels: Literal["slice", "neighbours", "series"] = Field(
        "slice", description="of a study's slice: it alone, with those beside it, or in all series"
    )
    scaling: Literal["maximum", "window", "percentile"] = Field(
        "maximum", description="what becomes white in a series: percentile is the 99.5th"
    )
    votes: bool = Field(
        False, description="slices vote, rounded to tenths (RSNA 2021); else their mean is taken"
    )
    stain: Literal["none", "macenko", "reinhard"] = Field(
        "none", description="pathology: every patch in the standard look of kit.stain, everywhere"
    )
    jpeg_quality: int | None = Field(
        None, ge=1, le=100, description="pixels are kept as JPEG of this quality; None: lossless"
    )
    patches_per_slide: int = Field(128, ge=1, description="most patches of a slide to learn from")
    draw: Literal["slide", "kind"] = Field(
        "slide", description="kind: of these, tumour and normal of positive slides and negative "
        "slides' are drawn 1:1:2 (HeLP)"
    )  # fmt: skip
    predict_per_slide: int | None = Field(
        None, ge=1, description="most patches of a slide to predict; None: all that are planned"
    )
    aggregate: Annotated[str, AfterValidator(lambda text: str(Rule.parse(text)))] = Field(
        "top=0.05",
        description="patches to slide score: mean, max, top, percentile, share, region, noisy_or "
        "(=NUMBER, else chosen nested), best, logistic, boosting, attention_mil, chowder",
    )

    pixel_score: Literal["mean", "max"] = Field(
        "mean", description="a patch by a network of pixels: mean or maximum of its centre"
    )
    pixel_map: Literal["window", "centre"] = Field(
        "window", description="its map: overlaps weighed by a window, or centres alone (HeLP)"
    )

    model: str = Field("seresnet_small", description="a name of kit.models.REGISTRY")
    weights: str | None = Field(
        None,
        description="pretrained weights: a name under the dataset's `weights`, or the folder of a "
        "finished run on another data set",
    )
    epochs: int = Field(20, ge=1, description="passes over the training part")
    steps: int | None = Field(None, ge=1, description="steps of an epoch; None: one pass")
    batch_size: int = Field(64, ge=1, description="images a step")
    optimizer: Literal[
        "adamw", "adam", "radam", "sgd", "nadam", "rmsprop", "lion", "lamb", "adamax"
    ] = Field("adamw", description="sgd is with Nesterov momentum .9")
    learning_rate: float = Field(2e-3, gt=0, description="highest rate of the schedule")
    schedule: Literal["cosine", "staircase", "plateau", "one_cycle", "constant"] = Field(
        "cosine", description="how the rate moves; cosine is with warm-up"
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="share of a stage in which cosine rises")
    decay: float = Field(0.975, gt=0, le=1, description="factor of a stair of the staircase")
    decay_steps: int | None = Field(
        None, ge=1, description="steps of a stair of the staircase; None: an epoch"
    )
    patience: int = Field(3, ge=1, description="epochs without gain before a plateau halves")
    min_rate: float = Field(0.0, ge=0, description="lowest rate of a plateau")
    weight_decay: float = Field(0.05, ge=0, description="decoupled decay of the weights")
    clip: float = Field(0.0, ge=0, description="largest norm of all gradients; 0: any")
    loss: Literal["cross_entropy", "focal", "ordinal"] = Field(
        "cross_entropy", description="ordinal: classes are grades in their order"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share given to all classes")
    balance: Literal["none", "weights", "sampling"] = Field(
        "none", description="classes count alike, by weights or by how often they are drawn"
    )
    ema: float = Field(0.99, ge=0, lt=1, description="moving average of the weights; 0: none")
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = Field(
        "float32", description="mixed: faster on a GPU with tensor cores (T4: mixed_float16)"
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="gpu stops where there is none"
    )
    augment: str = Field(
        "patch",
        description="augmentation policy (none, both_flips, flips, patch, fundus, mri, ultrasound; "
        "_strong behind the last four), less some steps: patch-stain",
    )
    mix: Literal["none", "mixup", "cutmix", "both"] = Field(
        "none", description="images mixed with one another, and their labels"
    )
    monitor: Literal["none", "auc", "mean_of_six", "loss"] = Field(
        "auc", description="figure of the held-out fold after each epoch; decides nothing alone"
    )
    keep: Literal["last", "best"] = Field(
        "last", description="best: the epoch that the held-out fold likes (a little optimistic)"
    )
    stop_after: int = Field(0, ge=0, description="epochs without gain that end a stage; 0: never")
    head_epochs: int = Field(0, ge=0, description="first stage, the head alone learns")
    second_epochs: int = Field(0, ge=0, description="last stage, mild augmentation, lower rate")
    second_rate: float = Field(0.1, gt=0, description="its rate, times learning_rate")
    second_augment: str = Field("flips", description="its augmentation policy")
    second_smoothing: float = Field(0.0, ge=0, lt=1, description="its label smoothing")
    students: int = Field(1, ge=1, description="networks that teach one another (mutual learning)")
    teacher: str | None = Field(
        None, description="folder of a finished run with the same folds, to distil from"
    )
    temperature: float = Field(2.0, gt=0, description="of the distillation")
    teacher_weight: float = Field(0.5, ge=0, le=1, description="share of the teacher in the loss")
    everything: Literal["no", "add", "only"] = Field(
        "no", description="networks on all training cases too, for the epochs that folds chose"
    )
    tta: bool = Field(True, description="average the prediction over the policy's flips")
    threads: int = Field(1, ge=1, description="threads of one fit: they change last digits")

    ensemble: Literal["mean"] = Field("mean", description="how the folds' networks are joined")
    threshold: (
        Annotated[float, Field(ge=0, le=1)]
        | Literal["mean_of_six", "youden", "f1"]
        | Annotated[str, Field(pattern=f"^{DEMANDED.pattern}$")]
    ) = Field(
        "mean_of_six", description="fixed, chosen out-of-fold, or sensitivity=S, specificity=S"
    )
    resamples: int = Field(2000, ge=100, description="bootstrap resamples of the intervals")


DEFAULTS: dict[str, dict[str, Any]] = {
    "slides": {},
    "patches": {},
    "images": {"augment": "fundus", "image_size": 64},
    "dicom": {"augment": "mri", "image_size": 64},
    "arrays": {"augment": "flips", "image_size": 56, "epochs": 50},
}
SMOKE: dict[str, Any] = {
    "n_splits": 2, "limit": 400, "image_size": 32, "epochs": 6, "batch_size": 16,
    "model": "conv_small", "patches_per_slide": 40, "predict_per_slide": 60, "tta": False,
    "resamples": 500,
}  # fmt: skip


def resolve(
    kind: str, *layers: Mapping[str, Any], smoke: bool = False, overrides: Mapping[str, Any]
) -> Settings:
    """Return the settings of a run: defaults of the kind, layers, smoke, then the user's own.

    Raises:
        SettingsError: A key is unknown (its neighbours are named) or a value is out of range.
    """
    merged: dict[str, Any] = dict(DEFAULTS[kind])
    for layer in (*layers, SMOKE if smoke else {}, overrides):
        merged.update(layer)
    known = Settings.model_fields
    for key in merged:
        if key not in known:
            raise SettingsError(
                f"setting {key!r} is unknown", received=f"{key}={merged[key]}",
                remedy=nearest(key, known),
            )  # fmt: skip
    return checked(merged)


def checked(values: Mapping[str, Any]) -> Settings:
    """Return settings of these values, and the defaults of all others.

    Raises:
        SettingsError: A value is of the wrong type or out of range.
    """
    try:
        return Settings(**values)
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0])
        wanted = [bad["msg"] for bad in error.errors() if bad["loc"][0] == key]
        about = Settings.model_fields[key].description
        raise SettingsError(
            f"setting {key} does not fit", expected="; or ".join(wanted),
            received=f"{key}={values.get(key)!r}", remedy=f"{key} means: {about}",
        ) from error  # fmt: skip


def parse(pairs: list[str]) -> dict[str, Any]:
    """Turn `KEY=VALUE` texts into a mapping; pydantic turns each value into its type.

    `none` is None for the settings that may be None, and a word like any other elsewhere.

    Raises:
        SettingsError: A text has no `=`.
    """
    result: dict[str, Any] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise SettingsError(
                "--set takes KEY=VALUE", expected="such as epochs=30", received=pair or "nothing",
                remedy="--set '?' lists every setting",
            )  # fmt: skip
        key, value = key.strip(), value.strip()
        result[key] = None if value.lower() == "none" and _optional(key) else value
    return result


def _optional(key: str) -> bool:
    field = Settings.model_fields.get(key)
    return field is not None and type(None) in get_args(field.annotation)


def difference(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the keys in which two settings differ, with both values."""
    keys = sorted({*mine, *theirs})
    return {k: (mine.get(k), theirs.get(k)) for k in keys if mine.get(k) != theirs.get(k)}


def describe(diff: Mapping[str, tuple[Any, Any]]) -> str:
    """Return one line for a difference of settings."""
    return first([f"{k}: {there} there, {here} now" for k, (here, there) in diff.items()], 8)


def choices(name: str) -> list[str]:
    """Return the words that a setting may be; none for numbers."""
    annotation = Settings.model_fields[name].annotation
    parts = [annotation, *get_args(annotation)]
    words = [get_args(part) for part in parts if get_origin(part) is Literal]
    return [str(word) for some in words for word in some]


def defaults() -> dict[str, Any]:
    """Return every setting's own default, before kinds and challenges speak."""
    return {name: field.default for name, field in Settings.model_fields.items()}


def settings_key(settings: Settings, *names: str) -> str:
    """Return the fingerprint of the named settings, or of all that differ from their defaults.

    A setting that a later version adds, at its default, leaves the fingerprint as it was.
    """
    values = settings.model_dump(mode="json", exclude_defaults=not names)
    return fingerprint({k: values[k] for k in names} if names else values)
