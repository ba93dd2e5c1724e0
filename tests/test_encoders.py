"""Slides to vectors to scores: by hand arithmetic, cut off and gone on, and without a leak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_slides import picture, write_pyramid
from test_streams import damage, plan_of

from kit import _stream, embeddings, encoders, heatmaps, mil, slide_jobs, synthetic
from kit.embeddings import Embedder
from kit.encoders import NO_LABELS, embed_slide, headless, unlabelled
from kit.errors import GroupLeakError, MissingDataError, ModelError, SlideError, TableError
from kit.files import read_json, sha256, table_key, write_json, write_table
from kit.models import build_model, load_network
from kit.sampler import PatchSampler
from kit.slides import open_slide
from kit.streams import Member, load

CLASSES = ("negative", "positive")


class MeanColours:
    """A network without weights: a patch's vector is its mean red, green and blue."""

    def __init__(self, side: int, stop_after: int | None = None, times: float = 1) -> None:
        self.input_shape, self.output_shape = (None, side, side, 3), (None, 3)
        self.calls, self.stop_after, self.times = 0, stop_after, times

    def predict_on_batch(self, batch: np.ndarray) -> np.ndarray:
        if self.stop_after is not None and self.calls >= self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        return np.asarray(batch.mean(axis=(1, 2), dtype=np.float64) * self.times)


def colours(side: int = 32, key: str = "a" * 64, **how: Any) -> Member:
    return Member(MeanColours(side, **how), NO_LABELS, 0, "colours", key)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_pyramid(tmp_path / "s.tiff", [picture(1024, 512)])


def by_hand(plan: pd.DataFrame) -> np.ndarray:
    full = picture(1024, 512)
    return np.array([full[y : y + 32, x : x + 32].mean(axis=(0, 1))
                     for x, y in plan[["x", "y"]].to_numpy()])  # fmt: skip


def test_each_patch_has_its_mean_colours_in_the_plans_order(path, tmp_path):
    target = tmp_path / "out" / "one.parquet"
    with open_slide(path) as slide:
        plan = plan_of(slide)
        embed_slide(slide, plan, [colours()], paths=[target])
    places, found = embeddings.read(target)
    assert found.dtype == np.float16 and found.shape == (512, 3)
    np.testing.assert_allclose(found, by_hand(plan), rtol=2**-11)
    np.testing.assert_array_equal(places[["x", "y"]], plan[["x", "y"]])
    assert (places.footprint == 32).all() and set(places.case_id) == {"one"}
    assert [one.name for one in target.parent.iterdir()] == ["one.parquet"]


def test_several_encoders_of_several_sides_share_one_reading(path, tmp_path, monkeypatch):
    asked: list[int] = []
    real = _stream.Stream._read

    def counted(self: Any, rows: np.ndarray) -> Any:
        asked.append(len(rows))
        return real(self, rows)

    monkeypatch.setattr(_stream.Stream, "_read", counted)
    both = [colours(), colours(16, key="b" * 64, times=2)]
    paths = [tmp_path / name / "one.parquet" for name in "ab"]
    with open_slide(path) as slide:
        plan = plan_of(slide)
        embed_slide(slide, plan, both, paths=paths)
        assert sum(asked) == len(plan)
        again = colours(times=3)
        embed_slide(slide, plan, [again, both[1]], paths=paths)  # the same fingerprints
        assert again.network.calls == 0
    first, second = (embeddings.read(one)[1].astype(float) for one in paths)
    np.testing.assert_allclose(second, 2 * first, atol=1.5)  # patches made smaller are rounded


def test_what_was_cut_off_goes_on_and_is_the_same(path, tmp_path, monkeypatch):
    monkeypatch.setattr(_stream, "MOST", 16)
    monkeypatch.setattr(_stream, "BLOCK", 2)
    cut, whole = tmp_path / "cut.parquet", tmp_path / "whole.parquet"
    with open_slide(path) as slide:
        plan = plan_of(slide)
        with pytest.raises(KeyboardInterrupt):
            embed_slide(slide, plan, [colours(stop_after=7)], paths=[cut])
        assert not cut.exists()
        rest = colours()
        embed_slide(slide, plan, [rest], paths=[cut])
        assert rest.network.calls == len(_stream.batches_of(plan)) - 6  # three blocks stood
        embed_slide(slide, plan, [colours()], paths=[whole])
    np.testing.assert_array_equal(embeddings.read(cut)[1], embeddings.read(whole)[1])
    assert table_key(cut) == table_key(whole)


