from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import series, slice_file
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing
from pydicom.uid import JPEGLSLossless, RLELossless

from kit.dicom import look, middle_slices, read_series, to_uint8
from kit.errors import ImageError, SettingsError


def test_slices_are_sorted_by_place_and_not_by_name_or_number(tmp_path: Path) -> None:
    found = read_series(series(tmp_path, [6, 2, 8, 4]))
    assert found.volume.shape == (4, 4, 6)
    assert found.volume.dtype == np.float32
    assert found.volume[:, 0, 0].tolist() == [20, 40, 60, 80]
    assert found.positions.tolist() == [2, 4, 6, 8]
    assert found.spacing == (2.0, 0.5, 0.75)
    assert found.warnings == ()


def test_slices_of_a_tilted_plane_are_sorted_along_its_normal(tmp_path: Path) -> None:
    sagittal = [0, 1, 0, 0, 0, -1]  # its normal is -x
    for i, x in enumerate([3, 1, 2]):
        slice_file(
            tmp_path / f"{i}.dcm", np.full((2, 2), x),
            ImagePositionPatient=[x, 50, -7], ImageOrientationPatient=sagittal,
        )  # fmt: skip
    assert read_series(tmp_path).volume[:, 0, 0].tolist() == [3, 2, 1]


@pytest.mark.parametrize(
    ("element", "value", "said"),
    [("PatientID", "another", r"different patients.*must not mix"),
     ("PixelSpacing", [0.6, 0.75], r"differ in pixel spacing.*folder of its own")],
)  # fmt: skip
def test_a_slice_of_another_patient_or_spacing_is_refused_by_name(
    element: str, value: object, said: str, tmp_path: Path
) -> None:
    folder = series(tmp_path, [1, 2, 3], PatientID="one")
    odd = sorted(folder.glob("*.dcm"))[-1]
    data = pydicom.dcmread(odd)
    setattr(data, element, value)
    data.save_as(odd)
    for reading in (read_series, look):
        with pytest.raises(ImageError, match=said) as told:
            reading(folder)
        assert told.value.path == str(odd)


def test_a_slice_of_another_series_is_told(tmp_path: Path) -> None:
    folder = series(tmp_path, [1, 2, 3], SeriesInstanceUID="1.2")
    odd = sorted(folder.glob("*.dcm"))[-1]
    data = pydicom.dcmread(odd)
    data.SeriesInstanceUID = "1.3"
    data.save_as(odd)
    (warned,) = read_series(folder).warnings
    assert warned.startswith("another series than that of") and odd.name in warned


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    folder = series(tmp_path, [1, 2], RescaleSlope=0.5, RescaleIntercept=-100)
    assert read_series(folder).volume[:, 0, 0].tolist() == [-95, -90]


def test_monochrome1_is_turned_so_that_bright_is_high_and_black_is_0(tmp_path: Path) -> None:
    folder = series(tmp_path, [1, 2, 4], PhotometricInterpretation="MONOCHROME1")
    assert read_series(folder).volume[:, 0, 0].tolist() == [30, 20, 0]


def test_without_positions_the_numbers_order_the_slices_and_a_warning_says_so(
    tmp_path: Path,
) -> None:
    for name, number in {"a": 3, "b": 1, "c": 2}.items():
        slice_file(tmp_path / f"{name}.dcm", np.full((2, 2), number), InstanceNumber=number)
    found = read_series(tmp_path)
    assert found.volume[:, 0, 0].tolist() == [1, 2, 3]
    assert "instance number" in found.warnings[0]
    assert np.isnan(found.spacing[0])
    slice_file(tmp_path / "d.dcm", np.full((2, 2), 4))
    assert "file name" in read_series(tmp_path).warnings[0]


def test_a_gap_and_a_duplicate_are_named(tmp_path: Path) -> None:
    found = read_series(series(tmp_path, [0, 5, 10, 10, 20]))
    assert found.volume[:, 0, 0].tolist() == [0, 50, 100, 200]
    assert len(found.warnings) == 2 + 1  # the number that was left out is missed as well
    assert "Image-4.dcm" in found.warnings[0]
    assert "gap of 10 between Image-3.dcm and Image-5.dcm" in found.warnings[1]


