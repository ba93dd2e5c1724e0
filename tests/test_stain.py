from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit import drawing
from kit.errors import ImageError, KitError, SettingsError, TableError
from kit.images import read_image
from kit.stain import STANDARD, Normaliser, clusters, median_stains, odd_slides, stains

METHODS = ("macenko", "reinhard")
RED, BLUE = (205, 120, 170), (120, 70, 150)


def drawn(seed: int, *, look: drawing.Stain | None = None, side: int = 128, bare: int = 0):
    """Draw a patch; the first `bare` columns of its 16 px map are glass."""
    rng = np.random.default_rng(seed)
    look = look or drawing.stain(np.random.default_rng(seed + 1000))
    maps = (side // drawing.COARSE,) * 2
    present = np.ones(maps, np.float32)
    present[:, :bare] = 0
    atypia = rng.uniform(0, 1, maps).astype(np.float32)
    return drawing.tissue(rng, look, atypia, np.zeros(maps, np.float32), present)


def batch(n: int = 6) -> np.ndarray:
    return np.stack([drawn(seed, bare=seed % 4) for seed in range(n)])


# An implementation to compare with: the definitions, in float64 and in the plainest words.


def ref_density(rgb):
    return -np.log((rgb.astype(np.float64) + 1) / 256)


def ref_tissue(rgb):
    density = ref_density(rgb)
    mean = density.mean(axis=-1)
    return (mean >= 0.15) & (mean <= 2.5) & (density[..., 0] <= 1.25 * density[..., 1])


def ref_stains(image):
    density = ref_density(image[ref_tissue(image)])
    _, _, axes = np.linalg.svd(density, full_matrices=False)
    plane = axes[:2].T * np.sign(axes[:2].sum(axis=1))
    along = density @ plane
    angles = np.percentile(np.arctan2(along[:, 1], along[:, 0]), [1, 99])
    ends = [plane @ [np.cos(angle), np.sin(angle)] for angle in angles]
    vectors = np.stack(sorted(ends, key=lambda end: -end[0]))
    amounts = np.linalg.lstsq(vectors.T, density.T, rcond=None)[0]
    return vectors, np.percentile(amounts, 99, axis=1)


def ref_macenko(image, target):
    vectors, most = ref_stains(image)
    aims, aimed = (np.array(part) for part in target)
    density = ref_density(image).reshape(-1, 3)
    amounts = np.linalg.lstsq(vectors.T, density.T, rcond=None)[0].T
    rest = density @ unit(np.cross(*vectors))
    moved = (amounts * aimed / most) @ aims + np.outer(rest, unit(np.cross(*aims)))
    return ref_onto(image, (256 * np.exp(-moved) - 1).reshape(image.shape))


def ref_onto(image, moved):
    share = (ref_density(image).mean(axis=-1) / 0.075 - 1).clip(0, 1)[..., None]
    return np.rint(((1 - share) * image + share * moved).clip(0, 255))


def unit(vector):
    return vector / np.linalg.norm(vector)


XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169],
                [0.019334, 0.119193, 0.950227]])  # fmt: skip
D65 = np.array([0.950456, 1.0, 1.088754])


def ref_lab(rgb):
    level = rgb.astype(np.float64) / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    x = linear @ XYZ.T / D65
    f = np.where(x > (6 / 29) ** 3, np.cbrt(x), x * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]),
                     200 * (f[..., 1] - f[..., 2])], axis=-1)  # fmt: skip


def ref_rgb(lab):
    y = (lab[..., 0] + 16) / 116
    f = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    x = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    linear = (x * D65 @ np.linalg.inv(XYZ).T).clip(0, 1)
    level = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return 255 * level


def ref_reinhard(image, target):
    lab = ref_lab(image[ref_tissue(image)])
    mean, spread = (np.array(part) for part in target)
    moved = ref_rgb((ref_lab(image) - lab.mean(axis=0)) / lab.std(axis=0) * spread + mean)
    return ref_onto(image, moved)


@pytest.mark.parametrize("seed", range(6))
def test_macenko_is_the_plain_implementation_to_one_grey_level(seed: int) -> None:
    image, target = drawn(seed, bare=seed % 4), ref_stains(drawn(77))
    moved, left_alone = Normaliser.fit("macenko", drawn(77)[None])(image[None])
    assert not left_alone.any()
    assert np.abs(moved[0] - ref_macenko(image, target)).max() <= 1


@pytest.mark.parametrize("seed", range(6))
def test_reinhard_is_the_plain_implementation_to_one_grey_level(seed: int) -> None:
    image, other = drawn(seed, bare=seed % 4), drawn(77)
    lab = ref_lab(other[ref_tissue(other)])
    moved, left_alone = Normaliser.fit("reinhard", other[None])(image[None])
    assert not left_alone.any()
    target = lab.mean(axis=0), lab.std(axis=0)
    assert np.abs(moved[0] - ref_reinhard(image, target)).max() <= 1


