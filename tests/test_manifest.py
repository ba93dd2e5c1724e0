from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from kit.errors import GroupLeakError, KitError, ManifestError, MissingDataError, TableError
from kit.manifest import Dataset, home, load_manifest

ENTRY: dict[str, Any] = {
    "kind": "images",
    "licence": "CC0-1.0",
    "source": "https://example.org",
    "roots": {"local": "mine"},
    "classes": ["benign", "malignant"],
    "positive": "malignant",
    "group": {"unit": "image"},
}
FOLDERS = {**ENTRY, "pattern": "{label}/{case_id}.png"}
TABLE = {**ENTRY, "table": "labels.csv", "group": {"unit": "patient", "column": "patient_id"}}


def entry_of(folder: Path, entry: dict[str, Any], name: str = "mine") -> Dataset:
    path = folder / "data_manifest.yaml"
    path.write_text(yaml.safe_dump({"datasets": {name: entry}}), encoding="utf-8")
    return load_manifest(path).dataset(name)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"an image, for all that the table knows")


def write_csv(folder: Path, text: str, *, images: bool = True) -> None:
    """Write labels.csv under data/mine, and an empty image for each line."""
    root = folder / "data" / "mine"
    root.mkdir(parents=True, exist_ok=True)
    (root / "labels.csv").write_text(text, encoding="utf-8")
    if images:
        touch(root, *(line.split(",")[0] for line in text.splitlines()[1:]))


CSV = "path,label,patient_id\na/1.png,benign,007\na/2.png,malignant,007\nb/1.png,benign,08\n"


# A new dataset is one entry and no code


def test_a_folder_of_class_named_subfolders_is_one_entry(tmp_path: Path) -> None:
    touch(tmp_path / "data/mine", "benign/00012.png", "malignant/x_2.png", "benign/._00012.png")
    cases = entry_of(tmp_path, FOLDERS).cases()
    assert cases.to_dict("list") == {
        "case_id": ["00012", "x_2"],
        "path": ["benign/00012.png", "malignant/x_2.png"],
        "label": ["benign", "malignant"],
        "group": ["00012", "x_2"],
        "split": ["train", "train"],
    }


def test_a_csv_is_one_entry(tmp_path: Path) -> None:
    write_csv(tmp_path, CSV)
    cases = entry_of(tmp_path, TABLE).cases()
    assert list(cases.case_id) == ["a/1", "a/2", "b/1"]
    assert list(cases.label) == ["benign", "malignant", "benign"]
    assert list(cases.group) == ["007", "007", "08"]


def test_the_order_of_the_lines_does_not_matter(tmp_path: Path) -> None:
    write_csv(tmp_path, CSV)
    dataset = entry_of(tmp_path, TABLE)
    before = dataset.cases()
    head, *lines = CSV.splitlines()
    write_csv(tmp_path, "\n".join([head, *lines[::-1]]))
    pd.testing.assert_frame_equal(dataset.cases(), before)


def test_names_that_two_class_folders_share_become_paths(tmp_path: Path) -> None:
    touch(tmp_path / "data/mine", "benign/1.png", "malignant/1.png")
    assert list(entry_of(tmp_path, FOLDERS).cases().case_id) == ["benign/1", "malignant/1"]


def test_paths_that_differ_in_the_suffix_alone_keep_it(tmp_path: Path) -> None:
    write_csv(tmp_path, "path,label,patient_id\na.png,benign,1\na.jpg,benign,1\nb.png,benign,2\n")
    assert list(entry_of(tmp_path, TABLE).cases().case_id) == ["a.jpg", "a.png", "b.png"]


def test_backslashes_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    write_csv(tmp_path, "\ufeff" + CSV)
    table = tmp_path / "data/mine/labels.csv"
    table.write_text(table.read_text("utf-8").replace("a/1", "a\\1"), encoding="utf-8")
    assert list(entry_of(tmp_path, TABLE).cases().path) == ["a/1.png", "a/2.png", "b/1.png"]


