"""Slides from bags of vectors: trained by the slide's label alone, fold by fold.

From slides to scores and to attention drawn on them:

    encoder = encoders.unlabelled("seresnet_small", 256, out)
    slide_jobs.embed_slides(cases, plan, [encoder], root=root, folder=out / "vectors")
    bags = encoders.bags(cases, [encoder], out / "vectors")
    oof, _ = mil.cross_validate(folds, bags, classes=classes, positive=positive, out=out / "mil")
    seen = mil.attention_table(out / "mil", bags, case_id, fold=fold)
    heatmaps.write(seen, slide, out / "attention", column="attention", threshold=0.9)

Which encoder may be shown which fold, `kit.encoders` says.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kit import apart, jobs
from kit._bags import FoldBags, Source
from kit._mil_fits import BATCH, FORMAT, Fit, network_path, train
from kit._mil_uses import attention as attention
from kit._mil_uses import attention_table as attention_table
from kit._mil_uses import probabilities as probabilities
from kit.aggregate import to_cases
from kit.backend import load_backend
from kit.checks import columns, first, labels, positive_int, unique_ids
from kit.errors import (
    GroupLeakError,
    ModelError,
    SettingsError,
    TableError,
)
from kit.files import fingerprint, read_json, read_table, table_key, write_table
from kit.models import check_model, load_network
from kit.plans import check_folds
from kit.recipes import Recipe

log = logging.getLogger(__name__)

PACE = {"attention_mil": (20, 2e-3), "chowder": (40, 1e-2)}
"""Epochs and highest learning rate that suit a network; chowder's few scores learn slowly."""
Tables = tuple[pd.DataFrame, pd.DataFrame]


def cross_validate(
    folds: pd.DataFrame, bags: Source, *, classes: Sequence[str], positive: str | None, out: Path,
    model: str = "attention_mil", tests: pd.DataFrame | None = None,
    only: Sequence[int] | None = None, seeds: int = 3,
    epochs: int | None = None, learning_rate: float | None = None, weight_decay: float = 0.05,
    instances: int = 4096, seed: int = 0, threads: int = 1, device: str = "auto",
    workers: int = 0,
) -> Tables:  # fmt: skip
    """Train a network of bags for each fold and seed, and predict the slides it has not seen.

    A network learns from the slides of the other folds and nothing else; no figure of the held-out
    fold stops it or chooses its weights, which are the moving average at the last epoch. Mean and
    spread of the features are those of its training slides, each slide counting alike, and are
    saved within it. Every epoch sees other instances of a slide (80 %, at most `instances`), with
    a quarter of the features left out; predictions see all. Called again, it takes what stands,
    by fingerprint of the vectors, labels and settings.

    Args:
        folds: `case_id, group, label, fold`.
        bags: From case id and fold to the slide's vectors, floats (n, d); (0, d) for a slide
            without a patch; a row of zeros is taken for padding. An encoder trained per fold gives
            other vectors for each fold; vectors from elsewhere (`kit.embeddings.from_files`) do not
            depend on it.
        classes: Class names, in the order of the networks' outputs.
        positive: The positive class; None above two classes.
        out: Folder of the networks and their predictions.
        model: A network of bags: attention_mil or chowder.
        tests: Further slides, `case_id, group`, predicted by every network.
        only: Folds to train; None: all.
        seeds: Networks of each fold.
        epochs: Times that a network sees each slide; None: as `PACE` says.
        learning_rate: The highest: up for a tenth of the steps, then down half a cosine; None: as
            `PACE` says.
        weight_decay: Decoupled, of AdamW.
        instances: Most instances of a slide in an epoch.
        seed: Of all that is drawn.
        threads: Of one operation.
        device: "cpu", "gpu" or "auto".
        workers: Folds trained at a time, each in a process of its own, for which `bags` must be
            picklable; 0: all in this process.

    Returns:
        The out-of-fold and the test predictions table, a row for each slide and network:
        `case_id, group, fold, seed, model, y_true`, `prob_<class>`. A slide without a patch gets
        the score that `kit.aggregate.to_cases` states, and none is learnt from.

    Raises:
        TableError: A table is none, a bag is no finite (n, d) of one width d, or a fold leaves
            nothing of a class to learn from.
        GroupLeakError: A group stands in two folds, or in a fold and in `tests`.
        SettingsError: A setting is out of range, or the classes are not those of the labels.
        ModelError: The network takes no bags.
        TrainingError: A loss is not finite.
    """
    _check(folds, tests, classes, positive, model)
    usual = PACE[model]
    recipe = Recipe(
        usual[0] if epochs is None else epochs, batch_size=BATCH, weight_decay=weight_decay,
        learning_rate=usual[1] if learning_rate is None else learning_rate, monitor="none",
        seed=seed, threads=threads, device=device,
    )  # fmt: skip
    positive_int("seeds", seeds)
    positive_int("instances", instances)
    positive_int("workers", workers, least=0)
    asked = folds[["case_id", "group", "label"]].assign(split="train", fold=folds.fold)
    further = folds.iloc[:0] if tests is None else tests
    further = further[["case_id", "group"]].assign(label=None, split="test")
    numbers = sorted({int(number) for number in (folds.fold if only is None else only)})
    work = []
    for fold in numbers:
        fits = [Fit(model, tuple(classes), recipe, instances, fold, number, Path(out))
                for number in range(seeds)]  # fmt: skip
        work.append(jobs.Job(f"networks of bags, fold {fold}", _of_fold,
                             (fits, bags, asked, [*further.case_id])))  # fmt: skip
    found = pd.concat(_values(work, workers), ignore_index=True)
    is_test = found.case_id.isin(further.case_id)
    held = asked[asked.fold.isin(numbers)]
    oof = to_cases(found[~is_test], held, classes, positive)
    if not len(further):
        return oof, oof.iloc[:0]
    return oof, to_cases(found[is_test], further, classes, positive)


