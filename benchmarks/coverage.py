"""How often 95 % intervals hold the truth: `python benchmarks/coverage.py [--simulations N]`.

Cases are drawn whose truth is known. A patient has one label; an image's score is the label's
effect, the patient's own deviation and the image's, all normal. The threshold is fixed. Beside the
kit's intervals stand those of the bootstrap that draws patients with replacement, by percentiles
and BCa (Efron 1987), and the kit's own where images are taken for patients.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from bench import keep

from kit import jobs
from kit._certainty import statistic_of
from kit._rows import rows_of
from kit.metrics import FIGURES, evaluate, mean_of_six, six_from_counts

EFFECT, CUT = 1.9, 1.05  # AUC .91, sensitivity .80, specificity .85
RESAMPLES = 2000


@dataclass(frozen=True)
class Setting:
    """One line of the table."""

    patients: int
    prevalence: float
    images: int
    interval: str = "kit"
    shared: float = 0.6  # of the scores' variance within a class, what patients make


SETTINGS = [
    *(Setting(n, p, m) for n in (200, 1000) for p in (0.1, 0.3) for m in (1, 10)),
    Setting(200, 0.3, 40, shared=0.1),
    *(Setting(200, 0.1, m, name) for name in ("percentile", "BCa") for m in (1, 10)),
    Setting(200, 0.1, 10, "images as patients"), Setting(1000, 0.3, 10, "images as patients"),
    Setting(20, 0.3, 10), Setting(20, 0.3, 10, "kit, cautious"), Setting(40, 0.3, 1),
    Setting(40, 0.3, 1, "kit, cautious"),
]  # fmt: skip


def truth(prevalence: float) -> dict[str, float]:
    """Return the figures of endlessly many cases."""
    normal = NormalDist()
    hit, spared = normal.cdf(EFFECT - CUT), normal.cdf(CUT)
    counts = prevalence * hit, (1 - prevalence) * (1 - spared), prevalence * (1 - hit)
    six = {k: float(v) for k, v in six_from_counts(*counts, (1 - prevalence) * spared).items()}
    return {**six, "mean_of_six": mean_of_six(six), "auc": normal.cdf(EFFECT / 2**0.5)}


def cases(setting: Setting, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, probabilities and patients of one simulated set."""
    n, m = setting.patients, setting.images
    shared = setting.shared if m > 1 else 0.0
    label = rng.random(n) < setting.prevalence
    own = rng.normal(size=(n, 1)) * shared**0.5
    score = EFFECT * label[:, None] + own + rng.normal(size=(n, m)) * (1 - shared) ** 0.5
    prob = 1 / (1 + np.exp(CUT - score))
    return np.repeat(label, m).astype(int), prob.ravel(), np.repeat(np.arange(n), m)


def found(setting: Setting, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Return the intervals of one simulated set."""
    label, prob, patient = cases(setting, rng)
    groups = None if setting.interval == "images as patients" else patient
    if setting.interval in ("percentile", "BCa"):
        return drawn_with_replacement(label, prob, patient, bca=setting.interval == "BCa")
    report = evaluate(label, prob, threshold=0.5, groups=groups, classes=[0, 1],
                      resamples=RESAMPLES)  # fmt: skip
    if setting.interval == "kit, cautious":
        return dict(report.cautious)
    return {name: (m.low, m.high) for name, m in report.metrics.items()}


def drawn_with_replacement(
    label: np.ndarray, prob: np.ndarray, patient: np.ndarray, *, bca: bool
) -> dict[str, tuple[float, float]]:
    """Return the intervals of the common bootstrap."""
    rows = rows_of(label, prob, None, 0.5, patient, None, 1, None)
    kinds, counts = rows.kinds()
    figures, n = statistic_of(kinds, 2), int(counts.sum())
    rng = np.random.default_rng(0)
    drawn = figures(rng.multinomial(n, counts / n, size=RESAMPLES).astype(float))
    whole, left = figures(counts[None].astype(float)), figures(counts - np.eye(len(counts)))
    normal, found = NormalDist(), {}
    for name, values in drawn.items():
        values, ends = values[~np.isnan(values)], [0.025, 0.975]
        if bca:
            near = whole[name][0] + np.array([-1e-12, 1e-12])
            below = np.clip(np.mean([(values < near[0]).mean(), (values < near[1]).mean()]),
                            1 / RESAMPLES, 1 - 1 / RESAMPLES)  # fmt: skip
            bias, pull = normal.inv_cdf(float(below)), np.nan_to_num(whole[name] - left[name])
            skew = (counts @ pull**3) / max(1e-300, 6 * (counts @ pull**2) ** 1.5)
            moved = [bias + z for z in (-1.96, 1.96)]
            ends = [normal.cdf(bias + z / (1 - skew * z)) for z in moved]
        low, high = np.quantile(values, ends)
        found[name] = (float(low), float(high))
    return found


def coverage(setting: Setting, simulations: int) -> dict[str, float]:
    """Return the share of simulated sets whose interval holds the truth, for each figure."""
    right, rng = truth(setting.prevalence), np.random.default_rng([2026, simulations])
    held = {name: 0 for name in FIGURES}
    given = dict(held)
    for _ in range(simulations):
        for name, (low, high) in found(setting, rng).items():
            given[name] += not np.isnan(low)
            held[name] += low <= right[name] <= high
    return {n: held[n] / given[n] if given[n] else float("nan") for n in FIGURES}


def main() -> None:
    """Print the table and, if asked, keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="keep the result for README's table")
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=jobs.cores())
    asked = parser.parse_args()
    work = [jobs.Job(str(one), coverage, (one, asked.simulations)) for one in SETTINGS]
    found = jobs.run(work, title="lines of the table", workers=asked.workers)
    lines = []
    for setting, shares in zip(SETTINGS, jobs.values(found), strict=True):
        lines.append([
            f"{setting.patients}", f"{setting.prevalence}", f"{setting.images}",
            setting.interval + (", alike little" if setting.shared < 0.6 else ""),
            *("" if np.isnan(shares[n]) else f"{100 * shares[n]:.1f}" for n in FIGURES),
        ])  # fmt: skip
    error = 100 * (0.95 * 0.05 / asked.simulations) ** 0.5
    keep(
        "coverage", "How often nominal 95 % intervals hold the truth (%)",
        ["patients", "prevalence", "images each", "interval", *FIGURES], lines,
        notes=f"{asked.simulations:,} simulated sets a line, standard error {error:.1f}; goal: 93 "
        "to 97 for 200 and 1,000 patients. Below 50 patients, or 15 of a class, the report calls "
        "its intervals unreliable and gives the cautious ones, where each patient counts as one "
        "case.", save=asked.save,
    )  # fmt: skip


if __name__ == "__main__":
    main()