def test_missing_instance_numbers_are_counted(tmp_path: Path) -> None:
    series(tmp_path, [0, 1, 2, 3])
    (tmp_path / "Image-2.dcm").unlink()
    assert any("1 instance numbers are missing" in w for w in read_series(tmp_path).warnings)


def test_one_slice_and_a_list_of_files_are_series_too(tmp_path: Path) -> None:
    series(tmp_path, [3, 1])
    assert read_series(tmp_path / "Image-1.dcm").volume.shape == (1, 4, 6)
    both = read_series([tmp_path / "Image-1.dcm", str(tmp_path / "Image-2.dcm")])
    assert both.positions.tolist() == [1, 3]


def test_the_frames_of_a_multi_frame_file_stand_in_their_places(tmp_path: Path) -> None:
    groups = []
    for z in (2.0, 1.0):
        place, group = Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, z]
        group.PlanePositionSequence = [place]
        groups.append(group)
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = [2, 3]
    shared.PixelMeasuresSequence = [measures]
    path = slice_file(
        tmp_path / "a.dcm", np.stack([np.full((4, 6), 20), np.full((4, 6), 10)]),
        NumberOfFrames=2, PerFrameFunctionalGroupsSequence=groups,
        SharedFunctionalGroupsSequence=[shared],
    )  # fmt: skip
    found = read_series(path)
    assert found.volume[:, 0, 0].tolist() == [10, 20]
    assert found.spacing == (1.0, 2.0, 3.0)


def test_mixed_sizes_and_mixed_orientations_are_refused_by_name(tmp_path: Path) -> None:
    series(tmp_path / "size", [1, 2])
    slice_file(tmp_path / "size" / "odd.dcm", np.zeros((5, 6)))
    with pytest.raises(ImageError, match=r"size.*odd\.dcm"):
        read_series(tmp_path / "size")
    series(tmp_path / "plane", [1, 2])
    slice_file(
        tmp_path / "plane" / "odd.dcm", np.zeros((4, 6)), ImageOrientationPatient=[0, 1, 0, 0, 0, 1]
    )
    with pytest.raises(ImageError, match=r"orientation.*odd\.dcm"):
        read_series(tmp_path / "plane")


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 0.99])
def test_a_file_cut_off_is_refused_by_name(tmp_path: Path, share: float) -> None:
    path = slice_file(tmp_path / "cut.dcm", np.zeros((30, 30)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"cut\.dcm"):
        read_series(path)


def test_a_header_cut_at_any_byte_is_no_other_error(tmp_path: Path) -> None:
    path = slice_file(tmp_path / "cut.dcm", np.zeros((4, 4)), ImagePositionPatient=[1, 2, 3])
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ImageError, match=r"cut\.dcm"):
            read_series(path)
        with contextlib.suppress(ImageError):  # what stands before the cut may be a whole header
            look(path)


def test_nothing_and_what_is_no_dicom_are_refused(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ImageError, match="no"):
            read_series(source)
    with pytest.raises(ImageError, match="empty list"):
        read_series([])
    (tmp_path / "notes.txt").write_text("no slice")
    with pytest.raises(ImageError, match=r"notes\.txt"):
        read_series(tmp_path)
    series(tmp_path, [1, 2])  # beside slices, other files do not count
    assert len(read_series(tmp_path).volume) == 2


def test_colour_is_refused(tmp_path: Path) -> None:
    path = slice_file(
        tmp_path / "rgb.dcm", np.zeros((2, 2)), SamplesPerPixel=3, PhotometricInterpretation="RGB"
    )
    with pytest.raises(ImageError, match=r"RGB.*rgb\.dcm"):
        read_series(path)