def test_the_stains_of_a_mixture_made_by_hand_are_found() -> None:
    vectors = np.array([unit([0.6, 0.7, 0.4]), unit([0.15, 0.85, 0.5])])
    rng = np.random.default_rng(0)
    amounts = np.concatenate([
        np.outer(rng.uniform(0.5, 1.5, 2000), [1, 0]),
        np.outer(rng.uniform(0.5, 1.2, 2000), [0, 1]),
        rng.uniform(0.2, 1, (6000, 2)),
    ])  # fmt: skip
    image = np.rint(256 * np.exp(-amounts @ vectors) - 1).astype(np.uint8).reshape(100, 100, 3)
    look = Normaliser.standard("macenko").estimate(image[None])
    assert np.allclose(look.vectors, vectors, atol=0.01)
    assert np.allclose(look.most, np.percentile(amounts, 99, axis=0), rtol=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_a_patch_of_the_target_s_look_stays_as_it_is(method: str) -> None:
    image = drawn(3, bare=2)[None]
    moved, _ = Normaliser.fit(method, image)(image)
    assert np.abs(moved.astype(int) - image).max() <= 1


def unlike(one: np.ndarray, other: np.ndarray) -> float:
    """Return the distance of two patches' mean colours, grey levels."""
    return float(np.linalg.norm(one.mean(axis=(0, 1)) - other.mean(axis=(0, 1))))


@pytest.mark.parametrize("method", METHODS)
def test_two_stains_of_one_tissue_come_closer_by_half_and_more(method: str) -> None:
    normaliser = Normaliser.standard(method)
    for seed in range(4):
        looks = [drawing.stain(np.random.default_rng(seed + shift)) for shift in (100, 200)]
        geometry = {"radius": 4.0, "density": 0.5, "fibres": 1.0}
        looks = [drawing.Stain(look.haematoxylin, look.eosin, **geometry) for look in looks]
        pair = np.stack([drawn(seed, look=look) for look in looks])
        moved, left_alone = normaliser(pair)
        assert not left_alone.any()
        before, after = (unlike(*images) for images in (pair, moved))
        assert before > 10
        assert after < before / 8
        if method == "macenko":  # pixel by pixel too, since it tells the stains apart
            assert np.abs(moved[0].astype(int) - moved[1]).mean() < 1.5


@pytest.mark.parametrize("method", METHODS)
def test_white_and_glass_stay_as_they_are(method: str) -> None:
    image = drawn(1)
    image[:40], image[40:60] = 255, (243, 242, 244)
    moved, left_alone = Normaliser.standard(method)(image[None])
    assert not left_alone.any()
    assert moved[0, :40].min() == 255
    assert np.array_equal(moved[0, 40:60], image[40:60])
    assert not np.array_equal(moved[0, 60:], image[60:])


def noisy(colour: tuple[int, int, int], sd: float = 1.0) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sd, (64, 64, 3))
    return (np.array(colour) + noise).clip(0, 255).astype(np.uint8)


def mostly_glass() -> np.ndarray:
    image = noisy((243, 242, 244))
    image[:10, :10] = drawn(0)[:10, :10]
    return image


DEGENERATE = {
    "white": np.full((64, 64, 3), 255, np.uint8), "black": np.zeros((64, 64, 3), np.uint8),
    "grey": np.full((64, 64, 3), 128, np.uint8), "glass": noisy((243, 242, 244)),
    "one colour": np.full((64, 64, 3), RED, np.uint8), "ink": noisy((20, 150, 70), 20),
    "little tissue": mostly_glass(), "one pixel": np.full((1, 1, 3), RED, np.uint8),
}  # fmt: skip


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("method", METHODS)
def test_a_degenerate_patch_is_left_alone_and_marked(method: str, name: str) -> None:
    image = DEGENERATE[name][None]
    moved, left_alone = Normaliser.standard(method)(image)
    assert left_alone.tolist() == [True]
    assert np.array_equal(moved, image)
    assert moved is not image


def test_one_stain_alone_is_left_alone_by_macenko() -> None:
    moved, left_alone = Normaliser.standard("macenko")(noisy(RED, 2.0)[None])
    assert left_alone.all()
    assert np.array_equal(moved[0], noisy(RED, 2.0))


