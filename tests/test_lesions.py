"""Masks and points against lesions: by hand, and against counting one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import pytest

from kit.errors import MaskError, SettingsError, TableError
from kit.lesions import (
    Lesions,
    detections,
    dice,
    froc,
    iou,
    lesions_of,
    overlap,
    peaks,
)

MPP = 0.25  # of level 0; a mask's pixel of 32 is 8 µm
FRAME = {"downsample": 32.0, "mpp": MPP}


def mask(*boxes: tuple[int, int, int, int], shape: tuple[int, int] = (120, 160)) -> np.ndarray:
    """A mask with boxes (x, y, width, height) of tumour, in its own pixels."""
    drawn = np.zeros(shape, bool)
    for x, y, width, height in boxes:
        drawn[y : y + height, x : x + width] = True
    return drawn


def points(*rows: tuple[str, float, float, float]) -> pd.DataFrame:
    """Detections: slide, x, y (mask pixels, turned into level 0), probability."""
    table = pd.DataFrame(rows, columns=["case_id", "x", "y", "prob"])
    return table.assign(x=table.x * 32 + 16, y=table.y * 32 + 16)


TWO = (10, 10, 40, 40), (90, 10, 40, 40)  # 320 µm wide, 320 µm apart
SMALL = (60, 80, 6, 6)  # 48 µm wide, 123 µm when grown


def two_slides() -> dict[str, Lesions]:
    return {"t": lesions_of(mask(*TWO, SMALL), **FRAME), "n": lesions_of(mask(), **FRAME)}


def test_dice_and_iou_by_hand():
    truth, found = mask((0, 0, 4, 4)), mask((2, 0, 4, 4))
    assert dice(truth, found) == 2 * 8 / 32
    assert iou(truth, found) == 8 / 24
    assert dice(truth, truth) == iou(truth, truth) == 1
    assert dice(truth, ~truth) == iou(truth, mask()) == 0
    assert math.isnan(dice(mask(), mask())) and math.isnan(iou(mask(), mask()))


def test_masks_that_cannot_be_compared_are_refused():
    with pytest.raises(MaskError, match="differ in shape"):
        dice(mask(), mask(shape=(120, 161)))
    with pytest.raises(MaskError, match=r"must be bool.*Received: uint8"):
        iou(mask(), mask().astype(np.uint8))


def test_slides_are_compared_each_and_together():
    one, other = mask((0, 0, 4, 4)), mask((2, 0, 4, 4))
    table = overlap([("a", one, other), ("b", mask(), mask()), ("c", one, one)])
    assert table.case_id.tolist() == ["a", "b", "c", None]
    assert table.shared.tolist() == [8, 0, 16, 24]
    np.testing.assert_array_equal(table.dice, [0.5, np.nan, 1, 2 * 24 / 64])
    np.testing.assert_array_equal(table.iou, [8 / 24, np.nan, 1, 24 / 40])
    assert math.isnan(overlap([]).dice.item())
    with pytest.raises(TableError, match=r"comes twice.*Received: a"):
        overlap([("a", one, other), ("a", one, one)])


def test_regions_within_75_um_are_one_lesion():
    # Grown by less than 37.5 µm, 4 pixels of 8 µm: a gap of 8 pixels closes, of 9 does not
    assert lesions_of(mask((10, 10, 40, 40), (58, 10, 40, 40)), **FRAME).n == 1
    assert lesions_of(mask((10, 10, 40, 40), (59, 10, 40, 40)), **FRAME).n == 2


def test_a_lesion_is_grown_and_its_holes_are_filled():
    found = lesions_of(mask((50, 50, 40, 40)) & ~mask((60, 60, 20, 20)), **FRAME)
    assert found.n == 1 and found.downsample == (32.0, 32.0)
    row = found.labels[70]
    assert np.flatnonzero(row).tolist() == list(range(46, 94))  # 4 pixels on each side
    assert found.labels[70, 70] == 1


def test_isolated_tumour_cells_are_numbered_after_the_lesions():
    found = lesions_of(mask((10, 5, 6, 6), TWO[0], (90, 70, 40, 40)), **FRAME)
    assert (found.n, found.labels.max()) == (1 + 1, 2)  # the small one touches the first
    found = lesions_of(mask((130, 5, 6, 6), (10, 30, 40, 40)), **FRAME)
    assert (found.n, found.labels.max()) == (1, 2)
    assert found.labels[8, 133] == 2 and found.labels[40, 30] == 1


def test_the_longest_axis_decides_what_is_isolated():
    # A bar of 1 x n pixels grows to n + 8 long; of such a bar the axis is near 4 sqrt(n² / 12)
    axis = [lesions_of(mask((20, 50, n, 1)), **FRAME).n for n in range(1, 60)]
    assert axis == sorted(axis) and set(axis) == {0, 1}
    first = axis.index(1) + 1
    grown = mask((20, 50, first, 1))
    ys, xs = np.nonzero(lesions_of(grown, **FRAME).labels)
    assert 4 * 8 * max(np.linalg.eigvalsh(np.cov(ys, xs, bias=True))) ** 0.5 >= 275
    ys, xs = np.nonzero(lesions_of(mask((20, 50, first - 1, 1)), **FRAME).labels)
    assert 4 * 8 * max(np.linalg.eigvalsh(np.cov(ys, xs, bias=True))) ** 0.5 < 275


def test_a_frame_of_two_downsamples_measures_each_side_by_its_own():
    found = lesions_of(mask((50, 50, 40, 40)), downsample=(32.0, 16.0), mpp=MPP)
    assert np.flatnonzero(found.labels[70]).tolist() == list(range(46, 94))
    assert np.flatnonzero(found.labels[:, 70]).tolist() == list(range(41, 99))  # 9 of 4 µm


def test_many_lesions_have_numbers_of_their_own():
    shape = (1200, 1200)
    boxes = [(x, y, 40, 40) for x, y in itertools.product(range(5, 1140, 70), repeat=2)]
    found = lesions_of(mask(*boxes, shape=shape), **FRAME)
    assert found.n == found.labels.max() == len(boxes) == 289


def test_froc_of_two_slides_by_hand():
    found = froc(
        points(
            ("t", 20, 20, 0.9), ("t", 25, 30, 0.5),  # both in the first lesion: the best counts
            ("t", 100, 20, 0.6),  # in the second
            ("t", 62, 82, 0.99),  # in isolated tumour cells: neither
            ("t", 70, 20, 0.8), ("n", 20, 20, 0.7), ("n", 21, 20, 0.4), ("n", 0, 0, 0.0),
        ),
        two_slides(),
    )  # fmt: skip
    expected = [
        (math.inf, 0.0, 0.0), (0.9, 0.0, 0.5), (0.8, 0.5, 0.5), (0.7, 1.0, 0.5),
        (0.6, 1.0, 1.0), (0.4, 1.5, 1.0),
    ]  # fmt: skip
    assert list(found.curve.itertuples(index=False, name=None)) == expected
    assert found.at == (0.5, 0.5, 1.0, 1.0, 1.0, 1.0)
    assert found.score == pytest.approx(5 / 6)
    assert (found.n_slides, found.n_lesions, found.n_false, found.n_isolated) == (2, 2, 3, 1)
    assert found.found.values.tolist() == [["t", 1, 0.9], ["t", 2, 0.6]]


def test_between_two_points_the_curve_is_a_line():
    truth = two_slides()
    truth["m"] = truth["p"] = truth["n"]  # four slides
    found = froc(
        points(("t", 20, 20, 0.3), ("t", 100, 20, 0.3), ("n", 1, 1, 0.3), ("m", 1, 1, 0.3)), truth
    )
    assert found.curve["false_positives"].tolist() == [0, 0.5]
    assert found.at == (0.5, 1, 1, 1, 1, 1)


def test_perfect_is_one_and_nothing_found_is_zero():
    truth = two_slides()
    perfect = froc(points(("t", 20, 20, 0.6), ("t", 100, 20, 0.1)), truth)
    assert perfect.score == 1 and set(perfect.at) == {1.0}
    nothing = froc(points(), truth)
    assert nothing.score == 0 and nothing.found.prob.isna().all()
    wrong = froc(points(("n", 1, 1, 1.0)), truth)
    assert wrong.score == 0 and wrong.n_false == 1


def test_without_lesions_there_is_no_score():
    found = froc(points(("n", 1, 1, 0.5)), {"n": lesions_of(mask(), **FRAME)})
    assert math.isnan(found.score) and all(map(math.isnan, found.at))
    assert (found.n_lesions, found.n_false) == (0, 1)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("t", 1, 1, math.nan), r"prob must be in \[0, 1\]"),
        (("t", 1, 1, 1.5), r"prob must be in \[0, 1\]"),
        (("other", 1, 1, 0.5), "slides without truth.*Received: other"),
        (("t", 161, 1, 0.5), "outside slide t"),
        (("t", 1, -1, 0.5), "outside slide t"),
        (("t", math.nan, 1, 0.5), "outside slide t"),
    ],
)
def test_detections_that_cannot_be_are_refused(row, words):
    with pytest.raises(TableError, match=words):
        froc(points(row), two_slides())


def test_tables_and_masks_that_cannot_be_are_refused():
    with pytest.raises(TableError, match="column prob is missing"):
        froc(points().drop(columns="prob"), two_slides())
    with pytest.raises(TableError, match="no slide at all"):
        froc(points(), {})
    with pytest.raises(MaskError, match="must be bool"):
        lesions_of(mask().astype(int), **FRAME)
    with pytest.raises(MaskError, match="must be an image"):
        lesions_of(np.zeros(3, bool), **FRAME)
    for wrong in ({"mpp": 0.0}, {"mpp": math.nan}, {"downsample": (32.0, -1.0)}):
        with pytest.raises(SettingsError, match="must be above 0"):
            lesions_of(mask(), **{**FRAME, **wrong})


def test_the_slides_last_pixels_may_lie_beyond_a_mask_that_was_rounded_down():
    edge = mask((120, 80, 40, 40))  # in the corner of a mask of 160 x 120
    truth = {"t": lesions_of(edge, **FRAME)}
    assert froc(points(("t", 160.2, 120.1, 0.5)), truth).score == 1


class Asked(Mapping[str, Lesions]):
    """Truth that is made when asked for, and counts how often."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getitem__(self, case_id: str) -> Lesions:
        self.asked.append(case_id)
        return two_slides()[case_id]

    def __iter__(self) -> Iterator[str]:
        return iter(["t", "n"])

    def __len__(self) -> int:
        return 2


