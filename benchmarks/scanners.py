"""New scanners, the lesson of HeLP: `python benchmarks/scanners.py [--real --data DIR] [--save]`.

Networks learn from slides of one scanner and are judged on those and on another's. By default the
slides are drawn (`synthetic_scanners`): an illustration, because whoever drew the second scanner
also knew the remedies. With `--real` the IDC patients are grouped by their stain and each group is
left out whole: evidence. Called again with the same `--out` it goes on where it stopped.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import numpy as np
import pandas as pd
from bench import arguments, keep

from kit import apart, intervals, jobs, kinds, policies, store, synthetic
from kit._ranks import area, spread
from kit.files import FileIndex, digest, fingerprint, read_json
from kit.fits import Fit
from kit.inference import predict_images
from kit.manifest import load_manifest
from kit.plans import codes
from kit.recipes import recipe_of
from kit.settings import Settings
from kit.stain import clusters, median_stains
from kit.store import Store
from kit.training import fit_and_predict

PLAIN = "patch-brightness-contrast-stain"  # turns and flips alone
STAINED = "patch_strong" + "".join(
    f"-{step}" for step in policies.STEPS if step not in ("flip", "vertical", "symmetries", "stain")
)
TOP = 0.05  # share of a slide's patches, the most suspicious, whose mean is its score


@dataclass(frozen=True)
class Method:
    """What is done against another scanner: in training, with the stain, in prediction."""

    augment: str = PLAIN
    stain: str = "none"
    tta: bool = False
    adapted: bool = False


METHODS = {
    "nothing": Method(),
    "stain augmentation": Method(STAINED),
    "Macenko": Method(stain="macenko"),
    "Reinhard": Method(stain="reinhard"),
    "test-time views": Method(tta=True),
    "batch statistics": Method(adapted=True),
}
JOINED = "all five together"  # mean of the scores of all but the first


@dataclass(frozen=True)
class Part:
    """Rows that networks of one fold are judged on, none of which they have seen."""

    name: str
    fold: int
    rows: np.ndarray


@dataclass(frozen=True)
class Bench:
    """What is learnt from and judged on: one table of items, of which each stain has its store.

    Attributes:
        make: From a stain to the store of its pixels.
        learnt: Rows that the networks of each fold learn from.
        parts: What is judged.
        classes: The negative and the positive one.
        settings: How networks are trained.
        out: Folder of all that is made.
        slides: Whether scores are those of whole slides.
    """

    make: Callable[[str], Store]
    learnt: dict[int, np.ndarray]
    parts: tuple[Part, ...]
    classes: tuple[str, str]
    settings: Settings
    out: Path
    slides: bool

    @cached_property
    def stores(self) -> dict[str, Store]:
        """Return the store of each stain."""
        return {stain: self.make(stain) for stain in ("none", "macenko", "reinhard")}

    def fit(self, method: Method, fold: int, seed: int) -> Fit:
        """Return the network that a method trains; those that differ in prediction share it."""
        data, rows, none = self.stores[method.stain], self.learnt[fold], np.zeros(0, np.int64)
        recipe = recipe_of(self.settings.model_copy(update={"augment": method.augment}))
        content = digest(data.items.iloc[rows][["case_id", "key", "label"]])
        key = fingerprint([self.settings.model, recipe.__dict__, fold, seed, content, data.stain])
        return Fit(
            data, rows, codes(data.items, rows, self.classes), none, none, self.classes,
            self.settings.model, recipe, fold, seed, self.out / "models" / f"{key}.keras", key,
        )  # fmt: skip

    def train(self, seeds: int) -> None:
        """Train the networks that do not stand, two at a time."""
        wanted = {
            fit.path: fit for seed in range(seeds) for fold in self.learnt
            for method in METHODS.values() for fit in [self.fit(method, fold, seed)]
        }  # fmt: skip
        none = pd.DataFrame({"case_id": [], "fold": []})
        work = [
            jobs.Job(fit.name, fit_and_predict, (fit, none, "none", False))
            for fit in wanted.values() if not fit.done()
        ]  # fmt: skip
        for number, outcome in enumerate(apart.each(work, workers=jobs.cores()), start=1):
            jobs.values([outcome])
            print(f"{number} of {len(work)} networks, {outcome.seconds:.0f} s", flush=True)

    def scores(self, name: str, part: Part, seed: int) -> np.ndarray:
        """Return what a method says of each row or slide of a part, kept on disk."""
        if name == JOINED:
            members = [self.scores(one, part, seed) for one in METHODS if one != "nothing"]
            return np.mean(members, axis=0)
        method = METHODS[name]
        fit = self.fit(method, part.fold, seed)
        sha = read_json(fit.path.with_suffix(".json"))["sha256"]
        content = digest(fit.store.items.iloc[part.rows][["case_id", "key"]])
        rows = fingerprint([sha, method.tta, method.adapted, content])
        path = self.out / "scores" / f"{rows}.npy"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            np.save(path, _probabilities(fit, part.rows, method))
        prob = np.load(path)
        if not self.slides:
            return prob
        table = self.stores["none"].items.iloc[part.rows].assign(prob=prob)
        return table.groupby("case_id", sort=True).prob.agg(_top).to_numpy()

    def truth(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        """Return which rows or slides of a part are positive, and the group of each, as a code."""
        table = self.stores["none"].items.iloc[part.rows]
        if self.slides:
            table = table.drop_duplicates("case_id").sort_values("case_id")
        group = np.unique(table.group, return_inverse=True)[1]
        return (table.truth == self.classes[1]).to_numpy(), group


def _top(prob: pd.Series) -> float:
    return float(prob.nlargest(max(1, round(TOP * len(prob)))).mean())


def _probabilities(fit: Fit, rows: np.ndarray, method: Method) -> np.ndarray:
    from kit.adapt import batch_statistics
    from kit.augment import views
    from kit.models import load_network

    network, pixels = load_network(fit.path), fit.store.pixels
    if method.adapted:
        network = batch_statistics(network, pixels, rows)
    seen = [view.forward for view in views("patch" if method.tta else "none")]
    return predict_images(network, pixels, rows, seen)[:, 1]


# What is found: areas, their mean over seeds and parts, and intervals over patients.


@dataclass(frozen=True)
class Found:
    """The mean area of some seeds, how each row moves it, and the area of each seed."""

    area: float
    influence: np.ndarray
    seeds: tuple[float, ...]


def found(positive: np.ndarray, scores: list[np.ndarray]) -> Found:
    """Return the mean over seeds of the area under the ROC curve."""
    each = [area(positive, one) for one in scores]
    influence = np.mean([one.influence for one in each], axis=0)
    values = tuple(one.area for one in each)
    return Found(float(np.mean(values)), influence, values)


def mean_of(parts: list[Found]) -> Found:
    """Return the mean over parts that share no patient."""
    influence = np.concatenate([one.influence for one in parts]) / len(parts)
    seeds = tuple(float(np.mean(each)) for each in zip(*(one.seeds for one in parts), strict=True))
    return Found(float(np.mean([one.area for one in parts])), influence, seeds)


def interval(one: Found, positive: np.ndarray, group: np.ndarray) -> str:
    """Return an area with its 95 % interval over patients (DeLong's variance of the mean)."""
    variance, freedom, fewer = spread(one.influence, positive.astype(int), group, group.max() + 1)
    low, high = intervals.auc_interval(one.area, variance, freedom, fewer)
    return f"{one.area:.3f} [{low:.3f}, {high:.3f}]"


def difference(one: Found, other: Found, positive: np.ndarray, group: np.ndarray) -> str:
    """Return how much larger an area is than another on the same rows, with its interval."""
    from scipy.special import stdtrit

    influence = one.influence - other.influence
    variance, freedom, _ = spread(influence, positive.astype(int), group, group.max() + 1)
    value, half = one.area - other.area, float(stdtrit(freedom, 0.975)) * variance**0.5
    return f"{value:+.3f} [{value - half:+.3f}, {value + half:+.3f}]"


def lines(bench: Bench, seeds: int) -> list[list[str]]:
    """Return the table: a line a method, a column a part, the gain in the last (or in the mean)."""
    truths = [bench.truth(part) for part in bench.parts]
    several = len({part.fold for part in bench.parts}) > 1
    starts = np.cumsum([0, *(group.max() + 1 for _, group in truths)])
    every = (
        np.concatenate([positive for positive, _ in truths]),
        np.concatenate([group + start for (_, group), start in zip(truths, starts, strict=False)]),
    )
    judged, table = every if several else truths[-1], []
    base: Found | None = None
    for name in (*METHODS, JOINED):
        each = [
            found(positive, [bench.scores(name, part, seed) for seed in range(seeds)])
            for part, (positive, _) in zip(bench.parts, truths, strict=True)
        ]
        last = mean_of(each) if several else each[-1]
        base = base or last
        cells = [interval(one, *truth) for one, truth in zip(each, truths, strict=True)]
        cells += [interval(last, *judged)] if several else []
        gain = "" if last is base else difference(last, base, *judged)
        table.append([name, *cells, f"{min(last.seeds):.3f} to {max(last.seeds):.3f}", gain])
        print(" | ".join(table[-1]), flush=True)
    return table


# The drawn slides, and the real patches.


def drawn(settings: Settings, data: Path, out: Path, scale: float) -> Bench:
    """Return the drawn slides of two scanners: the first's to learn from, both to be judged on."""
    name = "synthetic_scanners"
    root = synthetic.make(name, data / name, scale=scale)
    entry = load_manifest().dataset(name)
    cases = entry.cases(root=root)
    index = FileIndex(out / "inputs.parquet")
    cases["key"] = kinds.content_key(entry, root, cases, index, settings)
    plan, _ = kinds.patches(cases, entry, root, settings, folder=out / "plans",
                            workers=jobs.cores())  # fmt: skip
    items = kinds.items(cases, plan, settings)
    items = items[items.train | (items.split == "test")].reset_index(drop=True)
    known = pd.read_csv(root / "labels.csv", dtype=str).set_index("case_id")
    items = items.assign(
        truth=items.case_id.map(known.label), phase=items.case_id.map(known.phase), predict=False
    )
    new = items.split == "test"
    parts = tuple(
        Part(f"phase {phase}", 0, np.flatnonzero(new & (items.phase == phase))) for phase in "12"
    )
    learnt = {0: np.flatnonzero(items.train)}
    return Bench(_maker(entry, root, settings, items, out), learnt, parts,
                 (entry.classes[0], entry.classes[1]), settings, out, True)  # fmt: skip


def real(settings: Settings, data: Path, out: Path, k: int) -> Bench:
    """Return the IDC patches: patients in groups of alike stain, each left out whole."""
    entry = load_manifest().dataset("idc_patches")
    root = entry.root(data)
    cases = entry.cases(root=root)
    index = FileIndex(out / "inputs.parquet")
    cases["key"] = kinds.content_key(entry, root, cases, index, settings)
    items = kinds.items(cases, None, settings).assign(truth=cases.label, predict=False)
    make = _maker(entry, root, settings, items, out)
    pixels = make("none").pixels
    rows_of = {name: rows.index.to_numpy() for name, rows in items.groupby("group")}
    medians = {name: median_stains(pixels[rows]) for name, rows in rows_of.items()}
    cluster = items.group.map(clusters(medians, k)).to_numpy()
    for number in range(k):
        mine = items.group[cluster == number].unique()
        h, e = np.median([medians[name] for name in mine], axis=0)
        print(f"cluster {number}: {len(mine)} patients, median density {h:.2f} of haematoxylin, "
              f"{e:.2f} of eosin", flush=True)  # fmt: skip
    parts = tuple(
        Part(f"cluster {number}: {items.group[cluster == number].nunique()} patients", number,
             np.flatnonzero(cluster == number)) for number in range(k)
    )  # fmt: skip
    learnt = {number: np.flatnonzero(cluster != number) for number in range(k)}
    return Bench(make, learnt, parts, (entry.classes[0], entry.classes[1]), settings, out, False)


def _maker(
    entry: object, root: Path, settings: Settings, items: pd.DataFrame, out: Path
) -> Callable[[str], Store]:
    def make(stain: str) -> Store:
        mine = settings.model_copy(update={"stain": stain})
        found, unread = store.build(
            out / f"pixels_{stain}", items, kinds.reader(entry, root, mine, items), "scanners",
            workers=jobs.cores(), normaliser=kinds.normaliser(entry, mine),
        )  # fmt: skip
        if unread:
            sys.exit("\n".join(unread))
        if "left_alone" in found.items:
            print(f"{stain}: {found.items.left_alone.sum()} of {len(items)} left alone", flush=True)
        return found

    return make


NOTE = (
    "AUC, mean over {seeds} seeds (networks); brackets are 95 % intervals over patients of that "
    "mean; seeds: the least and the greatest of one network. `nothing` turns and flips patches "
    "alone; stain augmentation adds factors of sigma .12 to half of them; normalisation is of each "
    "patch to the standard look; the last line means the scores of the five before it. {rest}"
)
DRAWN = (
    "A slide's score is the mean of its 5 % most suspicious patches. An illustration and no "
    "evidence: the second scanner (another stain, blur, JPEG 50, black void) is drawn by us, and "
    "its change is one that stain methods are made for."
)
REAL = (
    "Evidence: real patches of one institution, patients grouped by the median of their stains "
    "(Ward), each group left out whole, so that stains are met that training never showed. It is "
    "a shift of stain within one scanner and one disease, not another hospital."
)


def main() -> None:
    """Train what is missing, judge it, print the table and, if asked, keep it."""
    asked = arguments(
        "Methods against another scanner", data="", out="", real=0, seeds=3, epochs=8, scale=1.0,
        k=3, model="seresnet_small",
    )  # fmt: skip
    place = "real" if asked.real else "drawn"
    out = Path(asked.out or Path(tempfile.gettempdir()) / "kit-scanners") / place
    settings = Settings(
        epochs=asked.epochs,
        model=asked.model,
        monitor="none",
        predict_per_slide=96,
        mixed_sizes="pad",
    )
    if asked.real:
        bench = real(settings, Path(asked.data), out, asked.k)
    else:
        bench = drawn(settings, Path(asked.data or out), out, asked.scale)
    bench.train(asked.seeds)
    table = lines(bench, asked.seeds)
    gain = "mean against nothing" if asked.real else "phase 2 against nothing"
    columns = ["method", *(part.name for part in bench.parts),
               *(["mean"] if asked.real else []), "seeds", gain]  # fmt: skip
    title = ("Another stain, real: whole groups of IDC patients left out" if asked.real else
             "Another scanner, drawn: trained on phase 1")  # fmt: skip
    keep("scanners_real" if asked.real else "scanners", title, columns, table, save=asked.save,
         notes=NOTE.format(seeds=asked.seeds, rest=REAL if asked.real else DRAWN),
         command=f"python benchmarks/scanners.py{' --real 1' if asked.real else ''}")  # fmt: skip


if __name__ == "__main__":
    main()