def test_kept_columns_are_whole_numbers_only_where_they_are_written_so(tmp_path: Path) -> None:
    write_csv(tmp_path, "path,label,patient_id,x,code\na.png,benign,1,12,007\nb.png,benign,1,0,1\n")
    cases = entry_of(tmp_path, {**TABLE, "columns": {"keep": ["x", "code"]}}).cases()
    assert list(cases.x) == [12, 0]
    assert list(cases.code) == ["007", "1"]


# Roots


def test_data_is_the_folder_that_relative_roots_start_from(tmp_path: Path) -> None:
    dataset = entry_of(tmp_path, FOLDERS)
    touch(tmp_path / "elsewhere/mine", "benign/1.png")
    assert dataset.root(tmp_path / "elsewhere") == tmp_path / "elsewhere/mine"
    assert len(dataset.cases(tmp_path / "elsewhere")) == 1
    assert len(dataset.cases(root=tmp_path / "elsewhere/mine")) == 1


@pytest.mark.parametrize(("synthetic", "remedy"), [(True, "kit data make mine"), (False, "--data")])
def test_a_missing_folder_says_how_to_get_it(tmp_path: Path, synthetic: bool, remedy: str) -> None:
    dataset = entry_of(tmp_path, {**FOLDERS, "synthetic": synthetic})
    with pytest.raises(MissingDataError, match=remedy) as found:
        dataset.cases()
    assert str(tmp_path / "data" / "mine") in str(found.value)


def test_a_platform_without_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="kaggle"):
        entry_of(tmp_path, FOLDERS).root(platform="kaggle")


def test_an_absolute_root_serves_where_no_data_folder_is_given(tmp_path: Path) -> None:
    touch(tmp_path / "input", "benign/1.png")
    touch(tmp_path / "d/mine", "benign/2.png", "benign/3.png")
    roots = {"local": "mine", "kaggle": str(tmp_path / "input")}
    dataset = entry_of(tmp_path, {**FOLDERS, "roots": roots})
    assert len(dataset.cases(platform="kaggle")) == 1
    assert len(dataset.cases(tmp_path / "d", platform="kaggle")) == 2


# Test rows


def test_a_split_column_marks_test_rows_whose_labels_are_not_read(tmp_path: Path) -> None:
    write_csv(
        tmp_path,
        "path,label,patient_id,split\na.png,benign,1,\nb.png,malignant,2,train\n"
        "c.png,,3,test\nd.png,nonsense,3,Test\n",
    )
    cases = entry_of(tmp_path, TABLE).cases()
    assert list(cases.split) == ["train", "train", "test", "test"]
    assert cases.label[:2].tolist() == ["benign", "malignant"]
    assert cases.label[2:].tolist() == [None, None]


def test_integer_labels_saved_with_a_point_beside_empty_cells_are_read(tmp_path: Path) -> None:
    write_csv(tmp_path, "path,label,patient_id,split\na,1.0,1,\nb,0.0,2,\nc,,3,test\n")
    entry = {**TABLE, "labels": {0: "benign", 1: "malignant"}}
    assert entry_of(tmp_path, entry).cases().label.tolist() == ["malignant", "benign", None]


def test_a_test_table_needs_no_label_column(tmp_path: Path) -> None:
    write_csv(tmp_path, CSV)
    touch(tmp_path / "data/mine", "z.png")
    (tmp_path / "data/mine/test.csv").write_text("path,patient_id\nz.png,99\n", encoding="utf-8")
    cases = entry_of(tmp_path, {**TABLE, "test": {"table": "test.csv"}}).cases()
    assert cases.set_index("case_id").split.to_dict() == {
        "a/1": "train", "a/2": "train", "b/1": "train", "z": "test",
    }  # fmt: skip