def test_patches_that_cannot_be_read_have_no_row(path, tmp_path):
    damage(path, 1)  # 16 patches of 512
    with open_slide(path) as slide:
        plan = plan_of(slide).drop(columns="slide_key")  # damaged more, it is not the same
        embed_slide(slide, plan, [colours()], paths=[tmp_path / "a.parquet"])
        places, found = embeddings.read(tmp_path / "a.parquet")
        kept = plan[(plan.x >= 128) | (plan.y >= 128)]
        np.testing.assert_array_equal(places[["x", "y"]], kept[["x", "y"]])
        np.testing.assert_allclose(found, by_hand(kept), rtol=2**-11)
    damage(path, 8)
    with open_slide(path) as slide, pytest.raises(SlideError, match="too many patches"):
        embed_slide(slide, plan, [colours()], paths=[tmp_path / "b.parquet"])


def test_a_slide_without_tissue_has_a_file_without_rows(path, tmp_path):
    with open_slide(path) as slide:
        embed_slide(slide, plan_of(slide).iloc[:0], [colours()], paths=[tmp_path / "a.parquet"])
    assert embeddings.read(tmp_path / "a.parquet")[1].shape == (0, 3)


def test_vectors_are_written_some_rows_at_a_time(path, tmp_path, monkeypatch):
    with open_slide(path) as slide:
        plan = plan_of(slide)
        embed_slide(slide, plan, [colours()], paths=[tmp_path / "a.parquet"])
        monkeypatch.setattr("kit._vector_files.ROWS", 100)
        embed_slide(slide, plan, [colours()], paths=[tmp_path / "b.parquet"])
    (one, first), (two, second) = (embeddings.read(tmp_path / f"{name}.parquet") for name in "ab")
    np.testing.assert_array_equal(first, second)
    pd.testing.assert_frame_equal(one, two)


def test_networks_that_make_no_vectors_are_refused(path, tmp_path):
    with open_slide(path) as slide:
        plan, target = plan_of(slide), [tmp_path / "a.parquet"]
        maps = colours()
        maps.network.output_shape = (None, 8, 8, 3)
        with pytest.raises(ModelError, match=r"no vectors of patches.*\(8, 8, 3\) out of colours"):
            embed_slide(slide, plan, [maps], paths=target)
        with pytest.raises(TableError, match="float16 cannot"):
            embed_slide(slide, plan, [colours(times=1e6)], paths=target)
        other = open_slide(np.zeros((200, 200, 3), np.uint8))
        with pytest.raises(TableError, match="made from another slide"):
            embed_slide(other, plan, [colours()], paths=target)
    assert not target[0].exists()


def test_a_registry_network_gives_what_an_embedder_gives(path, tmp_path):
    encoder = unlabelled("conv_small", 32, tmp_path)
    member = headless(load(encoder))
    with open_slide(path) as slide:
        plan = plan_of(slide).head(40)
        embed_slide(slide, plan, [member], paths=[tmp_path / "a.parquet"])
        patches = slide.read_patches(plan[["x", "y"]].to_numpy(), 32)
    _, found = embeddings.read(tmp_path / "a.parquet")
    np.testing.assert_allclose(found, Embedder(member.network)(patches), rtol=2e-3, atol=1e-4)


def test_an_encoder_without_labels_is_made_once_and_by_its_seed(tmp_path):
    path = unlabelled("conv_small", 16, tmp_path)
    made = path.stat().st_mtime_ns
    weights = load_network(path).get_weights()
    assert unlabelled("conv_small", 16, tmp_path).stat().st_mtime_ns == made
    again = load_network(unlabelled("conv_small", 16, tmp_path / "again")).get_weights()
    assert all((a == b).all() for a, b in zip(weights, again, strict=True))
    other = unlabelled("conv_small", 16, tmp_path, seed=1)
    assert any((a != b).any() for a, b in zip(weights, load_network(other).get_weights(),
                                              strict=True))  # fmt: skip
    assert read_json(path.with_suffix(".json"))["fold"] == NO_LABELS
    begun = unlabelled("conv_small", 16, tmp_path / "third", weights=other)
    assert all((a == b).all() for a, b in zip(load_network(other).get_weights()[:-2],
                                              load_network(begun).get_weights()[:-2],
                                              strict=True))  # fmt: skip