def test_each_slides_truth_is_asked_for_once():
    truth = Asked()
    assert froc(points(("t", 20, 20, 0.6)), truth).score == 0.5
    assert truth.asked == ["n", "t"]


def regions_one_by_one(drawn: np.ndarray, pixel: float) -> tuple[list[set], list[set]]:
    """Lesions and isolated tumour cells as sets of places, by distances and flooding."""
    height, width = drawn.shape
    tumour = np.argwhere(drawn)
    on = np.zeros((height + 2, width + 2), bool)  # with a rim of background, which is no hole
    for y, x in np.ndindex(drawn.shape):
        if len(tumour):
            on[y + 1, x + 1] = np.hypot(*(tumour - (y, x)).T).min() * pixel < 37.5

    def flood(start, wanted, diagonal):
        seen, todo = {start}, [start]
        while todo:
            y, x = todo.pop()
            for dy, dx in itertools.product((-1, 0, 1), repeat=2):
                place = (y + dy, x + dx)
                beside = (diagonal or dy == 0 or dx == 0) and place not in seen
                within = 0 <= place[0] < height + 2 and 0 <= place[1] < width + 2
                if beside and within and on[place] == wanted:
                    seen.add(place)
                    todo.append(place)
        return seen

    outside = flood((0, 0), False, False)
    for place in np.ndindex(on.shape):
        on[place] = place not in outside
    lesions, isolated, taken = [], [], set()
    for place in np.ndindex(on.shape):
        if on[place] and place not in taken:
            region = flood(place, True, True)
            taken |= region
            at = np.array(sorted(region)) * pixel
            spread = np.atleast_2d(np.cov(at.T, bias=True)) if len(at) > 1 else np.zeros((2, 2))
            small = 4 * math.sqrt(max(np.linalg.eigvalsh(spread).max(), 0)) < 275
            (isolated if small else lesions).append({(y - 1, x - 1) for y, x in region})
    return lesions, isolated