def test_a_missing_decoder_names_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydicom.pixels.decoders.base import Decoder

    path = slice_file(tmp_path / "ls.dcm", np.zeros((2, 2)))
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = JPEGLSLossless
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    data["PixelData"].VR = "OB"
    data.save_as(path)
    monkeypatch.setattr(Decoder, "is_available", property(lambda self: False))
    with pytest.raises(ImageError, match=r"JPEG-LS.*ls\.dcm.*pip install pyjpegls"):
        read_series(path)


def test_headers_alone_tell_the_slices_and_what_is_odd_with_them(tmp_path: Path) -> None:
    folder = series(tmp_path, [0, 5, 10, 10, 20])
    found = read_series(folder)
    assert look(folder) == (len(found.volume), found.warnings)
    cut = folder / "Image-2.dcm"
    cut.write_bytes(cut.read_bytes()[:-20])
    assert look(folder)[0] == 4  # the pixels' end is not looked at
    with pytest.raises(ImageError, match=r"Image-2\.dcm"):
        read_series(folder)
    with pytest.raises(ImageError, match="no DICOM file"):
        look(_empty(tmp_path / "empty"))


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_one_picture_stored_in_three_ways_is_read_as_the_same_picture(tmp_path: Path) -> None:
    picture = np.arange(24).reshape(4, 6) * 100
    stored = {
        "plain": (picture, {}),
        "slope": (picture // 2, {"RescaleSlope": 2, "RescaleIntercept": 0}),
        "intercept": (picture + 1000, {"RescaleIntercept": -1000}),
        "inverted": (2300 - picture, {"PhotometricInterpretation": "MONOCHROME1"}),
    }
    for name, (pixels, elements) in stored.items():
        path = slice_file(tmp_path / f"{name}.dcm", pixels, **elements)
        np.testing.assert_array_equal(read_series(path).volume[0], picture, err_msg=name)


def test_a_slope_that_leaves_no_image_is_refused(tmp_path: Path) -> None:
    path = slice_file(tmp_path / "a.dcm", np.ones((2, 2)), RescaleSlope=0, RescaleIntercept=5)
    with pytest.raises(ImageError, match=r"slope 0.*a\.dcm"):
        read_series(path)


def test_a_lookup_table_of_the_scanner_is_applied(tmp_path: Path) -> None:
    path = slice_file(tmp_path / "a.dcm", np.array([[0, 1], [2, 3]]))
    data = pydicom.dcmread(path)
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4, 0, 16], [10, 20, 40, 80]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    data.ModalityLUTSequence = [table]
    data.save_as(path)
    assert read_series(path).volume[0].tolist() == [[10, 20], [40, 80]]


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT"])
def test_the_window_is_that_of_pydicom(tmp_path: Path, function: str) -> None:
    values = np.array([[0, 60, 100], [140, 200, 900]])
    path = slice_file(
        tmp_path / "a.dcm", values, WindowCenter=100, WindowWidth=80, VOILUTFunction=function
    )
    low, high = read_series(path).window or (0, 0)
    ours = np.clip((values - low) / (high - low), 0, 1)
    theirs = apply_windowing(values.astype("<u2"), pydicom.dcmread(path)) / 65535
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_window_of_a_series_is_the_median_and_turns_with_monochrome1(tmp_path: Path) -> None:
    for i, width in enumerate([101, 201, 901]):
        slice_file(
            tmp_path / "plain" / f"{i}.dcm", np.full((2, 2), 100 * i),
            ImagePositionPatient=[0, 0, i], WindowCenter=100.5, WindowWidth=width,
        )  # fmt: skip
    assert read_series(tmp_path / "plain").window == (0, 200)
    assert read_series(series(tmp_path / "none", [1, 2])).window is None
    folder = series(
        tmp_path / "turned", [1, 3], PhotometricInterpretation="MONOCHROME1",
        WindowCenter=[20.5, 7], WindowWidth=[11, 7],
    )  # fmt: skip
    assert read_series(folder).window == (5, 15)  # stored 15 to 25, of which 30 is black


