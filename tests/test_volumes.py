"""Series as images: scaled, with neighbours, or one place in all series; worked by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_files import series, slice_file

from kit.dicom import read_series
from kit.errors import ImageError, SettingsError
from kit.volumes import limits, notes, onto, same_space, scaled, study_slices

AXIAL = [1, 0, 0, 0, 1, 0]
SAGITTAL = [0, 1, 0, 0, 0, -1]
"""Columns go along y, rows against z, slices against x."""


def value(place: np.ndarray) -> np.ndarray:
    """A value that is linear in space, so that linear interpolation is exact."""
    return place @ np.array([3.0, 5.0, 7.0]) + 1000


def grid(
    folder: Path, corner: tuple[float, ...], axes: list[float], spacing: tuple[float, float],
    size: tuple[int, int], slices: int, step: float, **elements: object,
) -> Path:  # fmt: skip
    """Write a series of `value` on a grid of (row spacing, column spacing) and (height, width)."""
    right, down = np.array(axes[:3], float), np.array(axes[3:], float)
    normal = np.cross(right, down)
    rows, columns = np.mgrid[: size[0], : size[1]]
    for i in range(slices):
        at = np.array(corner) + i * step * normal
        place = at + columns[..., None] * spacing[1] * right + rows[..., None] * spacing[0] * down
        slice_file(
            folder / f"Image-{i + 1}.dcm", value(place), ImagePositionPatient=at.tolist(),
            ImageOrientationPatient=axes, PixelSpacing=list(spacing), InstanceNumber=i + 1,
            **elements,
        )  # fmt: skip
    return folder


def test_white_is_the_maximum_the_window_or_a_percentile(tmp_path: Path) -> None:
    pixels = np.arange(1000).reshape(20, 50)
    found = read_series(slice_file(tmp_path / "a.dcm", pixels, WindowCenter=100.5, WindowWidth=101))
    assert limits(found, "maximum") == (0, 999)
    assert limits(found, "window") == (50, 150)
    assert limits(found, "percentile") == (0, pytest.approx(0.995 * 999))
    assert scaled(np.array([40.0, 50, 100, 150, 999]), 50, 150).tolist() == [0, 0, 128, 255, 255]
    with pytest.raises(SettingsError, match="scaling"):
        limits(found, "minimum")


def test_one_bright_voxel_darkens_the_maximum_and_not_the_percentile(tmp_path: Path) -> None:
    pixels = np.full((20, 20), 100)
    pixels[0, 0] = 4000
    found = read_series(slice_file(tmp_path / "a.dcm", pixels))
    grey = {name: scaled(found.volume, *limits(found, name))[0, 9, 9] for name in
            ("maximum", "percentile")}  # fmt: skip
    assert grey == {"maximum": 6, "percentile": 255}


def test_a_black_series_and_one_without_a_window_are_refused_by_name(tmp_path: Path) -> None:
    slice_file(tmp_path / "black" / "a.dcm", np.zeros((4, 4)))
    with pytest.raises(ImageError, match=r"black.*File: .*black"):
        study_slices(tmp_path / "black", [0])
    slice_file(tmp_path / "bare" / "a.dcm", np.ones((4, 4)))
    with pytest.raises(ImageError, match=r"no window.*File: .*bare"):
        study_slices(tmp_path / "bare", [0], scaling="window")


def test_neighbours_are_the_slices_below_and_above_and_an_end_stands_for_itself(
    tmp_path: Path,
) -> None:
    folder = series(tmp_path, [5.1, 10.2, 25.5])  # 51, 102 and 255 of 255
    assert study_slices(folder, [1])[0, 0, 0].tolist() == [102]
    found = study_slices(folder, [0, 1, 2], channels="neighbours")
    assert found.shape == (3, 4, 6, 3)
    assert found[:, 0, 0].tolist() == [[51, 51, 102], [51, 102, 255], [102, 255, 255]]


def test_a_series_on_another_grid_is_read_at_the_same_places(tmp_path: Path) -> None:
    fixed = read_series(grid(tmp_path / "fixed", (2, 3, 4), AXIAL, (1, 1.5), (6, 8), 4, 2))
    coarse = read_series(grid(tmp_path / "coarse", (0, 0, 0), AXIAL, (2, 3), (8, 9), 5, 3))
    turned = read_series(grid(tmp_path / "turned", (20, 0, 14), SAGITTAL, (2, 2), (9, 9), 8, 3))
    assert turned.positions[0] == -20  # its normal goes against x
    for moving in (fixed, coarse, turned):
        assert same_space(moving, fixed)
        found = onto(moving, fixed, [0, 3])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, fixed.volume[[0, 3]], atol=1)  # stored as whole numbers


def test_where_a_series_does_not_reach_it_is_black(tmp_path: Path) -> None:
    fixed = read_series(grid(tmp_path / "fixed", (0, 0, 0), AXIAL, (1, 1), (6, 6), 4, 2))
    small = read_series(grid(tmp_path / "small", (2, 0, 0), AXIAL, (1, 1), (6, 4), 2, 2))
    found = onto(small, fixed, [0, 1, 2, 3])
    assert (found[2:] == 0).all() and (found[:, :, :1] == 0).all()
    np.testing.assert_allclose(found[:2, :, 2:], fixed.volume[:2, :, 2:])


def test_without_a_common_space_the_same_relative_place_is_taken(tmp_path: Path) -> None:
    fixed = read_series(series(tmp_path / "fixed", [1, 2, 3, 4, 5], FrameOfReferenceUID="1.2"))
    other = read_series(series(tmp_path / "other", [10, 20, 30], FrameOfReferenceUID="1.3"))
    assert not same_space(other, fixed)
    assert onto(other, fixed, [0, 2, 4])[:, 0, 0].tolist() == [100, 200, 300]
    bare = read_series(series(tmp_path / "bare", [1, 2], ImageOrientationPatient=None))
    assert not same_space(bare, fixed)


def test_a_channel_for_each_series_in_its_order_and_black_where_one_is_missing(
    tmp_path: Path,
) -> None:
    for name, heights in {"A": [1, 2, 4], "C": [2, 4, 8]}.items():
        for i, z in enumerate(heights):
            slice_file(
                tmp_path / name / f"{i}.dcm", np.full((4, 6), z), ImagePositionPatient=[0, 0, i],
                InstanceNumber=i + 1,
            )  # fmt: skip
    found = study_slices(tmp_path / "C", [0, 2], channels="series", names=("A", "B", "C"))
    assert found[:, 0, 0].tolist() == [[64, 0, 64], [255, 0, 255]]
    assert notes(tmp_path / "C", "series", ("A", "B", "C")) == (
        3, "B: not there, its channel is black",
    )  # fmt: skip
    assert notes(tmp_path / "C") == (3, "")


def test_notes_name_the_series_that_is_odd(tmp_path: Path) -> None:
    series(tmp_path / "A", [0, 1, 2])
    series(tmp_path / "B", [0, 1, 2, 9])
    assert notes(tmp_path / "A", "series", ("A", "B"))[1].startswith("B: gap of 7 between")
    (tmp_path / "E").mkdir()  # as if it were not there
    assert notes(tmp_path / "A", "series", ("A", "E")) == (
        3, "E: not there, its channel is black",
    )  # fmt: skip


@pytest.mark.real_data
def test_a_real_head_lies_where_it_lies(real_data: Path) -> None:
    found = read_series(real_data / "dicom/t1_mprage")
    np.testing.assert_allclose(onto(found, found, [20, 60]), found.volume[[20, 60]], atol=0.05)
    images = study_slices(real_data / "dicom/t1_mprage", [44], scaling="percentile")
    assert images.shape == (1, 256, 256, 1)
    assert images.max() == 255 and np.median(images[images > 20]) > 60