def score_one_by_one(table: pd.DataFrame, masks: dict[str, np.ndarray], pixel: float) -> list:
    """Sensitivities at the six points, counted anew at every threshold."""
    regions = {name: regions_one_by_one(drawn, pixel) for name, drawn in masks.items()}
    total = sum(len(lesions) for lesions, _ in regions.values())
    curve = [(0.0, 0.0)]
    for threshold in sorted(set(table.prob) - {0.0}, reverse=True):
        found, false = set(), 0
        for row in table[table.prob >= threshold].itertuples():
            lesions, isolated = regions[row.case_id]
            place = (int(row.y // 32), int(row.x // 32))
            hits = [number for number, region in enumerate(lesions) if place in region]
            found |= {(row.case_id, number) for number in hits}
            false += not hits and not any(place in region for region in isolated)
        curve.append((false / len(masks), len(found) / total))
    at = []
    for rate in (0.25, 0.5, 1, 2, 4, 8):
        before = max(point for point in curve if point[0] <= rate)
        after = [point for point in curve if point[0] > rate]
        if after:
            nearest = min(after)
            share = (rate - before[0]) / (nearest[0] - before[0])
            at.append(before[1] + share * (nearest[1] - before[1]))
        else:
            at.append(before[1])
    return at


@pytest.mark.parametrize("seed", range(4))
def test_froc_is_that_of_counting_one_by_one(seed):
    random = np.random.default_rng(seed)
    mpp = 0.6  # a mask's pixel is 19.2 µm
    masks = {}
    for name in ("a", "b", "c"):
        boxes = [(*random.integers(0, 40, 2), *random.integers(1, 14, 2)) for _ in range(5)]
        masks[name] = mask(*boxes if name != "c" else (), shape=(38, 45))
    masks["a"][10:30, 20:40] ^= True
    rows = [(random.choice(["a", "b", "c"]), *random.integers(0, 38, 2)) for _ in range(60)]
    prob = random.integers(0, 21, 60) / 20  # with ties and zeros
    table = points(*((*row, p) for row, p in zip(rows, prob, strict=True)))
    truth = {name: lesions_of(drawn, downsample=32.0, mpp=mpp) for name, drawn in masks.items()}
    for name, drawn in masks.items():
        lesions, isolated = regions_one_by_one(drawn, 32 * mpp)
        assert (truth[name].n, truth[name].labels.max()) == (
            len(lesions), len(lesions) + len(isolated),
        )  # fmt: skip
    found = froc(table, truth)
    np.testing.assert_allclose(found.at, score_one_by_one(table, masks, 32 * mpp))
    shuffled = froc(table.sample(frac=1, random_state=seed), dict(reversed(truth.items())))
    assert shuffled.at == found.at
    pd.testing.assert_frame_equal(shuffled.curve, found.curve)


def test_peaks_of_a_map_by_hand():
    heat = np.full((10, 12), np.nan)
    heat[2:8, 2:10] = 0.1
    heat[3, 3], heat[3, 5], heat[7, 9], heat[6, 9] = 0.9, 0.8, 0.7, 0.7
    near = detections(heat, downsample=16.0, mpp=0.5, radius_um=16.0)  # two cells
    assert near.values.tolist() == [[56, 56, 0.9], [152, 104, 0.7]]
    nearer = detections(heat, downsample=16.0, mpp=0.5, radius_um=15.9)
    assert nearer.values.tolist() == [[56, 56, 0.9], [88, 56, 0.8], [152, 104, 0.7]]
    assert nearer.x.dtype == nearer.y.dtype == np.int64
    assert len(detections(heat, downsample=16.0, mpp=0.5, radius_um=0.0)) == 4
    assert len(detections(heat, downsample=16.0, mpp=0.5, radius_um=0.0, least=0.0)) == 48
    assert detections(heat, downsample=16.0, mpp=0.5, radius_um=9, least=0.95).empty


def test_peaks_are_those_of_the_rule_applied_literally():
    random = np.random.default_rng(5)
    heat = random.integers(0, 11, (30, 40)) / 10
    heat[random.random(heat.shape) < 0.2] = np.nan
    left = [(-p, y, x) for (y, x), p in np.ndenumerate(heat) if p >= 0.3]
    expected = []
    while left:
        best = min(left)
        expected.append(best)
        left = [c for c in left if math.hypot(c[1] - best[1], c[2] - best[2]) * 8 > 20.0]
    found = detections(heat, downsample=32.0, mpp=MPP, radius_um=20.0, least=0.3)
    assert found.values.tolist() == [[x * 32 + 16, y * 32 + 16, -p] for p, y, x in expected]


def test_patches_are_detections_by_their_centres():
    found = peaks([[100.5, 60.0], [110.5, 60.0], [300.0, 60.9]], [0.6, 0.9, 0.5],
                  mpp=0.5, radius_um=10)  # fmt: skip
    assert found.values.tolist() == [[110, 60, 0.9], [300, 60, 0.5]]
    assert peaks(np.zeros((0, 2)), [], mpp=0.5, radius_um=10).columns.tolist() == ["x", "y", "prob"]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"heat": np.full((2, 2), 1.5)}, MaskError, "image of probabilities"),
        ({"heat": np.zeros(4)}, MaskError, "image of probabilities"),
        ({"mpp": 0}, SettingsError, "mpp must be above 0"),
        ({"radius_um": -1}, SettingsError, "radius_um must be at least 0"),
        ({"radius_um": math.nan}, SettingsError, "radius_um must be at least 0"),
        ({"least": 1.5}, SettingsError, r"least must be in \[0, 1\]"),
        ({"downsample": 0}, SettingsError, "downsample must be above 0"),
    ],
)
def test_maps_that_cannot_be_are_refused(change, error, words):
    given = {"heat": np.zeros((4, 4)), "downsample": 16.0, "mpp": 0.5, "radius_um": 10.0}
    with pytest.raises(error, match=words):
        detections(**{**given, **change})


def test_points_that_cannot_be_are_refused():
    with pytest.raises(TableError, match=r"prob must be in \[0, 1\]"):
        peaks([[0, 0]], [math.nan], mpp=0.5, radius_um=10)
    with pytest.raises(TableError, match="lengths differ"):
        peaks([[0, 0]], [0.5, 0.6], mpp=0.5, radius_um=10)