def test_one_folder_of_images_serves_a_training_and_a_test_table(tmp_path: Path) -> None:
    root = tmp_path / "data/mine"
    touch(root, "images/1.png", "images/2.png", "images/3.png")
    (root / "train.csv").write_text("case_id,label\n1,benign\n2,malignant\n", encoding="utf-8")
    (root / "test.csv").write_text("case_id\n3\n", encoding="utf-8")
    entry = {
        **ENTRY, "table": "train.csv", "pattern": "images/{case_id}.png",
        "test": {"table": "test.csv"},
    }  # fmt: skip
    assert list(entry_of(tmp_path, entry).cases().split) == ["train", "train", "test"]


def test_a_test_pattern_may_be_empty_and_never_renames_training_cases(tmp_path: Path) -> None:
    touch(tmp_path / "data/mine", "train/benign/1.png", "train/malignant/2.png")
    entry = {
        **FOLDERS, "pattern": "train/{label}/{case_id}.png",
        "test": {"pattern": "test/{label}/{case_id}.png"},
    }  # fmt: skip
    dataset = entry_of(tmp_path, entry)
    assert list(dataset.cases().case_id) == ["1", "2"]
    touch(tmp_path / "data/mine", "test/1.png")  # flat: test rows have no class folder
    cases = dataset.cases().set_index("case_id")
    assert cases.split.to_dict() == {"1": "train", "2": "train", "test/1": "test"}
    assert cases.label["test/1"] is None


def test_a_group_with_two_splits_is_named(tmp_path: Path) -> None:
    write_csv(tmp_path, "path,label,patient_id,split\na,benign,P7,\nb,,P7,test\nc,benign,P8,\n")
    with pytest.raises(GroupLeakError, match=r"P7.*labels\.csv"):
        entry_of(tmp_path, TABLE).cases()


# Without labels


def test_without_labels_every_row_is_a_test_row(tmp_path: Path) -> None:
    write_csv(tmp_path, "path\na.png\nb.png\n")
    cases = entry_of(tmp_path, TABLE).cases(labels=False)
    assert list(cases.split) == ["test", "test"]
    assert cases.label.tolist() == [None, None]


def test_without_labels_only_marked_rows_are_returned(tmp_path: Path) -> None:
    write_csv(tmp_path, "path,label,patient_id,split\na,nonsense,1,\nb,,1,test\n", images=False)
    touch(tmp_path / "data/mine", "b")  # the training image is not even there
    assert list(entry_of(tmp_path, TABLE).cases(labels=False).case_id) == ["b"]


def test_without_labels_class_folders_may_be_missing(tmp_path: Path) -> None:
    touch(tmp_path / "data/mine", "1.png", "2.png")
    cases = entry_of(tmp_path, FOLDERS).cases(labels=False)
    assert list(cases.path) == ["1.png", "2.png"]


def test_without_labels_the_training_part_may_be_missing(tmp_path: Path) -> None:
    entry = {
        **TABLE, "pattern": "train/{case_id}.png", "columns": {"case_id": "id"},
        "test": {"pattern": "test/{case_id}.png"},
    }  # fmt: skip
    touch(tmp_path / "data/mine", "test/9.png")
    assert list(entry_of(tmp_path, entry).cases(labels=False).case_id) == ["9"]


# Bad input


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (CSV + "a/1.png,benign,007\n", TableError, r"doubled.*a/1"),
        (CSV.replace("malignant", "malignnt"), TableError, r"malignnt.*did you mean malignant"),
        (CSV.replace("malignant", ""), TableError, r"empty labels.*a/2"),
        (CSV.replace(",08", ","), TableError, r"1 cases have no group.*b/1"),
        (CSV.replace("label", "diagnosis"), TableError, r"column label is missing"),
        (CSV.splitlines()[0] + "\n", TableError, r"no cases found"),
        (CSV.replace("benign,08", "benign,08,more"), TableError, r"not a readable table"),
    ],
)
def test_a_bad_table_is_told_in_one_line(
    tmp_path: Path, text: str, error: type[KitError], said: str
) -> None:
    write_csv(tmp_path, text)
    with pytest.raises(error, match=said) as found:
        entry_of(tmp_path, TABLE).cases()
    assert str(tmp_path / "data/mine/labels.csv") in str(found.value)
    assert "\n" not in str(found.value)


