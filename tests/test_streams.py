"""A slide through networks: by hand arithmetic, in one reading, cut off and gone on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_slides import picture, write_pyramid

from kit import _stream, images
from kit.augment import views as views_of
from kit.errors import KitError, ModelError, SlideError, TableError
from kit.files import read_table, sha256, write_json
from kit.models import build_model
from kit.sampler import PatchSampler
from kit.slides import Slide, open_slide
from kit.streams import Member, load, predict_slide
from kit.tissue import TissueMask

CLASSES = ("normal", "tumour")


class MeanRed:
    """A network without weights: the share of red is the probability of tumour."""

    def __init__(self, side: int, stop_after: int | None = None, pixels: bool = False) -> None:
        self.input_shape = (None, side, side, 3)
        self.output_shape = (None, side, side, 2) if pixels else (None, 2)
        self.sizes: list[int] = []
        self.stop_after, self.pixels = stop_after, pixels

    def predict_on_batch(self, batch: np.ndarray) -> np.ndarray:
        if self.stop_after is not None and len(self.sizes) >= self.stop_after:
            raise KeyboardInterrupt
        self.sizes.append(len(batch))
        red = batch[..., 0].astype(np.float64) / 255
        red = red if self.pixels else red.mean(axis=(1, 2))
        return np.stack([1 - red, red], axis=-1)


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Equal to the bit; a table that was read holds its texts in another type."""
    pd.testing.assert_frame_equal(one, other, check_dtype=False, check_exact=True)
    assert (one.dtypes[one.dtypes == np.float32]).index.equals(
        other.dtypes[other.dtypes == np.float32].index
    )


def member(side: int = 32, fold: int = 0, seed: int = 0, **how: Any) -> Member:
    return Member(MeanRed(side, **how), fold, seed, "mean_red", f"red {side} {fold} {seed}")