def _values(work: Sequence[jobs.Job], workers: int) -> list[pd.DataFrame]:
    """Return what the jobs give: here, or in processes where a network is still to be trained."""
    from tqdm import tqdm

    here = not workers or all(_predictions(fit).is_file() for job in work for fit in job.args[0])
    outcomes = (jobs.call(job) for job in work) if here else apart.each(work, workers=workers)
    with (
        contextlib.closing(outcomes),
        tqdm(total=len(work), desc="networks of bags", disable=None, leave=False) as bar,
    ):
        found = []
        for outcome in outcomes:
            found += jobs.values([outcome])
            bar.update()
        return found


def _of_fold(
    fits: Sequence[Fit], bags: Source, asked: pd.DataFrame, further: Sequence[str]
) -> pd.DataFrame:
    """Return what the networks of a fold say of the slides that they have not seen: a job."""
    fold, classes = fits[0].fold, fits[0].classes
    source = FoldBags(bags, fold, [*asked.case_id, *further])
    seen = [*asked.case_id[asked.fold == fold], *further]
    learnt = _learnt(asked[asked.fold != fold], source, classes)
    return pd.concat([_fit_and_predict(fit, source, learnt, seen) for fit in fits])


def _predictions(fit: Fit) -> Path:
    return fit.path.with_suffix(".parquet")


def _check(
    folds: pd.DataFrame, tests: pd.DataFrame | None, classes: Sequence[str], positive: str | None,
    model: str,
) -> None:  # fmt: skip
    if check_model(model).takes != "bags":
        raise ModelError("the network takes no bags", expected=" or ".join(PACE),
                         received=f"model={model}")  # fmt: skip
    check_folds(folds)
    unique_ids(folds.case_id)
    labels(folds.label, classes)
    fits = positive in classes if len(classes) == 2 else positive is None
    if len(set(classes)) < max(2, len(classes)) or not fits:
        raise SettingsError(
            "classes and positive class do not fit", expected="two classes and one of them as "
            "positive, or more classes and none", received=f"classes {', '.join(classes)}; "
            f"positive={positive}",
        )  # fmt: skip
    if tests is None:
        return
    unique_ids(columns(tests, ["case_id", "group"]).case_id)
    for name in ("case_id", "group"):
        both = tests[name][tests[name].isin(folds[name])]
        if len(both):
            raise GroupLeakError("slides to predict are among those of the folds",
                                 expected=f"another {name}", received=first(both))  # fmt: skip