def test_lines_without_an_image_are_named(tmp_path: Path) -> None:
    write_csv(tmp_path, CSV)
    (tmp_path / "data/mine/a/2.png").unlink()
    with pytest.raises(MissingDataError, match=r"1 of 3 rows have no image.*a/2\.png"):
        entry_of(tmp_path, TABLE).cases()


def test_images_without_a_line_are_named(tmp_path: Path) -> None:
    root = tmp_path / "data/mine"
    touch(root, "1.png", "2.png")
    (root / "labels.csv").write_text("case_id,label\n1,benign\n", encoding="utf-8")
    entry = {**ENTRY, "pattern": "{case_id}.png", "table": "labels.csv"}
    with pytest.raises(TableError, match=r"no line in the label table.*2\.png"):
        entry_of(tmp_path, entry).cases()
    assert list(entry_of(tmp_path, {**entry, "exclude": ["2"]}).cases().case_id) == ["1"]


def test_an_unknown_class_folder_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path / "data/mine", "benign/1.png", "malignent/2.png")
    with pytest.raises(TableError, match=r"malignent.*did you mean malignant"):
        entry_of(tmp_path, FOLDERS).cases()


def test_an_empty_folder_names_pattern_and_root(tmp_path: Path) -> None:
    (tmp_path / "data/mine").mkdir(parents=True)
    with pytest.raises(TableError, match=r"no cases found.*mine/\{label\}/\{case_id\}\.png"):
        entry_of(tmp_path, FOLDERS).cases()


def test_only_test_rows_are_too_few_to_train(tmp_path: Path) -> None:
    write_csv(tmp_path, "path,label,patient_id,split\na,,1,test\n")
    with pytest.raises(TableError, match="no training cases found"):
        entry_of(tmp_path, TABLE).cases()


# The manifest itself


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"positve": "malignant"}, r"key 'positve' in dataset mine is unknown.*positive"),
        ({"group": {"unit": "x", "colum": "p"}}, r"'group\.colum'.*did you mean column"),
        ({"name": "other"}, r"key 'name'"),
        ({"positive": "cancer"}, r"positive names 'cancer'"),
        ({"positive": None}, r"positive must name"),
        ({"classes": ["a", "b", "c"]}, r"positive names 'malignant'"),
        ({"classes": [False, True]}, r"put it in quotes"),
        ({"exclude": [109]}, r"exclude.*put it in quotes"),
        ({"kind": "image"}, r"key 'kind'.*'image'"),
        ({"roots": {"kaggle": "x"}}, r"no local folder"),
        ({"pattern": "{label}/{case}.png"}, r"\{case\} in a pattern is unknown.*case_id"),
        ({"pattern": "{label}/x.png"}, r"has no \{case_id\}"),
        ({"pattern": "{case_id}.png"}, r"no labels"),
        ({"pattern": None}, r"either from arrays, or from pattern"),
        ({"pattern": "{label}/{case_id}/{series}"}, r"key series"),
        ({"labels": {"0": "bening"}}, r"labels names 'bening'"),
        ({"group": {"unit": "x", "column": "p"}}, r"group\.column needs a table"),
        ({"group": {"unit": "x", "pattern": "abc"}}, r"one pair of brackets"),
        ({"arrays": "x.npz"}, r"either from arrays"),
        ({"mask_values": {"tumour": 255, "normal": "Normal"}}, r"pixel values and groups"),
        ({"mask_values": {"tumour": 2.5}}, r"'mask_values\.tumour.*2\.5"),
        ({"mask_values": {"tumour": ["Tumor", 2]}}, r"'mask_values\.tumour"),
        ({"mask_values": {"tumour": True}}, r"'mask_values\.tumour.*True"),
    ],
)
def test_a_bad_entry_is_told_in_one_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ManifestError, match=said) as found:
        entry_of(tmp_path, {**FOLDERS, **change})
    assert "mine" in str(found.value)
    assert str(tmp_path / "data_manifest.yaml") in str(found.value)


