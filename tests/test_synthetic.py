from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import project
import pytest

from kit.dicom import read_series
from kit.errors import KitError, SettingsError
from kit.files import sha256
from kit.images import read_image
from kit.manifest import load_manifest
from kit.synthetic import MARKER, NAMES, STAND_INS, drawn, make

SMALL = 0.05


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("synthetic")
    return {name: make(name, root / name, scale=SMALL) for name in NAMES}


def labels(root: Path) -> pd.DataFrame:
    return pd.read_csv(root / "labels.csv", dtype=str)


def test_the_same_seed_draws_the_same_bytes_in_another_process(
    sets: dict[str, Path], tmp_path: Path
) -> None:
    code = (
        "import sys; from kit.synthetic import make, NAMES\n"
        f"for name in NAMES: make(name, sys.argv[1] + '/' + name, scale={SMALL})"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=Path.cwd())
    for name, root in sets.items():
        assert sha256(tmp_path / name) == sha256(root), name


def test_two_workers_draw_the_bytes_of_one(
    sets: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*NAMES, "--data", tmp_path, "--scale", SMALL, "--workers", 2]
    assert project.code_of("data", "make", *asked) == 0
    made = capsys.readouterr().out.split()
    assert [sha256(Path(one)) for one in made] == [sha256(sets[name]) for name in NAMES]


def test_another_seed_draws_other_images(sets: dict[str, Path], tmp_path: Path) -> None:
    other = make("synthetic_patches", tmp_path / "p", seed=1, scale=SMALL)
    name = "images/P0001_01.png"
    assert not np.array_equal(
        read_image(other / name), read_image(sets["synthetic_patches"] / name)
    )


def test_drawing_loads_no_keras(tmp_path: Path) -> None:
    code = (
        "import sys; from kit.synthetic import make\n"
        f"make('synthetic_patches', sys.argv[1], scale={SMALL})\n"
        "print([name for name in ('keras', 'tensorflow', 'openslide') if name in sys.modules])"
    )
    assert project.printed(code, tmp_path / "p") == "[]\n"


def test_a_finished_set_is_left_alone(tmp_path: Path) -> None:
    root = make("synthetic_patches", tmp_path / "p", scale=SMALL)
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    make("synthetic_patches", root, scale=SMALL)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before


@pytest.mark.parametrize("damage", ["a file lost", "a file cut", "the marker cut"])
def test_a_half_made_set_is_not_taken_for_finished(tmp_path: Path, damage: str) -> None:
    root = make("synthetic_patches", tmp_path / "p", scale=SMALL)
    whole = sha256(root)
    broken = root / (MARKER if damage == "the marker cut" else "images/P0002_03.png")
    if damage == "a file lost":
        broken.unlink()
    else:
        broken.write_bytes(broken.read_bytes()[:50])
    make("synthetic_patches", root, scale=SMALL)
    assert sha256(root) == whole


def test_another_seed_or_scale_replaces_the_set_whole(tmp_path: Path) -> None:
    root = make("synthetic_patches", tmp_path / "p", scale=0.3)
    many = len(labels(root))
    make("synthetic_patches", root, scale=SMALL)
    assert len(list(root.glob("images/*"))) == len(labels(root)) < many


def test_an_interrupted_drawing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def stop(path: Path, image: np.ndarray, *options: int) -> None:
        drawn.append(path)
        if len(drawn) == 5:
            raise KeyboardInterrupt
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"part")

    monkeypatch.setattr("kit.synthetic._write", stop)
    with pytest.raises(KeyboardInterrupt):
        make("synthetic_patches", tmp_path / "p", scale=SMALL)
    assert len(drawn) == 5
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(KitError, match="something else"):
        make("synthetic_patches", tmp_path, scale=SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_unknown_set_and_a_scale_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="synthetic_slides"):
        make("synthetic_slide", tmp_path / "p")
    for scale in (0, 1.5):
        with pytest.raises(SettingsError, match="scale"):
            make("synthetic_patches", tmp_path / "p", scale=scale)