# Which encoder may be shown which slide


def trained(folder: Path, fold: int) -> Path:
    """What stands for a run's network of a fold: its file and note."""
    path = folder / "models" / f"fold{fold}_seed0.keras"
    path.parent.mkdir(parents=True, exist_ok=True)
    build_model("conv_small", (16, 16, 3), 2).save(path)
    note = {"fold": fold, "seed": 0, "model": "conv_small", "sha256": sha256(path)}
    write_json(path.with_suffix(".json"), note)
    return path


def four_folds() -> pd.DataFrame:
    ids = list("abcd")
    return pd.DataFrame({"case_id": ids, "group": ids, "label": CLASSES * 2, "fold": [0, 0, 1, 1]})


def keep(folder: Path, encoder: Path, cases: pd.DataFrame, value: float) -> None:
    for case in cases.case_id:
        place = pd.DataFrame({"case_id": case, "x": [0], "y": [0], "footprint": [64.0]})
        path = encoders.vectors_path(folder, encoder, case)
        embeddings.write(path, place, np.full((1, 2), value, np.float32))


def test_each_fold_gets_the_vectors_of_the_encoder_that_left_it_out(tmp_path):
    folds, both = four_folds(), [trained(tmp_path, fold) for fold in (1, 0)]
    write_table(folds, tmp_path / "folds.parquet")
    for path in both:
        keep(tmp_path / "vectors", path, folds, float(path.stem[4]))
    found = encoders.bags(folds, both, tmp_path / "vectors", folds=folds)
    for case in folds.case_id:
        assert [float(found(case, fold)[0, 0]) for fold in (0, 1)] == [0.0, 1.0]
    assert found.places("a", 1).footprint.tolist() == [64.0]
    with pytest.raises(GroupLeakError, match=r"learnt from the labels of this fold.*fold 2"):
        found("a", 2)


def test_an_encoder_that_may_have_seen_the_held_out_slides_is_refused(tmp_path):
    folds, one = four_folds(), trained(tmp_path, 0)
    keep(tmp_path / "v", one, folds, 0.0)
    with pytest.raises(MissingDataError, match=r"not known.*folds\.parquet"):
        encoders.bags(folds, [one], tmp_path / "v", folds=folds)
    write_table(folds.assign(fold=[0, 1, 1, 0]), tmp_path / "folds.parquet")
    with pytest.raises(GroupLeakError, match=r"slides that are to judge it.*fold 0: b"):
        encoders.bags(folds, [one], tmp_path / "v", folds=folds)
    write_table(folds, tmp_path / "folds.parquet")
    with pytest.raises(MissingDataError, match="not known"):
        encoders.bags(folds, [one], tmp_path / "v")
    everything = trained(tmp_path, -1)
    keep(tmp_path / "v", everything, folds, 0.0)
    with pytest.raises(GroupLeakError, match="learnt from all labels"):
        encoders.bags(folds, [everything], tmp_path / "v", folds=folds)


def test_encoders_that_do_not_go_together_are_refused(tmp_path):
    folds, one, free = four_folds(), trained(tmp_path, 0), unlabelled("conv_small", 16, tmp_path)
    for several in ([], [one, one.with_name("fold0_seed0.keras")], [one, free]):
        with pytest.raises((TableError, GroupLeakError, MissingDataError)):
            encoders.bags(folds, several, tmp_path / "v", folds=folds)
    with pytest.raises(MissingDataError, match=r"slides have no vectors.*a, b, c, d"):
        encoders.bags(folds, [free], tmp_path / "v")


# From slides to scores and to attention


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """A folder of drawn slides, their cases and the plan of their patches."""
    root = synthetic.make("synthetic_slides", tmp_path_factory.mktemp("drawn") / "s", scale=0.05)
    cases = pd.read_csv(root / "labels.csv", dtype=str).rename(columns={"patient_id": "group"})
    cases["key"] = cases.case_id
    plan = PatchSampler(64, mpp=4.0, min_tissue=0.3).plan_cases(
        cases[["case_id", "path", "split"]], root, CLASSES, "positive"
    )
    return root, cases, plan[plan.case_id != "S002"]  # as if that slide had no tissue