def test_vectors_that_no_stain_can_have_are_left_alone() -> None:
    """Pure green and pure red light: their extreme angles lie beyond what absorbs."""
    rng = np.random.default_rng(0)
    image = np.full((64, 64, 3), 255, np.uint8)
    image[:, :32, 1] = rng.integers(20, 60, (64, 32))
    image[:, 32:, 2] = rng.integers(20, 60, (64, 32))
    image[:32, :, 0] = rng.integers(60, 250, (32, 64))
    moved, left_alone = Normaliser.standard("macenko")(image[None])
    assert left_alone.all()
    assert np.array_equal(moved[0], image)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_patch_becomes_depends_on_it_alone(method: str) -> None:
    images = batch()
    images[2] = 255
    kept = images.copy()
    normaliser = Normaliser.standard(method)
    moved, left_alone = normaliser(images)
    order = np.array([3, 0, 5, 2, 4, 1])
    again, alone_again = normaliser(images[order])
    assert np.array_equal(again, moved[order])
    assert np.array_equal(alone_again, left_alone[order])
    assert left_alone.tolist() == [False, False, True, False, False, False]
    assert np.array_equal(images, kept)
    mirrored, _ = normaliser(images[:, :, ::-1])
    assert np.abs(mirrored[:, :, ::-1].astype(int) - moved).max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_a_slide_s_look_is_estimated_once_and_used_for_all_its_patches(method: str) -> None:
    look = drawing.stain(np.random.default_rng(5))
    patches = np.stack([drawn(seed, look=look) for seed in range(5)])
    normaliser = Normaliser.fit(method, batch())
    source = normaliser.estimate(patches[:3])
    moved = normaliser.apply(patches, source)
    assert np.array_equal(normaliser.apply(patches[3:], source), moved[3:])
    whole = normaliser.estimate(moved)
    for now, aim in zip(vars(whole).values(), vars(normaliser.target).values(), strict=False):
        assert np.allclose(now, aim, rtol=0.1, atol=0.05 if method == "macenko" else 1.5)
    white = np.full((1, 8, 8, 3), 255, np.uint8)
    assert normaliser.apply(white, source).min() == 255