def test_openslide_reads_pyramids_with_their_resolution(sets: dict[str, Path]) -> None:
    root = sets["synthetic_slides"]
    sizes = set()
    for path in labels(root).path:
        with openslide.OpenSlide(root / path) as slide:
            sizes.add(slide.dimensions)
            assert slide.level_downsamples == (1, 2, 4, 8)
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(1)
            assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(1)
            assert slide.properties["openslide.level[0].tile-width"] == "256"
            assert 1536 <= slide.dimensions[0] <= 2048
            pixels = np.asarray(slide.get_thumbnail((200, 200)).convert("RGB")).astype(int)
            glass = pixels.min(axis=2) >= 240
            assert 0.3 < glass.mean() < 0.95
            # Violet and pink, not the colours of a wrong conversion: green is absorbed most.
            tissue = pixels[~glass].mean(axis=0)
            assert tissue[1] == tissue.min()
    assert len(sizes) > 1


def test_masks_show_the_tumour_of_positive_slides_only(sets: dict[str, Path]) -> None:
    root = sets["synthetic_slides"]
    table = labels(root)
    train = table[table.split == "train"]
    assert set(train.label) == {"negative", "positive"}
    for row in train.itertuples():
        mask = read_image(root / str(row.mask))[:, :, 0]
        with openslide.OpenSlide(root / str(row.path)) as slide:
            assert mask.shape == (slide.dimensions[1] // 16, slide.dimensions[0] // 16)
            assert slide.dimensions[0] % 16 == slide.dimensions[1] % 16 == 0
            small = np.asarray(slide.read_region((0, 0), 3, slide.level_dimensions[3]))
        assert set(np.unique(mask)) <= {0, 255}
        assert bool(mask.any()) == (row.label == "positive")
        if mask.any():  # where the mask says tumour, there is darker tissue
            green = small[::2, ::2, 1][: mask.shape[0], : mask.shape[1]].astype(float)
            assert green[mask > 0].mean() < green[(mask == 0) & (green < 230)].mean()


def test_test_rows_have_neither_label_nor_mask_and_whole_patients(sets: dict[str, Path]) -> None:
    for name in ("synthetic_slides", "synthetic_patches"):
        root = sets[name]
        table = labels(root)
        test = table[table.split == "test"]
        assert len(test) > 0
        assert test.label.isna().all()
        assert not set(test.patient_id) & set(table.patient_id[table.split == "train"])
        assert not table.path.duplicated().any()
        assert all((root / path).is_file() for path in table.path)
    slides = labels(sets["synthetic_slides"])
    assert slides["mask"].isna().equals(slides.split == "test")
    assert len(list(sets["synthetic_slides"].glob("masks/*"))) == slides["mask"].notna().sum()


def test_every_patient_has_several_patches_and_mostly_one_label(tmp_path: Path) -> None:
    table = labels(make("synthetic_patches", tmp_path / "p", scale=0.3))
    assert table.groupby("patient_id").size().min() >= 8
    train = table[table.split == "train"]
    share = train.groupby("patient_id").label.agg(lambda v: v.value_counts(normalize=True).iloc[0])
    assert 0.75 < share.mean() < 0.97
    major = train.groupby("patient_id").label.agg(lambda v: v.mode()[0])
    assert major.value_counts().min() >= 6


def test_patches_of_a_patient_resemble_each_other(tmp_path: Path) -> None:
    root = make("synthetic_patches", tmp_path / "p", scale=0.3)
    table = labels(root)
    images = [read_image(root / path) for path in table.path]
    assert {image.shape for image in images} == {(64, 64, 3)}
    colour = pd.DataFrame([image.mean(axis=(0, 1)) for image in images])
    within = colour.groupby(table.patient_id).std().mean().mean()
    assert colour.groupby(table.patient_id).mean().std().mean() > within


@pytest.mark.parametrize("scale", [0.3, 0.01])
def test_every_class_can_be_folded_at_a_small_scale(tmp_path: Path, scale: float) -> None:
    least = 6 if scale >= 0.3 else 2
    for name in NAMES:
        root = make(name, tmp_path / name, scale=scale)
        if name == "synthetic_mri":
            table = pd.read_csv(root / "train_labels.csv", dtype=str)
            groups = table.groupby("MGMT_value").BraTS21ID.nunique()
        else:
            table = labels(root).dropna(subset=["label"])
            groups = table.groupby("label").patient_id.nunique()
        assert groups.min() >= least, name


def test_fundus_images_hold_both_eyes_of_each_person(sets: dict[str, Path]) -> None:
    root = sets["synthetic_fundus"]
    table = labels(root)
    assert set(table.label) == {"NOR", "AMD", "DMR", "RVO"}
    names = table.path.str.extract(r"^images/Wide_([A-Z]{3})_(\d{3})_([RL])\.jpg$")
    assert names[0].equals(table.label.rename(0))
    assert names[1].equals(table.patient_id.rename(1))
    assert table.groupby("patient_id").size().eq(2).all()
    for path, side in zip(table.path, names[2], strict=True):
        image = read_image(root / path).astype(int)
        assert image.shape == (192, 244, 3)
        assert image[:8, :8].max() < 20
        # The optic disc is the brightest place: on the right in a right eye.
        green = image[70:122, :, 1]
        bright = [
            np.sort(half.ravel())[-60:].mean() for half in (green[:, 25:85], green[:, 159:219])
        ]
        assert (bright[1] > bright[0]) == (side == "R"), path


def test_mri_series_are_read_and_the_sample_lists_the_test_studies(sets: dict[str, Path]) -> None:
    root = sets["synthetic_mri"]
    known = pd.read_csv(root / "train_labels.csv", dtype=str)
    sample = pd.read_csv(root / "sample_submission.csv", dtype={"BraTS21ID": str})
    assert set(known.MGMT_value) == {"0", "1"}
    assert (sample.MGMT_value == 0.5).all()
    for part, studies in {"train": known.BraTS21ID, "test": sample.BraTS21ID}.items():
        assert sorted(p.name for p in (root / part).iterdir()) == sorted(studies)
        for study in studies:
            series = read_series(root / part / study / "T1wCE")
            assert len(series.volume) == 16
            assert series.volume.shape[1] in (64, 80, 96)
            assert series.warnings == ()
            assert series.spacing == (5.0, 2.5, 2.5)
            corners = series.volume[:, :6, :6]
            assert corners.mean() < 0.2 * series.volume[8].max()


@pytest.fixture(scope="module")
def rsna(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("rsna2021", tmp_path_factory.mktemp("rsna") / "data", scale=0.012)


def test_the_stand_in_of_rsna_has_its_layout_and_its_entry_reads_it(rsna: Path) -> None:
    known = pd.read_csv(rsna / "train_labels.csv", dtype=str)
    sample = pd.read_csv(rsna / "sample_submission.csv", dtype=str)
    assert list(known) == list(sample) == ["BraTS21ID", "MGMT_value"]
    assert known.BraTS21ID.str.fullmatch(r"\d{5}").all()
    assert not set(known.BraTS21ID) & set(sample.BraTS21ID)
    for part, studies in {"train": known.BraTS21ID, "test": sample.BraTS21ID}.items():
        assert sorted(p.name for p in (rsna / part).iterdir()) == sorted(studies)
        for study in studies:
            names = {p.name for p in (rsna / part / study).iterdir()}
            assert names == {"FLAIR", "T1w", "T1wCE", "T2w"}
    files = list((rsna / "train" / known.BraTS21ID[0] / "T2w").iterdir())
    assert {p.name for p in files} == {f"Image-{i + 1}.dcm" for i in range(len(files))}
    cases = load_manifest().dataset("rsna2021").cases(root=rsna)
    train = cases[cases.split == "train"]
    assert train.label.value_counts().to_dict() == {"methylated": 4, "unmethylated": 3}
    assert not cases.case_id.isin(["00109", "00123", "00709"]).any()
    assert {"00109", "00123", "00709"} <= set(known.BraTS21ID)


def test_its_series_show_one_head_on_grids_of_their_own(rsna: Path) -> None:
    from pydicom import dcmread

    stored, turned = set(), set()
    for study in sorted((rsna / "train").iterdir()):
        found = {path.name: read_series(path) for path in study.iterdir()}
        assert all(series.warnings == () for series in found.values())
        lengths = {name: len(series.volume) for name, series in found.items()}
        assert lengths["T1w"] == lengths["T1wCE"] > lengths["FLAIR"]
        extents = [series.positions[[0, -1]] for series in found.values()]
        for extent in extents[1:]:
            np.testing.assert_allclose(np.ptp(extent), np.ptp(extents[0]), atol=0.01)
        middle = {name: series.volume[len(series.volume) // 2] for name, series in found.items()}
        for image in middle.values():  # bright is the head, also where MONOCHROME1 is stored
            assert image[:5, :5].mean() < 0.5 * image.mean()
        for name in found:
            data = dcmread(study / name / "Image-1.dcm")
            stored.add((data.PhotometricInterpretation, float(data.get("RescaleSlope", 1))))
            turned.add(data.ImagePositionPatient[2] > found[name].positions[3])
    assert len(stored) > 3
    assert turned == {True, False}


def test_a_stand_in_is_known_as_drawn_and_the_same_seed_draws_it_again(
    rsna: Path, tmp_path: Path
) -> None:
    assert drawn(rsna)
    assert not drawn(tmp_path)
    assert "rsna2021" in STAND_INS
    code = "import sys; from kit.synthetic import make; make('rsna2021', sys.argv[1], scale=.012)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], check=True, cwd=Path.cwd())
    assert sha256(tmp_path / "x") == sha256(rsna)


@pytest.fixture(scope="module")
def phases(sets: dict[str, Path]) -> dict[int, list[np.ndarray]]:
    """The slides of both phases whole, uint8 RGB."""
    root, found = sets["synthetic_scanners"], {1: [], 2: []}
    for row in labels(root).itertuples():
        with openslide.OpenSlide(root / str(row.path)) as slide:
            whole = slide.read_region((0, 0), 0, slide.dimensions).convert("RGB")
            found[int(str(row.phase))].append(np.asarray(whole))
    return found


def test_training_slides_are_of_the_first_phase_and_all_labels_are_known(
    sets: dict[str, Path],
) -> None:
    root = sets["synthetic_scanners"]
    table = labels(root)
    assert set(table.phase[table.split == "train"]) == {"1"}
    assert set(table.phase[table.split == "test"]) == {"1", "2"}
    assert table.label.isin(["negative", "positive"]).all()
    shares = table.groupby(["split", "phase"]).label.apply(lambda one: (one == "positive").mean())
    assert shares.eq(0.5).all() and len(shares) == 3
    assert table.patient_id.is_unique
    assert table["mask"].notna().equals(table.split == "train")
    assert len(list(root.glob("masks/*"))) == (table.split == "train").sum()


def test_the_second_phase_has_another_stain_and_is_less_sharp(
    phases: dict[int, list[np.ndarray]],
) -> None:
    blue, sharp = {}, {}
    for phase, images in phases.items():
        blue[phase], sharp[phase] = [], []
        for image in images:
            tissue = (image[..., 1] < 200) & (image.max(axis=2) > 60)
            density = -np.log((image[tissue].astype(float) + 1) / 256).mean(axis=0)
            blue[phase].append(density[2] / density[0])
            grey = image[..., 1].astype(float)
            inside = tissue[:, 2:] & tissue[:, 1:-1] & tissue[:, :-2]
            bends, steps = np.diff(grey, n=2, axis=1)[inside], np.diff(grey, axis=1)[:, 1:][inside]
            sharp[phase].append(np.abs(bends).mean() / np.abs(steps).mean())
    assert min(blue[2]) > max(blue[1])  # an orange eosin absorbs more blue light
    assert max(sharp[2]) < 0.8 * min(sharp[1])


def test_the_second_scanner_leaves_void_outside_the_tissue_alone(
    phases: dict[int, list[np.ndarray]],
) -> None:
    for image in phases[1]:
        assert (image.max(axis=2) == 0).mean() < 0.001
    for image in phases[2]:
        void = image.max(axis=2) == 0
        assert 0.05 < void.mean() < 0.9
        near = np.zeros_like(void)
        rows, columns = np.nonzero((image[..., 1] < 200) & (image.max(axis=2) > 60))
        near[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        inside = void[rows, columns]
        assert not inside.any()


def test_void_is_planned_as_no_tissue(sets: dict[str, Path]) -> None:
    from kit.slides import open_slide
    from kit.tissue import tissue_mask

    root = sets["synthetic_scanners"]
    for row in labels(root).itertuples():
        if row.phase == "2":
            with open_slide(root / str(row.path)) as slide:
                mask = tissue_mask(slide)
                size = mask.mask.shape[::-1]
                small = np.asarray(openslide.OpenSlide(root / str(row.path)).get_thumbnail(size))
            height, width = min(small.shape[0], size[1]), min(small.shape[1], size[0])
            black = small[:height, :width].max(axis=2) == 0
            assert black.any()
            assert mask.mask[:height, :width][black].mean() < 0.01


def test_the_second_phase_is_compressed_more(sets: dict[str, Path]) -> None:
    root, size = sets["synthetic_scanners"], {"1": [], "2": []}
    for row in labels(root).itertuples():
        with openslide.OpenSlide(root / str(row.path)) as slide:
            whole = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
        pixels = ((whole[..., 1] < 200) & (whole.max(axis=2) > 0)).sum()
        size[str(row.phase)].append((root / str(row.path)).stat().st_size / pixels)
    assert max(size["2"]) < 0.6 * np.median(size["1"])  # bytes for a pixel of tissue