@pytest.mark.parametrize("model", ["attention_mil", "chowder"])
def test_slides_are_embedded_scored_and_their_attention_drawn(drawn, tmp_path, model):
    root, cases, plan = drawn
    train = cases[cases.split == "train"]
    folds = train[["case_id", "group", "label"]].assign(
        fold=train.group.map({"P001": 0, "P002": 0, "P003": 1, "P004": 1})
    )
    encoder = unlabelled("conv_small", 64, tmp_path)
    done = slide_jobs.embed_slides(cases, plan, [encoder], root=root, folder=tmp_path / "v")
    assert [one.error for one in done] == [None] * len(cases)
    bags = encoders.bags(cases, [encoder], tmp_path / "v")
    assert len(bags("S002")) == 0 and len(bags("S001")) == (plan.case_id == "S001").sum()
    oof, test = mil.cross_validate(
        folds, bags, classes=CLASSES, positive="positive", out=tmp_path / "mil", model=model,
        tests=cases[cases.split == "test"][["case_id", "group"]], seeds=1, epochs=1,
    )  # fmt: skip
    assert sorted(oof.case_id) == sorted(train.case_id) and len(test) == 2 * 3
    assert oof.set_index("case_id")["prob_positive"]["S002"] == 0  # the stated score
    seen = mil.attention_table(tmp_path / "mil", bags, "S001", fold=0)
    assert set(seen.fold) == {0} and set(seen.model) == {model}
    assert mil.attention_table(tmp_path / "mil", bags, "S007", fold=None).fold.nunique() == 2
    mine = plan[plan.case_id == "S001"]
    np.testing.assert_array_equal(seen[["x", "y"]], mine[["x", "y"]])
    assert seen.attention.max() == 1 and seen.attention.min() > 0
    order = seen.sort_values("weight").attention.to_numpy()
    assert (np.diff(order) >= 0).all()
    network = load_network(tmp_path / "mil" / "mil_fold0_seed0.keras")
    np.testing.assert_array_equal(seen.weight, mil.attention(network, bags("S001")))
    with open_slide(root / "slides" / "S001.tif") as slide:
        tiff, _ = heatmaps.write(seen, slide, tmp_path, column="attention", threshold=0.9)
    found = heatmaps.read_tiff(tiff)
    top = seen.loc[seen.attention.idxmax()]
    at = [int((top[axis] + top.footprint / 2) / found.downsample) for axis in "yx"]
    assert found.values[at[0], at[1]] == np.nanmax(found.values) == 1
    with pytest.raises(MissingDataError, match=r"no network of bags.*fold 7"):
        mil.attention_table(tmp_path / "mil", bags, "S001", fold=7)


def test_a_damaged_slide_is_named_and_the_others_are_embedded(drawn, tmp_path):
    root, cases, plan = drawn
    two = cases[cases.case_id.isin(["S001", "S004"])].copy()
    for case in two.case_id:
        data = (root / "slides" / f"{case}.tif").read_bytes()
        (tmp_path / f"{case}.tif").write_bytes(data if case == "S004" else data[: len(data) // 3])
    two["path"] = [f"{case}.tif" for case in two.case_id]
    encoder = unlabelled("conv_small", 64, tmp_path)
    mine = plan[plan.case_id.isin(two.case_id)]
    first, second = slide_jobs.embed_slides(
        two, mine, [encoder], root=tmp_path, folder=tmp_path / "v"
    )
    assert isinstance(first.error, SlideError) and "S001.tif" in str(first.error)
    assert second.error is None and second.value[0].is_file()
    again = slide_jobs.embed_slides(
        two.assign(path="gone"), mine, [encoder], root=tmp_path, folder=tmp_path / "v"
    )[1]
    assert again.value == second.value  # not opened
    with pytest.raises(MissingDataError, match=r"slides have no vectors. Received: S001"):
        encoders.bags(two, [encoder], tmp_path / "v")