def _learnt(cases: pd.DataFrame, source: FoldBags, classes: Sequence[str]) -> pd.DataFrame:
    """Return the slides to learn from: those of the other folds that have a patch."""
    bare = cases.case_id.map(source.sizes) == 0
    if bare.any():
        log.warning("no patch, so not learnt from: %s", first(cases.case_id[bare]))
    found = cases[~bare].reset_index(drop=True)
    lacking = sorted(set(classes) - set(found.label))
    if lacking:
        raise TableError(
            f"nothing to learn from of class {first(lacking)}", expected="slides of each class in "
            "the other folds", received=", ".join(f"{n} {name}" for name, n in
                                                  found.label.value_counts().items()) or "none",
            remedy="fewer folds, or another deal of them",
        )  # fmt: skip
    return found


def _fit_and_predict(
    fit: Fit, source: FoldBags, learnt: pd.DataFrame, seen: Sequence[str]
) -> pd.DataFrame:
    """Return a network's predictions of the slides with a patch; what stands is taken."""
    key = fit.key(source, learnt)
    if not fit.done(key):
        load_backend(fit.recipe.threads, fit.recipe.device)
        train(fit, source, learnt)
    made_by = fingerprint([
        FORMAT, read_json(fit.path.with_suffix(".json"))["sha256"], fit.classes,
        [(case, source.digests[case]) for case in seen],
    ])  # fmt: skip
    path = _predictions(fit)
    if table_key(path) == made_by:
        return read_table(path)
    load_backend(fit.recipe.threads, fit.recipe.device)
    table = _said(fit.path, source, [case for case in seen if source.sizes[case]])
    write_table(table, path, made_by)
    return table


def predict(
    networks: Sequence[Path], bags: Source, case_ids: Sequence[str], classes: Sequence[str]
) -> pd.DataFrame:
    """Return what the networks of `cross_validate` say of new slides.

    Args:
        networks: Their files, each with its note (`.json`) beside it.
        bags: From case id and fold to the slide's vectors, by the encoder that the fold's networks
            learnt from.
        case_ids: The slides, of none of the folds.
        classes: As the networks were trained on.

    Returns:
        A row for each network and slide with a patch, `case_id, fold, seed, model`,
        `prob_<class>`; `kit.aggregate.to_cases` gives the others the stated score.

    Raises:
        TableError: A bag is no finite (n, d) of the network's width.
        ModelError: The networks have learnt other classes.
    """
    load_backend(1)
    parts = []
    for path in networks:
        note = read_json(path.with_suffix(".json"))
        if note["classes"] != list(classes):
            raise ModelError("the network knows other classes", expected=", ".join(classes),
                             received=", ".join(note["classes"]), path=path)  # fmt: skip
        source = FoldBags(bags, int(note["fold"]), case_ids)
        parts.append(_said(path, source, [case for case in case_ids if source.sizes[case]]))
    return pd.concat(parts, ignore_index=True)


def files(out: Path, table: pd.DataFrame) -> list[Path]:
    """Return the networks in a folder that made these predictions, `fold, seed`."""
    made = table[["fold", "seed"]].drop_duplicates().sort_values(["fold", "seed"])
    return [network_path(out, fold, seed) for fold, seed in made.to_numpy(int).tolist()]


def _said(path: Path, bags: Callable[[str], np.ndarray], cases: Sequence[str]) -> pd.DataFrame:
    """Return a network's row for each of these slides, each of which has a patch."""
    note, network = read_json(path.with_suffix(".json")), load_network(path)
    names = [f"prob_{name}" for name in note["classes"]]
    prob = np.array([probabilities(network, bags(case)) for case in cases])
    return pd.DataFrame({
        "case_id": cases, **{key: note[key] for key in ("fold", "seed", "model")},
        **dict(zip(names, prob.reshape(len(cases), len(names)).T, strict=True)),
    })  # fmt: skip