@pytest.mark.parametrize(
    "values",
    [
        {"background": 0, "tumour": 2},
        {"tumour": "Tumor"},
        {"tumour": ["_0", "_1"], "exclude": "_2"},
    ],
)
def test_masks_are_named_by_pixel_values_or_by_groups(tmp_path: Path, values: Any) -> None:
    assert entry_of(tmp_path, {**FOLDERS, "mask_values": values}).mask_values == values


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="key 'licence' in dataset mine is missing"):
        entry_of(tmp_path, {key: value for key, value in FOLDERS.items() if key != "licence"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dataset: {}", "datasets"),
        ("datasets: {a: {}, a: {}}", "'a' stands twice"),
        ("datasets: [", "not valid YAML"),
        ("datasets: {a: 3}", "no mapping"),
    ],
)
def test_a_bad_file_is_told_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "m.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError, match=said):
        load_manifest(tmp_path / "m.yaml")


def test_an_unknown_dataset_names_the_nearest() -> None:
    with pytest.raises(ManifestError, match=r"did you mean idc_patches"):
        load_manifest().dataset("idc_patch")


def test_the_manifest_is_found_from_a_subfolder_and_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = Path(__file__).parents[1] / "data_manifest.yaml"
    monkeypatch.chdir(tmp_path)
    assert load_manifest().path == beside
    entry_of(tmp_path, FOLDERS)
    (tmp_path / "deep/er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep/er")
    assert load_manifest().path == (tmp_path / "data_manifest.yaml").resolve()