@pytest.mark.parametrize("method", METHODS)
def test_a_large_image_counts_no_more_than_a_small_one(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kit._stain_maths.SAMPLE", 6 * 64 * 64)
    images = [drawn(seed, side=64) for seed in range(5)]
    small = drawn(99, side=64)
    large = np.tile(small, (4, 4, 1))
    one, other = (numbers(Normaliser.fit(method, [*images, odd])) for odd in (small, large))
    assert np.allclose(one, other, rtol=0.03, atol=0.01 if method == "macenko" else 0.3)


def numbers(normaliser: Normaliser) -> np.ndarray:
    return np.concatenate([np.ravel(values) for values in vars(normaliser.target).values()])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("standard", [True, False])
def test_a_normaliser_survives_json_exactly(method: str, standard: bool) -> None:
    normaliser = Normaliser.standard(method) if standard else Normaliser.fit(method, batch())
    text = json.dumps(normaliser.to_dict())
    again = Normaliser.from_dict(json.loads(text))
    assert again == normaliser
    assert again.method == method
    assert np.array_equal(again(batch())[0], normaliser(batch())[0])


def test_another_process_gives_the_same() -> None:
    code = (
        "import zlib, json, sys; sys.path.insert(0, 'tests')\n"
        "from test_stain import *\n"
        "for m in METHODS:\n"
        "    n = Normaliser.fit(m, batch())\n"
        "    print(json.dumps(n.to_dict()), zlib.crc32(n(batch())[0].tobytes()))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                       cwd=Path(__file__).parents[1]).stdout
        for _ in range(2)
    ]  # fmt: skip
    assert runs[0] == runs[1]
    assert json.dumps(Normaliser.fit("macenko", batch()).to_dict()) in runs[0]


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), "must be uint8 RGB.*float32 of shape"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"must be uint8 RGB.*\(8, 8, 4\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"no images.*\(0, 8, 8, 3\)"),
        (np.zeros((2, 0, 8, 3), np.uint8), "must be uint8 RGB"),
        (np.zeros((8, 8, 3), np.uint8), r"one array.*image\[None\].*\(8, 8, 3\)"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_bad_images_are_told(method: str, images: np.ndarray, says: str) -> None:
    normaliser = Normaliser.standard(method)
    calls = [normaliser, normaliser.estimate, lambda x: Normaliser.fit(method, x),
             lambda x: normaliser.apply(x, normaliser.target), median_stains]  # fmt: skip
    for call in calls:
        with pytest.raises(ImageError, match=says):
            call(images)


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("method", METHODS)
def test_a_reference_without_tissue_is_told(method: str, name: str) -> None:
    with pytest.raises(ImageError, match=r"too little of their stains.*1 images"):
        Normaliser.fit(method, [DEGENERATE[name]])


def test_unknown_methods_and_broken_notes_are_told() -> None:
    good = Normaliser.standard("macenko").to_dict()
    wrong = [
        {**good, "method": "vahadane"}, {}, {**good, "most": [1.0]}, {**good, "most": [1, "a"]},
        {**good, "most": [float("nan"), 1.0]}, {**good, "extra": 1}, {**good, "method": "reinhard"},
        {**good, "most": [0.0, 1.0]}, {**good, "vectors": [good["vectors"][0]] * 2},
        {"method": "reinhard", "mean": [1, 2, 3], "spread": [1, 0, 1]},
    ]  # fmt: skip
    for values in wrong:
        with pytest.raises(SettingsError):
            Normaliser.from_dict(values)
    with pytest.raises(SettingsError, match="stain method"):
        Normaliser.fit("macenco", batch())
    with pytest.raises(KitError, match="another method"):
        Normaliser.standard("macenko").apply(batch(), STANDARD["reinhard"])


def test_median_stains_are_of_tissue_alone() -> None:
    image = np.full((50, 50, 3), 255, np.uint8)
    image[:10] = RED
    assert np.allclose(median_stains([image]), stains(np.array([RED], np.uint8))[0])
    assert np.isnan(median_stains(np.full((1, 8, 8, 3), 255, np.uint8))).all()


def test_slides_of_alike_stain_are_one_group_whatever_their_order() -> None:
    rng = np.random.default_rng(0)
    centre = {"pale": (0.1, 0.1), "pink": (0.2, 0.6), "blue": (0.7, 0.2)}
    medians = {f"{name}{n}": np.array(at) + rng.normal(0, 0.02, 2)
               for n in range(7) for name, at in centre.items()}  # fmt: skip
    found = clusters(medians, 3)
    assert list(found) == list(medians)
    expected = {"pale": 0, "pink": 1, "blue": 2}  # by haematoxylin
    assert found == {name: expected[name[:4]] for name in medians}
    backwards = dict(reversed(medians.items()))
    assert clusters(backwards, 3) == found
    assert set(clusters(medians, 1).values()) == {0}
    assert sorted(clusters(medians, 21).values()) == list(range(21))


def test_groups_that_cannot_be_are_told() -> None:
    medians = {"a": np.array([0.1, 0.2]), "b": np.array([0.1, 0.2]), "c": np.array([0.3, 0.2])}
    with pytest.raises(SettingsError, match=r"k <= 2.*k=3"):
        clusters(medians, 3)
    with pytest.raises(SettingsError, match="k must be"):
        clusters(medians, 0)
    with pytest.raises(TableError, match=r"finite.*d"):
        clusters({**medians, "d": np.full(2, np.nan)}, 2)


def test_the_odd_slide_is_found() -> None:
    medians = {name: np.array([0.3, 0.3]) for name in "abcd"} | {"e": np.array([0.3, 0.6])}
    assert odd_slides(medians) == ["e"]


@pytest.mark.real_data
@pytest.mark.parametrize("method", METHODS)
def test_real_patches_come_closer_and_few_are_left_alone(
    method: str, real_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = real_data / "patches" / "idc"
    table = pd.read_csv(root / "labels.csv", dtype=str).query("width == '50' and height == '50'")
    table = table.groupby("patient_id").head(12)
    images = np.stack([read_image(root / path) for path in table.path])
    normaliser = Normaliser.fit(method, images)
    moved, left_alone = normaliser(images)
    logging.getLogger(__name__).info("%s: %.2f %% left alone", method, 100 * left_alone.mean())
    assert left_alone.mean() < 0.03
    assert np.array_equal(moved[left_alone], images[left_alone])
    glass = ref_density(images).mean(axis=-1) < 0.07
    assert glass.mean() > 0.05
    assert np.array_equal(moved[glass], images[glass])
    before, after = (spread_of_patients(x, table.patient_id.to_numpy()) for x in (images, moved))
    by_slide = np.concatenate([
        normaliser.apply(images[rows], normaliser.estimate(images[rows]))
        for rows in table.reset_index().groupby("patient_id").indices.values()
    ])  # fmt: skip
    slide = spread_of_patients(by_slide, np.sort(table.patient_id.to_numpy()))
    assert after < before
    assert slide < before


def spread_of_patients(images: np.ndarray, patients: np.ndarray) -> float:
    """Return how far the patients' medians of stain lie apart, optical density."""
    medians = [median_stains(images[patients == one]) for one in np.unique(patients)]
    return float(np.std(medians, axis=0).mean())


@pytest.mark.parametrize("method", METHODS)
def test_void_beside_the_tissue_has_no_say(method: str) -> None:
    normaliser, image = Normaliser.standard(method), drawn(4)
    void = np.zeros_like(image)
    both = np.concatenate([image, void])
    assert normaliser.estimate([both]) == normaliser.estimate([image])
    moved, alone = normaliser(both[None])
    np.testing.assert_array_equal(moved[0, : len(image)], normaliser(image[None])[0][0])
    assert not alone.any()
    assert Normaliser.standard(method)(void[None])[1].all()