def test_a_file_without_position_among_others_orders_by_number(tmp_path: Path) -> None:
    folder = series(tmp_path, [3, 1, 2])
    slice_file(folder / "Image-2.dcm", np.full((4, 6), 7), InstanceNumber=2)
    found = read_series(folder)
    assert found.volume[:, 0, 0].tolist() == [30, 7, 20]
    assert np.isnan(found.spacing[0]) and np.isnan(found.corners).all()


@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_a_compressed_file_cut_off_is_refused_by_name(tmp_path: Path, share: float) -> None:
    path = slice_file(tmp_path / "rle.dcm", np.random.default_rng(0).integers(0, 999, (64, 64)))
    data = pydicom.dcmread(path)
    data.compress(RLELossless)
    data.save_as(path)
    whole = read_series(path).volume
    assert whole.shape == (1, 64, 64)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ImageError, match=r"rle\.dcm"):
        read_series(path)


def test_middle_slices_leave_out_the_ends() -> None:
    assert middle_slices(16).tolist() == [4, 7, 10]
    assert middle_slices(9).tolist() == [2, 3, 4, 5]
    assert middle_slices(10).tolist() == [2, 5]
    assert middle_slices(1).tolist() == [0]
    assert middle_slices(20, low=0, high=1, step=5).tolist() == [0, 5, 10, 15]
    for wrong in ({"n": 0}, {"n": 4, "low": 25}, {"n": 40, "step": 0}):
        with pytest.raises(SettingsError):
            middle_slices(**wrong)  # type: ignore[arg-type]


def test_scaling_takes_the_maximum_of_the_volume() -> None:
    volume = np.array([[[0.0, 50.0]], [[-9.0, 100.0]]], dtype=np.float32)
    assert to_uint8(volume).tolist() == [[[0, 128]], [[0, 255]]]
    assert to_uint8(volume[0], maximum=100).tolist() == [[0, 128]]
    assert to_uint8(volume[0]).tolist() == [[0, 255]]
    assert to_uint8(np.full((2, 2), -5.0)).tolist() == [[0, 0], [0, 0]]


@pytest.mark.real_data
def test_a_real_head_is_read_in_order(real_data: Path) -> None:
    found = read_series(real_data / "dicom/t1_mprage")
    assert found.volume.shape == (88, 256, 256)
    assert found.spacing == pytest.approx((2, 1, 1))
    assert found.warnings == ("87 instance numbers are missing between 1 and 175",)
    image = to_uint8(found.volume)[middle_slices(88)]
    assert len(image) == 15
    assert image.max() > 100
    # Neighbours in space resemble each other more than slices far apart.
    near = np.abs(np.diff(found.volume, axis=0)).mean()
    assert near < np.abs(found.volume[44:] - found.volume[:44]).mean()


@pytest.mark.real_data
def test_real_transfer_syntaxes_hold_the_same_slice(real_data: Path) -> None:
    folder = real_data / "dicom/syntaxes"
    plain = read_series(folder / "MR_small.dcm").volume
    for name in ("RLE", "bigendian", "implicit", "jp2klossless"):
        np.testing.assert_array_equal(read_series(folder / f"MR_small_{name}.dcm").volume, plain)
    assert len(read_series(folder / "emri_small.dcm").volume) == 10
    try:
        values = read_series(folder / "MR_small_jpeg_ls_lossless.dcm").volume
    except ImageError as error:  # no plugin of pydicom is installed for it
        assert "JPEG-LS" in str(error) and "pip install pyjpegls" in str(error)
    else:
        np.testing.assert_array_equal(values, plain)


@pytest.mark.real_data
def test_real_broken_series_are_warned_of_or_refused(real_data: Path) -> None:
    broken = real_data / "dicom/broken_series"
    increment = read_series(broken / "sliceincrement/001")
    (said,) = increment.warnings
    assert "gap of 10 between IM-0001-0009-0001.dcm and IM-0001-0010-0001.dcm" in said
    assert increment.spacing[0] == pytest.approx(5)
    with pytest.raises(ImageError, match="orientation"):
        read_series(broken / "sliceorientation/001")
    with pytest.raises(ImageError, match="MR_truncated"):
        read_series(real_data / "dicom/syntaxes/MR_truncated.dcm")