def test_an_installed_manifest_takes_data_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is looked for, drawn or written beside the code of a wheel."""
    site, project = tmp_path / "site", tmp_path / "project"
    for folder in (site, project / "data" / ENTRY["roots"]["local"]):
        folder.mkdir(parents=True)
    monkeypatch.chdir(project)
    dataset = entry_of(site, FOLDERS)
    assert home(dataset.manifest) == site.resolve()
    monkeypatch.setattr("kit.manifest.PACKAGED", dataset.manifest)
    assert home(dataset.manifest) == Path.cwd()
    assert dataset.root() == Path.cwd() / "data" / ENTRY["roots"]["local"]


def test_every_dataset_from_the_start_is_there_and_names_its_terms() -> None:
    manifest = load_manifest()
    assert set(manifest.datasets) >= {
        "synthetic_slides", "synthetic_scanners", "synthetic_patches", "idc_pseudo_slides",
        "idc_patches",
        "breakhis_200x", "breastmnist", "retinamnist", "help2019", "khd2020", "khd2019", "rsna2021",
    }  # fmt: skip
    for dataset in manifest.datasets.values():
        assert set(dataset.roots) == {"local", "kaggle", "nsml", "docker"}
        assert dataset.licence
        assert dataset.source


# The layouts of the challenges


def layout_of(name: str, folder: Path) -> Dataset:
    dataset = load_manifest().dataset(name)
    return dataset.model_copy(update={"manifest": folder / "data_manifest.yaml"})


def test_help2019_finds_masks_by_class_folder_and_needs_them_for_positives(tmp_path: Path) -> None:
    root = tmp_path / "data/help2019"
    touch(root, "train/image/negative/Slide001.mrxs", "train/image/positive/Slide002.mrxs",
          "train/mask/positive/Slide002.png", "test/Slide900.mrxs")  # fmt: skip
    cases = layout_of("help2019", tmp_path).cases()
    assert cases["mask"].tolist() == [None, "train/mask/positive/Slide002.png", None]
    assert cases.label.tolist() == ["negative", "positive", None]
    (root / "train/mask/positive/Slide002.png").unlink()
    with pytest.raises(MissingDataError, match=r"no mask.*Slide002"):
        layout_of("help2019", tmp_path).cases()
    assert list(layout_of("help2019", tmp_path).cases(labels=False).case_id) == ["Slide900"]


def test_khd2020_reads_a_table_without_header_and_its_positive_class(tmp_path: Path) -> None:
    root = tmp_path / "data/khd2020"
    touch(root, "train/train_data/0.png", "train/train_data/1.png", "test/test_data/0.png")
    (root / "train/train_label").write_text("0 1\n1 0\n", encoding="utf-8")
    cases = layout_of("khd2020", tmp_path).cases().set_index("case_id")
    assert cases.label.to_dict() == {"0": "malignant", "1": "benign", "test/test_data/0": None}


def test_khd2019_groups_both_eyes_of_a_person(tmp_path: Path) -> None:
    names = ("NOR/Wide_NOR_001_R.jpg", "NOR/Wide_NOR_001_L.jpg", "AMD/Wide_AMD_017_R.jpg")
    touch(tmp_path / "data/khd2019/train", *names)
    cases = layout_of("khd2019", tmp_path).cases()
    assert list(cases.group) == ["017", "001", "001"]
    touch(tmp_path / "data/khd2019/train", "NOR/other.jpg")
    with pytest.raises(TableError, match=r"no group.*other"):
        layout_of("khd2019", tmp_path).cases()


def studies(root: Path, part: str, *ids: str, series: tuple[str, ...] = ("FLAIR", "T1wCE")) -> None:
    touch(root, *(f"{part}/{name}/{one}/Image-1.dcm" for name in ids for one in series))


def test_rsna2021_joins_padded_ids_and_drops_the_withdrawn(tmp_path: Path) -> None:
    root = tmp_path / "data/rsna2021"
    studies(root, "train", "00000", "00012", "00109")
    studies(root, "test", "00001")
    (root / "train_labels.csv").write_text(
        "BraTS21ID,MGMT_value\n0,1\n12,0\n109,1\n", encoding="utf-8"
    )
    cases = layout_of("rsna2021", tmp_path).cases()
    assert list(cases.case_id) == ["00000", "00001", "00012"]
    assert list(cases.path)[:2] == ["train/00000/T1wCE", "test/00001/T1wCE"]
    assert cases.label.tolist() == ["methylated", None, "unmethylated"]
    assert set(cases.series) == {"FLAIR,T1wCE"}


def test_a_study_without_its_series_is_never_dropped_in_silence(tmp_path: Path) -> None:
    root = tmp_path / "data/rsna2021"
    studies(root, "train", "00000")
    studies(root, "test", "00001", series=("FLAIR",))
    (root / "train_labels.csv").write_text("BraTS21ID,MGMT_value\n0,1\n", encoding="utf-8")
    with pytest.raises(MissingDataError, match="00001/T1wCE"):
        layout_of("rsna2021", tmp_path).cases()


def test_a_mask_beside_its_slide_is_no_slide(tmp_path: Path) -> None:
    touch(tmp_path / "data/slides/idc_pseudo_slides", "1.tif", "1_mask.tif", "1.xml")
    cases = layout_of("idc_pseudo_slides", tmp_path).cases()
    assert cases.to_dict("records") == [
        {"case_id": "1", "path": "1.tif", "label": "tumour", "group": "1", "split": "train",
         "mask": "1_mask.tif"}
    ]  # fmt: skip


# Arrays


def arrays(folder: Path, **content: np.ndarray) -> Dataset:
    (folder / "data/mine").mkdir(parents=True, exist_ok=True)
    np.savez(folder / "data/mine/x.npz", **content)  # type: ignore[arg-type]
    entry = {**ENTRY, "kind": "arrays", "arrays": "x.npz", "labels": {0: "malignant", 1: "benign"}}
    return entry_of(folder, entry)


def images(n: int) -> np.ndarray:
    return np.zeros((n, 4, 4), np.uint8)


def test_arrays_train_on_train_and_val_and_never_read_test_labels(tmp_path: Path) -> None:
    dataset = arrays(
        tmp_path, train_images=images(2), train_labels=np.array([[0], [1]]),
        val_images=images(1), val_labels=np.array([[1]]),
        test_images=images(2), test_labels=np.array(["unheard", "of"]),
    )  # fmt: skip
    cases = dataset.cases()
    ids = ["test_00000", "test_00001", "train_00000", "train_00001", "val_00000"]
    assert list(cases.case_id) == ids
    assert cases.label.tolist() == [None, None, "malignant", "benign", "benign"]
    assert list(cases.split) == ["test", "test", "train", "train", "train"]
    assert list(cases["index"]) == [0, 1, 0, 1, 0]
    assert list(cases.part) == ["test", "test", "train", "train", "val"]
    assert list(dataset.cases(labels=False).case_id) == ["test_00000", "test_00001"]


def test_arrays_without_labels_are_all_test_rows(tmp_path: Path) -> None:
    cases = arrays(tmp_path, train_images=images(2)).cases(labels=False)
    assert list(cases.split) == ["test", "test"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"train_images": images(2)}, "train_labels"),
        ({"train_images": images(2), "train_labels": np.zeros(3, int)}, "differ in number"),
        ({"train_images": images(2), "train_labels": np.array([0, 7])}, "unknown labels.*7"),
        ({"x": images(2)}, "no images"),
    ],
)
def test_bad_arrays_are_told(tmp_path: Path, content: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(TableError, match=said):
        arrays(tmp_path, **content).cases()


# Drawn data


@pytest.mark.parametrize(
    "name",
    [
        "synthetic_slides",
        "synthetic_scanners",
        "synthetic_patches",
        "synthetic_fundus",
        "synthetic_mri",
    ],
)
def test_drawn_sets_are_laid_out_as_the_manifest_says(tmp_path: Path, name: str) -> None:
    from kit.synthetic import make

    dataset = layout_of(name, tmp_path)
    make(name, tmp_path / "data" / dataset.roots["local"], scale=0.05)
    cases = dataset.cases()
    assert set(cases.label.dropna()) == set(dataset.classes)
    assert cases.split.eq("test").any() == (name != "synthetic_fundus")
    assert cases.group.nunique() > 2


# Real data

SETS = [
    ("idc_patches", 5861, 160, {"normal": 4370, "idc": 1491}),
    ("breakhis_200x", 268, 16, {"benign": 129, "malignant": 139}),
    ("breastmnist", 624, 624, {"benign": 456, "malignant": 168}),
    ("retinamnist", 1200, 1200,
     {"grade_0": 540, "grade_1": 140, "grade_2": 234, "grade_3": 214, "grade_4": 72}),
    ("idc_pseudo_slides", 2, 2, {"tumour": 2}),
]  # fmt: skip


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "cases", "groups", "counts"), SETS)
def test_real_sets_have_their_published_counts(
    real_data: Path, name: str, cases: int, groups: int, counts: dict[str, int]
) -> None:
    table = load_manifest().dataset(name).cases(real_data)
    assert len(table) == cases
    assert table.group.nunique() == groups
    assert table.label.value_counts().to_dict() == counts
    assert table.case_id.is_unique
    assert set(table.split) == {"train"}


@pytest.mark.real_data
def test_a_copy_of_idc_with_test_patients_needs_none_of_their_labels(
    real_data: Path, tmp_path: Path
) -> None:
    source = real_data / "patches/idc"
    table = pd.read_csv(source / "labels.csv", dtype=str)
    chosen = table.patient_id.isin(sorted(table.patient_id.unique())[:40])
    table["split"] = np.where(chosen, "test", "")
    table["label"] = table.label.mask(chosen)
    copy = tmp_path / "patches/idc"
    copy.mkdir(parents=True)
    for patient in table.patient_id.unique():
        (copy / patient).symlink_to(source / patient, target_is_directory=True)
    table.to_csv(copy / "labels.csv", index=False)
    cases = load_manifest().dataset("idc_patches").cases(tmp_path)
    assert cases.split.eq("test").sum() == chosen.sum()
    assert cases.label.isna().equals(cases.split.eq("test"))
    assert cases.loc[cases.split.eq("test"), "group"].nunique() == 40