def everywhere(slide: Slide) -> TissueMask:
    shape = (slide.size[1] // 4, slide.size[0] // 4)
    down = (slide.size[0] / shape[1], slide.size[1] / shape[0])
    return TissueMask(np.ones(shape, bool), down, slide.size)


def plan_of(slide: Slide, size: int = 32, **how: Any) -> pd.DataFrame:
    return PatchSampler(size, **how).plan(slide, everywhere(slide), case_id="one")


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    import cv2

    full = picture(513, 385)
    half = cv2.resize(full, (256, 192), interpolation=cv2.INTER_AREA)
    return write_pyramid(tmp_path / "odd.tiff", [full, half])


def red(slide: Slide, plan: pd.DataFrame, **at: Any) -> np.ndarray:
    xy = plan[["x", "y"]].to_numpy()
    patches = slide.read_patches(xy, int(plan["size"].iloc[0]), **at)
    return np.asarray(patches[..., 0].astype(np.float64).mean(axis=(1, 2)) / 255)


def test_each_patch_has_its_mean_red_in_the_plans_order(odd):
    with open_slide(odd) as slide:
        plan = plan_of(slide)
        found = predict_slide(slide, plan, [member()], classes=CLASSES)
    full = picture(513, 385)
    by_hand = [full[y : y + 32, x : x + 32, 0].mean() / 255 for x, y in plan[["x", "y"]].to_numpy()]
    np.testing.assert_allclose(found.prob_tumour, by_hand, atol=1e-6)
    np.testing.assert_allclose(found.prob_tumour + found.prob_normal, 1, atol=1e-6)
    np.testing.assert_array_equal(found[["x", "y"]], plan[["x", "y"]])
    assert list(found.columns) == [
        "case_id", "x", "y", "footprint", "tissue", "fold", "seed", "model", "prob_normal",
        "prob_tumour",
    ]  # fmt: skip


@pytest.mark.parametrize("how", [{"mpp": 1.3}, {"level": 1}])
def test_a_level_whose_downsample_is_no_whole_number(odd, how):
    with open_slide(odd) as slide:
        plan = plan_of(slide, 24, **how)
        found = predict_slide(slide, plan, [member(24)], classes=CLASSES)
        np.testing.assert_allclose(found.prob_tumour, red(slide, plan, **how), atol=1e-6)
    assert len(plan) > 20 and plan.footprint.iloc[0] % 1


def test_a_slide_with_bounds(tmp_path, monkeypatch):
    path = write_pyramid(tmp_path / "bounds.tiff", [picture(400, 300)])
    monkeypatch.setattr(Slide, "bounds", property(lambda _: (64, 96, 200, 130)))
    with open_slide(path) as slide:
        plan = plan_of(slide)
        found = predict_slide(slide, plan, [member()], classes=CLASSES)
        np.testing.assert_allclose(found.prob_tumour, red(slide, plan), atol=1e-6)
    assert len(plan) == 24 and plan.x.min() == 64 and plan.y.min() == 96


def test_networks_of_several_sides_are_fed_from_one_reading(odd, monkeypatch):
    asked: list[int] = []
    real = Slide.read_patches

    def counted(self: Slide, xy: Any, *args: Any, **at: Any) -> Any:
        asked.append(len(xy))
        return real(self, xy, *args, **at)

    monkeypatch.setattr(Slide, "read_patches", counted)
    with open_slide(odd) as slide:
        plan = plan_of(slide)
        both = [member(32), member(16, fold=1)]
        found = predict_slide(slide, plan, both, classes=CLASSES)
        assert sum(asked) == len(plan)
        small = np.stack([images.fit(one, 16) for one in real(slide, plan[["x", "y"]], 32)])
    mine = found[found.fold == 1].prob_tumour
    np.testing.assert_allclose(mine, small[..., 0].mean(axis=(1, 2)) / 255, atol=1e-6)
    assert (found[found.fold == 0].x.to_numpy() == plan.x).all()


def test_views_are_averaged(odd):
    class Left(MeanRed):
        def predict_on_batch(self, batch: np.ndarray) -> np.ndarray:
            return super().predict_on_batch(batch[:, :, :8])

    one = Member(Left(32), 0, 0, "left", "left")
    flips = views_of("flips")
    with open_slide(odd) as slide:
        plan = plan_of(slide)
        found = predict_slide(slide, plan, [one], classes=CLASSES, views=flips)
        patches = slide.read_patches(plan[["x", "y"]].to_numpy(), 32)[..., 0] / 255
    by_hand = (patches[:, :, :8].mean(axis=(1, 2)) + patches[:, :, -8:].mean(axis=(1, 2))) / 2
    assert len(flips) == 2
    np.testing.assert_allclose(found.prob_tumour, by_hand, atol=1e-6)


def test_a_network_of_pixels_answers_by_its_centre(odd):
    with open_slide(odd) as slide:
        plan = plan_of(slide)
        found = predict_slide(slide, plan, [member(pixels=True)], classes=CLASSES)
        patches = slide.read_patches(plan[["x", "y"]].to_numpy(), 32)[:, 8:24, 8:24, 0] / 255
    np.testing.assert_allclose(found.prob_tumour, patches.mean(axis=(1, 2)), atol=1e-6)


def test_every_batch_has_one_size_and_neighbours_come_together(odd, monkeypatch):
    monkeypatch.setattr(_stream, "MOST", 16)
    one = member()
    with open_slide(odd) as slide:
        plan = plan_of(slide)
        predict_slide(slide, plan, [one], classes=CLASSES)
    assert set(one.network.sizes) == {16}
    for rows in _stream.batches_of(plan)[:6]:  # 4 x 4 patches of 32 px
        assert np.ptp(plan.x.iloc[rows]) == np.ptp(plan.y.iloc[rows]) == 96


def test_a_small_slide_takes_a_small_batch(odd):
    one = member(128)
    with open_slide(odd) as slide:
        predict_slide(slide, plan_of(slide, 128), [one], classes=CLASSES)
    assert one.network.sizes == [16]  # of 12 patches


def test_the_plan_of_another_slide_of_the_same_size_is_refused(tmp_path):
    """Places and footprints fit; the slide that was planned is another one."""
    paths = [write_pyramid(tmp_path / f"{n}.tiff", [picture(512, 384)[:, ::step]])
             for n, step in enumerate((1, -1))]  # fmt: skip
    with open_slide(paths[0]) as one, open_slide(paths[1]) as other:
        assert one.size == other.size and one.identity != other.identity
        plan = plan_of(one)
        with pytest.raises(TableError, match="the plan was made from another slide"):
            predict_slide(other, plan, [member()], classes=CLASSES)
        moved = tmp_path / "elsewhere" / "again.tiff"
        moved.parent.mkdir()
        moved.write_bytes(paths[0].read_bytes())
    with open_slide(moved) as same:
        assert len(predict_slide(same, plan, [member()], classes=CLASSES)) == len(plan)


def test_what_was_cut_off_goes_on_and_is_the_same(odd, tmp_path, monkeypatch):
    monkeypatch.setattr(_stream, "MOST", 16)
    monkeypatch.setattr(_stream, "BLOCK", 2)
    path = tmp_path / "out" / "one.parquet"
    with open_slide(odd) as slide:
        plan = plan_of(slide)
        whole = predict_slide(slide, plan, [member()], classes=CLASSES)
        with pytest.raises(KeyboardInterrupt):
            predict_slide(slide, plan, [member(stop_after=7)], classes=CLASSES, path=path)
        assert not path.exists()
        rest = member()
        found = predict_slide(slide, plan, [rest], classes=CLASSES, path=path)
        assert len(rest.network.sizes) == len(_stream.batches_of(plan)) - 6  # three blocks stood
        same(found, whole)
        assert [one.name for one in path.parent.iterdir()] == ["one.parquet"]
        again = member()
        same(predict_slide(slide, plan, [again], classes=CLASSES, path=path), whole)
        assert not again.network.sizes
        other = member(seed=1)
        predict_slide(slide, plan, [other], classes=CLASSES, path=path)
        assert other.network.sizes


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[3])
import test_streams as t
from kit import _stream
_stream.MOST, _stream.BLOCK = 16, 2
class Dies(t.MeanRed):
    def predict_on_batch(self, batch):
        if len(self.sizes) == 5: os.kill(os.getpid(), 9)
        return super().predict_on_batch(batch)
with t.open_slide(sys.argv[1]) as slide:
    one = t.Member(Dies(32), 0, 0, "mean_red", "red 32 0 0")
    t.predict_slide(slide, t.plan_of(slide), [one], classes=t.CLASSES, path=t.Path(sys.argv[2]))
"""


def test_a_process_killed_in_the_middle_of_a_slide_leaves_what_it_had(odd, tmp_path, monkeypatch):
    path = tmp_path / "out" / "one.parquet"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, odd, path, Path(__file__).parent], check=False
    )
    assert done.returncode == -9 and not path.exists()
    monkeypatch.setattr(_stream, "MOST", 16)
    monkeypatch.setattr(_stream, "BLOCK", 2)
    rest = member()
    with open_slide(odd) as slide:
        plan = plan_of(slide)
        found = predict_slide(slide, plan, [rest], classes=CLASSES, path=path)
        whole = predict_slide(slide, plan, [member()], classes=CLASSES)
    assert len(rest.network.sizes) == len(_stream.batches_of(plan)) - 4
    same(found, whole)


FULL = """
import resource, sys
sys.path.insert(0, sys.argv[2])
import test_streams as t
from kit.errors import KitError
folder = t.Path(sys.argv[1])
with t.open_slide(folder / "odd.tiff") as slide:
    plan = t.plan_of(slide)
    resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))
    try:
        t.predict_slide(slide, plan, [t.member()], classes=t.CLASSES, path=folder / "one.parquet")
    except KitError as error:
        print(error)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of file sizes")
def test_a_full_disk_is_one_line_and_what_fits_later_is_the_same(odd, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path, Path(__file__).parent], check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.startswith("the disk is full. File: ")
    assert not list(tmp_path.rglob("*.npz"))
    with open_slide(odd) as slide:
        plan = plan_of(slide)
        whole = predict_slide(slide, plan, [member()], classes=CLASSES)
        later = predict_slide(
            slide, plan, [member()], classes=CLASSES, path=tmp_path / "one.parquet"
        )
    same(later, whole)


def test_a_folder_that_is_none_is_a_clear_error(odd, tmp_path):
    (tmp_path / "out").write_text("")
    with open_slide(odd) as slide, pytest.raises(KitError, match="cannot be written"):
        predict_slide(slide, plan_of(slide), [member()], classes=CLASSES,
                      path=tmp_path / "out" / "one.parquet")  # fmt: skip


def test_a_damaged_block_and_a_damaged_table_are_made_again(odd, tmp_path, monkeypatch):
    monkeypatch.setattr(_stream, "MOST", 16)
    monkeypatch.setattr(_stream, "BLOCK", 2)
    path = tmp_path / "one.parquet"
    with open_slide(odd) as slide:
        plan = plan_of(slide)
        whole = predict_slide(slide, plan, [member()], classes=CLASSES)
        with pytest.raises(KeyboardInterrupt):
            predict_slide(slide, plan, [member(stop_after=5)], classes=CLASSES, path=path)
        blocks = sorted(tmp_path.rglob("*.npz"))
        assert len(blocks) == 2
        blocks[0].write_bytes(blocks[0].read_bytes()[:100])
        found = predict_slide(slide, plan, [member()], classes=CLASSES, path=path)
        same(found, whole)
        data = path.read_bytes()
        path.write_bytes(data[:4] + b"\0" * (len(data) // 3) + data[4 + len(data) // 3 :])
        found = predict_slide(slide, plan, [member()], classes=CLASSES, path=path)
    same(found, whole)
    same(read_table(path), whole)


def damage(path: Path, tiles: int) -> None:
    """Overwrite the first tiles of a TIFF."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        places = list(zip(page.dataoffsets, page.databytecounts, strict=True))[:tiles]
    with path.open("r+b") as stream:
        for offset, length in places:
            stream.seek(offset)
            stream.write(b"\xff" * length)


def test_few_unreadable_patches_have_no_row_and_many_stop_the_slide(tmp_path):
    path = write_pyramid(tmp_path / "big.tiff", [picture(1024, 1024)])
    with open_slide(path) as slide:
        plan = plan_of(slide).drop(columns="slide_key")  # damaged later, it is not the same
        whole = predict_slide(slide, plan, [member()], classes=CLASSES)
    damage(path, 2)  # of 64
    with open_slide(path) as slide:
        found = predict_slide(slide, plan, [member(), member(fold=1)], classes=CLASSES)
        kept = whole[(whole.x >= 256) | (whole.y >= 128)]
        assert len(plan) == 1024 and len(kept) == 1024 - 32
        for fold in (0, 1):
            mine = found[found.fold == fold].drop(columns="fold").reset_index(drop=True)
            same(mine, kept.drop(columns="fold").reset_index(drop=True))
    damage(path, 32)
    with (
        open_slide(path) as slide,
        pytest.raises(SlideError, match=r"too many patches .* at most 5%.*big\.tiff"),
    ):
        predict_slide(slide, plan, [member()], classes=CLASSES)


def test_a_plan_of_another_slide_is_refused(odd, tmp_path):
    other = write_pyramid(tmp_path / "other.tiff", [picture(300, 200)], mpp=0.25)
    with open_slide(odd) as slide, open_slide(other) as second:
        plan, by_mpp = plan_of(slide), plan_of(slide, mpp=1.0)
        for one in (plan, by_mpp):
            with pytest.raises(TableError, match=r"made from another slide.*other\.tiff"):
                predict_slide(second, one, [member()], classes=CLASSES)
        two = pd.concat([plan, plan.assign(case_id="two")])
        with pytest.raises(TableError, match="several slides"):
            predict_slide(slide, two, [member()], classes=CLASSES)


def test_networks_that_do_not_fit_are_refused(odd):
    with open_slide(odd) as slide:
        plan = plan_of(slide)
        with pytest.raises(ModelError, match="3 classes out: a, b, c"):
            predict_slide(slide, plan, [member()], classes=("a", "b", "c"))
        grey = member()
        grey.network.input_shape = (None, 32, 32, 1)
        with pytest.raises(ModelError, match="does not fit the patches"):
            predict_slide(slide, plan, [grey], classes=CLASSES)
        with pytest.raises(ModelError, match="no network"):
            predict_slide(slide, plan, [], classes=CLASSES)


def test_a_plan_without_patches_gives_no_rows(odd):
    with open_slide(odd) as slide:
        plan = plan_of(slide).iloc[:0]
        found = predict_slide(slide, plan, [member()], classes=CLASSES)
    assert len(found) == 0 and "prob_tumour" in found


def test_a_plan_of_two_resolutions_is_read_by_each(odd):
    with open_slide(odd) as slide:
        plan = plan_of(slide, 32, mpp=(0.5, 1.0))
        found = predict_slide(slide, plan, [member()], classes=CLASSES)
        for mpp in (0.5, 1.0):
            rows = plan[plan.mpp == mpp]
            mine = found[np.isclose(found.footprint, rows.footprint.iloc[0])]
            np.testing.assert_allclose(mine.prob_tumour, red(slide, rows, mpp=mpp), atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_network_trained_in_mixed_precision_predicts_in_it(odd, tmp_path, policy):
    import keras

    keras.config.set_dtype_policy(policy)
    try:
        network = build_model("conv_small", (32, 32, 3), 2)
    finally:
        keras.config.set_dtype_policy("float32")
    path = tmp_path / "fold0_seed0.keras"
    network.save(path)
    note = {"fold": 0, "seed": 0, "model": "conv_small", "sha256": sha256(path)}
    write_json(path.with_suffix(".json"), note)
    one = load(path)
    inner = [layer.compute_dtype for layer in one.network.layers if "conv" in layer.name]
    assert inner and set(inner) == {policy.removeprefix("mixed_")}
    with open_slide(odd) as slide:
        plan = plan_of(slide)
        found = predict_slide(slide, plan, [one], classes=CLASSES)
        patches = slide.read_patches(plan[["x", "y"]].to_numpy(), 32)
    direct = np.asarray(network.predict_on_batch(patches))
    assert found.prob_tumour.dtype == np.float32
    np.testing.assert_allclose(found.prob_tumour, direct[:, 1], atol=1e-3)
    np.testing.assert_allclose(found.prob_tumour + found.prob_normal, 1, atol=1e-6)
