from __future__ import annotations

import json
import logging
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tifffile

from kit import polygons
from kit.annotations import read_mask
from kit.errors import MaskError, SlideError
from kit.slides import open_slide

IDC = {"background": 0, "normal": 1, "tumour": 2}
HELP = SimpleNamespace(  # Slide001 of HeLP 2019
    size=(93970, 234042), bounds=(7756, 39069, 85052, 160111), mpp=0.25, path=Path("Slide001.mrxs")
)


@pytest.fixture
def slide():
    return open_slide(np.full((385, 513, 3), 255, np.uint8))


def save(path, mask):
    if path.suffix == ".tif":
        tifffile.imwrite(path, mask)
    else:
        cv2.imwrite(str(path), mask)
    return path


def scanned(width=4000, height=3000, bounds=None):
    """A slide as far as masks are concerned."""
    bounds = bounds or (0, 0, width, height)
    return SimpleNamespace(size=(width, height), bounds=bounds, mpp=0.5, path=Path("slide.mrxs"))


def asap(folder, **groups):
    """An ASAP file of boxes (left, top, right, bottom) by group, in this order."""
    text = "".join(
        f'<Annotation Name="{group}" Type="Polygon" PartOfGroup="{group}"><Coordinates>'
        f'<Coordinate Order="0" X="{left}" Y="{top}"/><Coordinate Order="1" X="{right}" Y="{top}"/>'
        f'<Coordinate Order="2" X="{right}" Y="{bottom}"/>'
        f'<Coordinate Order="3" X="{left}" Y="{bottom}"/></Coordinates></Annotation>'
        for group, boxes in groups.items() for left, top, right, bottom in boxes
    )  # fmt: skip
    path = folder / "a.xml"
    path.write_text(f"<ASAP_Annotations><Annotations>{text}</Annotations></ASAP_Annotations>")
    return path


def qupath(folder, *boxes):
    """A GeoJSON file of boxes of the class Tumor."""
    shapes = [
        polygons.Polygon("Tumor", np.array([(a, b), (c, b), (c, d), (a, d)], float))
        for a, b, c, d in boxes
    ]
    path = folder / "a.geojson"
    path.write_text(json.dumps(polygons.to_geojson(shapes)))
    return path


def indexed(path, indices, palette, depth=8):
    """Save a PNG of a palette, written by hand: OpenCV writes none."""
    height, width = indices.shape
    bits = np.unpackbits(indices[..., None], axis=2)[..., 8 - depth :].reshape(height, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=1))
    header = struct.pack(">IIBBBBB", width, height, depth, 3, 0, 0, 0)
    parts = [(b"IHDR", header), (b"PLTE", bytes(palette)), (b"IDAT", zlib.compress(rows))]
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in [*parts, (b"IEND", b"")]:
        check = struct.pack(">I", zlib.crc32(kind + content))
        data += struct.pack(">I", len(content)) + kind + content + check
    path.write_bytes(data)
    return path


def drawn(width: int, height: int, value: int = 255) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[height // 2 :, : width // 2] = value
    return mask


@pytest.mark.parametrize("name", ["mask.png", "mask.tif"])
def test_a_mask_is_read_in_the_frame_of_its_slide(tmp_path, slide, name):
    mask = read_mask(save(tmp_path / name, drawn(256, 192)), slide)
    assert mask.downsample == (2.0, 2.0)
    fractions = mask.fraction([(0, 192), (0, 0), (224, 192), (100, 160)], 64)
    assert fractions.tolist() == [1.0, 0.0, 0.5, 0.5]
    assert mask.share("tumour") == 0.25


def test_a_mask_may_have_equal_channels_but_no_colours(tmp_path, slide):
    mask = np.repeat(drawn(513, 385)[..., None], 3, axis=2)
    assert read_mask(save(tmp_path / "rgb.png", mask), slide).share("tumour") > 0.2
    mask[..., 0] = 7
    with pytest.raises(MaskError, match=r"one channel of integers.*rgb\.png"):
        read_mask(save(tmp_path / "rgb.png", mask), slide)


def test_a_bool_mask_has_the_value_1(tmp_path, slide):
    path = save(tmp_path / "mask.tif", drawn(513, 385) > 0)
    assert read_mask(path, slide, values={"tumour": 1}).share("tumour") > 0.2


def test_each_named_value_has_its_own_fraction(tmp_path, slide):
    labels = drawn(256, 192, 2) + drawn(256, 192, 1)[::-1]
    mask = read_mask(save(tmp_path / "mask.png", labels), slide, values=IDC)
    xy = [(0, 0), (0, 300), (300, 0)]
    assert mask.fraction(xy, 64).tolist() == [0.0, 1.0, 0.0]
    assert mask.fraction(xy, 64, "normal").tolist() == [1.0, 0.0, 0.0]
    assert mask.fraction(xy, 64, "background").tolist() == [0.0, 0.0, 1.0]
    with pytest.raises(MaskError, match=r"did you mean tumour\?"):
        mask.fraction(xy, 64, "tumor")


def test_another_shape_is_refused_with_both_expected_shapes(tmp_path, slide):
    slide.properties = {
        "openslide.bounds-x": "13", "openslide.bounds-y": "85",
        "openslide.bounds-width": "400", "openslide.bounds-height": "200",
    }  # fmt: skip
    path = save(tmp_path / "other.png", drawn(200, 192))
    with pytest.raises(MaskError) as found:
        read_mask(path, slide, frame="slide")
    for part in ("200 x 150 of the whole slide", "200 x 100 cropped", "200 x 192", "other.png"):
        assert part in str(found.value)


def test_a_mask_cropped_to_the_bounds_is_shifted_to_them(tmp_path, slide):
    slide.properties = {
        "openslide.bounds-x": "13", "openslide.bounds-y": "85",
        "openslide.bounds-width": "400", "openslide.bounds-height": "200",
    }  # fmt: skip
    path = save(tmp_path / "mask.png", drawn(200, 100))
    mask = read_mask(path, slide, frame="bounds")
    assert mask.origin_level0 == (13, 85)
    assert mask.fraction([(13, 185), (0, 185), (13, 85)], 52).tolist() == [1.0, 0.75, 0.0]
    with pytest.raises(MaskError, match=r"another shape.*frame=slide"):
        read_mask(path, slide, frame="slide")


def test_the_frame_of_a_mask_is_told_by_its_shape(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    mask = np.zeros((10007, 5316), np.uint8)
    mask[100, 200] = 255
    path = save(tmp_path / "Slide001.png", mask)
    found = read_mask(path, HELP)
    assert found.origin_level0 == (7756, 39069)
    assert found.downsample == (16.0, 16.0)
    at = (7756 + 200 * 16, 39069 + 100 * 16)
    assert found.fraction([at, (at[0] - 16, at[1]), (at[0] + 8, at[1])], 16).tolist() == [1, 0, 0.5]
    assert caplog.messages == [
        "Slide001.png: by its shape, the mask is cropped to the slide's bounds"
    ]
    assert read_mask(path, HELP, frame="bounds").origin_level0 == (7756, 39069)


def test_a_mask_of_the_whole_slide_is_told_from_one_of_its_bounds(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = save(tmp_path / "mask.png", np.zeros((14628, 5873), np.uint8))
    assert read_mask(path, HELP).origin_level0 == (0, 0)
    assert read_mask(path, HELP).downsample == (16.0, 16.0)
    assert caplog.messages == []


def test_a_mask_that_fits_neither_frame_is_told_both_shapes(tmp_path):
    path = save(tmp_path / "mask.png", np.zeros((5316, 10007), np.uint8))
    with pytest.raises(MaskError) as found:
        read_mask(path, HELP)
    for part in ("93970 x 234042", "85052 x 160111", "10007 x 5316", "mask.png"):
        assert part in str(found.value)


def test_a_mask_that_fits_both_frames_asks_which(tmp_path):
    path = save(tmp_path / "mask.png", drawn(100, 75))
    shrunk = scanned(bounds=(500, 300, 2000, 1500))
    with pytest.raises(MaskError, match=r'100 x 75, fits both.*frame="slide" or frame="bounds"'):
        read_mask(path, shrunk)
    assert read_mask(path, shrunk, frame="slide").downsample == (40, 40)
    assert read_mask(path, shrunk, frame="bounds").downsample == (20, 20)
    assert read_mask(path, scanned()).downsample == (40, 40)
    assert read_mask(path, scanned(bounds=(0, 0, 3999, 2999))).origin_level0 == (0, 0)


def test_a_mask_drawn_in_other_values_is_refused(tmp_path, slide):
    with pytest.raises(MaskError, match=r"Expected: tumour=255. Received: 1. .*mask_values"):
        read_mask(save(tmp_path / "mask.png", drawn(256, 192, 1)), slide)


def test_blended_edges_and_empty_masks_are_not_refused(tmp_path, slide):
    blended = cv2.resize(drawn(513, 385), (256, 192), interpolation=cv2.INTER_AREA)
    assert len(np.unique(blended)) > 2
    assert read_mask(save(tmp_path / "a.png", blended), slide).share("tumour") > 0.2
    assert read_mask(save(tmp_path / "b.png", blended * 0), slide).share("tumour") == 0


def test_masks_of_many_whole_values_are_counted(tmp_path, slide):
    for kind in (np.uint16, np.int32):
        labels = drawn(513, 385).astype(kind) * 257
        path = save(tmp_path / "mask.tif", labels)
        assert read_mask(path, slide, values={"tumour": 65535}).share("tumour") > 0.2
        with pytest.raises(MaskError, match="Received: 65535"):
            read_mask(path, slide)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_of_colours_gives_its_indices(tmp_path, slide, depth):
    top = (1 << depth) - 1
    colours = np.random.default_rng(0).integers(0, 256, 3 * (top + 1), np.uint8)
    path = indexed(tmp_path / "mask.png", drawn(256, 192, top), colours, depth)
    mask = read_mask(path, slide, values={"tumour": top})
    np.testing.assert_array_equal(mask.labels, drawn(256, 192, top))


def test_a_palette_of_greys_gives_its_greys(tmp_path, slide):
    path = indexed(tmp_path / "mask.png", drawn(256, 192, 1), [0, 0, 0, 255, 255, 255], 1)
    np.testing.assert_array_equal(read_mask(path, slide).labels, drawn(256, 192, 255))


def test_a_png_of_one_bit_is_black_and_white(tmp_path, slide):
    path = tmp_path / "mask.png"
    cv2.imwrite(str(path), drawn(256, 192), [cv2.IMWRITE_PNG_BILEVEL, 1])
    assert path.read_bytes()[24] == 1
    np.testing.assert_array_equal(read_mask(path, slide).labels, drawn(256, 192))


def test_a_cut_or_empty_png_is_refused(tmp_path, slide, capfd):
    random = np.random.default_rng(0).integers(0, 2, (192, 256), np.uint8)
    whole = indexed(tmp_path / "mask.png", random, [9, 0, 0, 0, 9, 0]).read_bytes()
    plain = save(tmp_path / "mask.png", random * 255).read_bytes()
    for data in (whole[: len(whole) // 2], whole[:40], plain[: len(plain) // 2], b""):
        (tmp_path / "mask.png").write_bytes(data)
        with pytest.raises(MaskError, match=r"cannot be read.*mask\.png"):
            read_mask(tmp_path / "mask.png", slide, values={"tumour": 1})


# The mask patch of an image patch


def test_a_mask_patch_lies_on_its_image_patch(tmp_path, slide):
    labels = np.random.default_rng(0).integers(0, 3, (385, 513)).astype(np.uint8)
    mask = read_mask(save(tmp_path / "mask.png", labels), slide, values=IDC)
    xy = [(0, 0), (300, 200), (17, 5)]
    patches = mask.read_patches(xy, 64, 64)
    assert patches.dtype == np.uint8
    for (x, y), patch in zip(xy, patches, strict=True):
        np.testing.assert_array_equal(patch, labels[y : y + 64, x : x + 64])
    shrunk = mask.read_patches(xy, (96, 48), (32, 16))
    for (x, y), patch in zip(xy, shrunk, strict=True):
        np.testing.assert_array_equal(patch, labels[y + 1 : y + 48 : 3, x + 1 : x + 96 : 3])


def test_a_coarse_mask_is_repeated_and_nothing_lies_outside(tmp_path):
    mask = read_mask(
        save(tmp_path / "mask.png", np.arange(1, 13, dtype=np.uint8).reshape(3, 4)),
        scanned(64, 48, (0, 0, 64, 48)), values={str(n): n for n in range(1, 13)},
    )  # fmt: skip
    (inside, corner, beyond, away) = mask.read_patches(
        [(16, 16), (-16, -16), (48, 40), (500, 0)], 32, 4
    )
    assert inside.tolist() == [[6, 6, 7, 7]] * 2 + [[10, 10, 11, 11]] * 2
    assert corner.tolist() == [[0] * 4] * 2 + [[0, 0, 1, 1]] * 2
    assert beyond.tolist() == [[12, 12, 0, 0]] + [[0] * 4] * 3
    assert not away.any()
    assert mask.read_patches(np.empty((0, 2), int), 32, 4).shape == (0, 4, 4)
    for size, error in ((0, SlideError), (4.5, SlideError)):
        with pytest.raises(error):
            mask.read_patches([(0, 0)], 32, size)
    with pytest.raises(MaskError, match="must have an area"):
        mask.read_patches([(0, 0)], 0, 4)


def test_a_mask_patch_follows_downsample_and_origin(tmp_path):
    mask = np.zeros((10007, 5316), np.uint8)
    mask[100:110, 200:210] = 255
    found = read_mask(save(tmp_path / "m.png", mask), HELP)
    at = (7756 + 200 * 16, 39069 + 100 * 16)
    patches = found.read_patches([at, (at[0] - 80, at[1])], 160, 160)
    assert (patches[0] == 255).all()
    assert (patches[1] == np.where(np.arange(160) < 80, 0, 255)).all()


def test_the_share_in_a_mask_patch_is_its_fraction(tmp_path, slide):
    labels = (np.random.default_rng(3).random((385, 513)) < 0.4).astype(np.uint8) * 255
    mask = read_mask(save(tmp_path / "mask.png", labels), slide)
    xy = np.random.default_rng(4).integers(-30, 500, (50, 2))
    counted = (mask.read_patches(xy, 50, 50) == 255).mean(axis=(1, 2))
    np.testing.assert_allclose(mask.fraction(xy, 50), counted, atol=1e-6)


# Annotation files


def test_polygons_make_a_mask_of_the_box_around_them(tmp_path):
    mask = read_mask(
        asap(tmp_path, Tumor=[(1000, 500, 1100, 600), (1200, 500, 1300, 700)]), scanned()
    )
    assert (mask.origin_level0, mask.downsample, mask.labels.shape) == (
        (1000, 500),
        (1, 1),
        (200, 300),
    )
    xy = [(1000, 500), (1050, 500), (1100, 500), (1200, 650), (0, 0), (3900, 2900)]
    assert mask.fraction(xy, 100).tolist() == [1, 0.5, 0, 0.5, 0, 0]
    assert mask.read_patches([(1050, 550)], 100, 2).tolist() == [[[1, 0], [0, 0]]]


def test_the_later_class_wins_and_exclusions_are_cut_out_of_all(tmp_path):
    path = asap(
        tmp_path, Tumor=[(10, 0, 30, 10)], Stroma=[(0, 0, 20, 10)], Necrosis=[(0, 0, 40, 1)]
    )
    values = {"normal": "Stroma", "tumour": ["Tumor", "Metastasis"], "exclude": "Necrosis"}
    mask = read_mask(path, scanned(), values=values)
    assert dict(mask.values) == {"normal": 1, "tumour": 2}
    assert mask.fraction([(0, 0), (10, 0), (20, 0)], 10).tolist() == [0, 0.9, 0.9]
    assert mask.fraction([(0, 0), (10, 0), (20, 0)], 10, "normal").tolist() == [0.9, 0, 0]
    values = {"tumour": "Tumor", "normal": "Stroma"}
    assert read_mask(path, scanned(), values=values).fraction([(10, 0)], 10).tolist() == [0]
    with pytest.raises(MaskError, match="no such value"):
        mask.fraction([(0, 0)], 10, "exclude")


@pytest.mark.parametrize("values", [None, {"tumour": ["_0", "_1"]}, {"exclude": "Ink"}])
def test_camelyon16_has_two_groups_of_tumour_and_one_that_is_cut_out(tmp_path, values):
    path = asap(tmp_path, _2=[(4, 0, 6, 10)], _0=[(0, 0, 10, 10)], _1=[(20, 0, 30, 10)])
    mask = read_mask(path, scanned(), values=values)
    assert mask.fraction([(0, 0), (20, 0)], 10).tolist() == [0.8, 1]


def test_a_group_of_exclusions_that_is_named_otherwise_is_no_exclusion(tmp_path):
    path = asap(tmp_path, _0=[(0, 0, 10, 10)], _2=[(0, 0, 10, 4)])
    mask = read_mask(path, scanned(), values={"tumour": "_0", "normal": "_2"})
    assert mask.fraction([(0, 0)], 10).tolist() == [0.6]
    assert mask.fraction([(0, 0)], 10, "normal").tolist() == [0.4]


def test_one_group_is_tumour_and_several_must_be_named(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = asap(tmp_path, metastases=[(0, 0, 10, 10)], Exclusion=[(0, 0, 10, 5)])
    assert read_mask(path, scanned()).fraction([(0, 0)], 10).tolist() == [0.5]
    assert caplog.messages == ["a.xml: tumour is what is drawn as metastases"]
    path = asap(tmp_path, metastases=[(0, 0, 10, 10)], normal=[(0, 0, 10, 5)])
    with pytest.raises(MaskError, match=r"several groups.*metastases, normal.*mask_values"):
        read_mask(path, scanned())
    caplog.clear()
    assert read_mask(path, scanned(), values={"tumour": "metastases"}).share("tumour") == 1
    assert caplog.messages == ["a.xml: groups that no class names are ignored: normal"]


def test_an_annotation_without_the_named_groups_is_refused(tmp_path):
    path = asap(tmp_path, Tumor=[(0, 0, 10, 10)])
    with pytest.raises(MaskError, match=r"no polygon belongs.*groups Tumour. Received: Tumor"):
        read_mask(path, scanned(), values={"tumour": "Tumour"})


def test_values_must_be_of_the_kind_of_the_mask(tmp_path, slide):
    with pytest.raises(MaskError, match=r"is an annotation file. Expected: names of groups"):
        read_mask(asap(tmp_path, Tumor=[(0, 0, 10, 10)]), scanned(), values={"tumour": 2})
    with pytest.raises(MaskError, match=r"is an image. Expected: pixel values"):
        read_mask(save(tmp_path / "a.png", drawn(256, 192)), slide, values={"tumour": "Tumor"})


def test_annotations_outside_the_slide_are_refused_and_at_its_edge_cut(tmp_path, caplog):
    path = asap(tmp_path, Tumor=[(100, 100, 200, 200), (4000, 100, 4100, 200)])
    with pytest.raises(MaskError, match=r"1 of 2 annotations lie outside.*4000 x 3000.*4050, 150"):
        read_mask(path, scanned())
    path = asap(tmp_path, Tumor=[(-50, 100, 50, 200), (3990, 2990, 4100, 3001)])
    mask = read_mask(path, scanned())
    warnings = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert warnings == ["a.xml: 2 annotations reach beyond the slide and are cut"]
    assert mask.origin_level0 == (0, 100)
    assert mask.fraction([(0, 100), (3900, 2900)], 100).tolist() == [0.5, 0.01]


def test_annotations_count_from_the_slide_or_from_its_bounds(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    slide = scanned(bounds=(1000, 1000, 2000, 1500))
    cases = [  # what is drawn, the frame as stated, where the first pixel lies
        ((1500, 1600, 2900, 1700), None, (1500, 1600)),
        ((1500, 1600, 2900, 1700), "slide", (1500, 1600)),
        ((100, 100, 600, 600), None, (1100, 1100)),
        ((1100, 1100, 1200, 1200), "bounds", (2100, 2100)),
        ((1100, 1100, 1200, 1200), "slide", (1100, 1100)),
    ]
    for box, frame, corner in cases:
        for path in (asap(tmp_path, Tumor=[box]), qupath(tmp_path, box)):
            assert read_mask(path, slide, frame=frame).origin_level0 == corner
    told = [line for line in caplog.messages if "bounds" in line]
    assert told == [
        f"{name}: by their places, the polygons count from the slide's bounds"
        for name in ("a.xml", "a.geojson")
    ]
    box = (1100, 1100, 1200, 1200)  # in the bounds, whichever corner it counts from
    assert read_mask(asap(tmp_path, Tumor=[box]), slide).origin_level0 == (1100, 1100)
    with pytest.raises(MaskError, match=r"fit both.*a\.geojson.*frame="):
        read_mask(qupath(tmp_path, box), slide)


def test_large_annotations_are_drawn_coarser(tmp_path, monkeypatch):
    monkeypatch.setattr("kit.annotations.MOST_DRAWN", 10_000)
    mask = read_mask(asap(tmp_path, Tumor=[(100, 100, 700, 400)]), scanned())
    assert (mask.downsample, mask.labels.shape) == ((5, 5), (60, 120))
    assert mask.fraction([(100, 100), (0, 0), (650, 100)], 100).tolist() == [1, 0, 0.5]


def test_a_polygon_without_an_area_covers_nothing(tmp_path):
    mask = read_mask(asap(tmp_path, Tumor=[(5, 5, 5, 50)]), scanned())
    assert mask.fraction([(0, 0)], 100).tolist() == [0]
    assert not mask.read_patches([(0, 0)], 100, 100).any()


@pytest.mark.parametrize("name", ["mask.png", "mask.tif"])
def test_a_file_that_is_no_mask_is_refused(tmp_path, slide, name):
    with pytest.raises(MaskError, match=f"no such mask. File: .*{name}"):
        read_mask(tmp_path / name, slide)
    (tmp_path / name).write_text("no image")
    with pytest.raises(MaskError, match=f"cannot be read.*{name}"):
        read_mask(tmp_path / name, slide)


def test_a_large_tiff_mask_is_read_at_a_coarser_level(tmp_path, slide, monkeypatch):
    monkeypatch.setattr("kit._mask_files.MOST_PIXELS", 60_000)
    with tifffile.TiffWriter(tmp_path / "mask.tif") as tiff:
        tiff.write(drawn(513, 385), tile=(128, 128), subifds=1)
        tiff.write(drawn(256, 192), tile=(128, 128), subfiletype=1)
    assert read_mask(tmp_path / "mask.tif", slide).labels.shape == (192, 256)


@pytest.mark.real_data
@pytest.mark.parametrize("case", ["14082", "14306"])
def test_fractions_of_real_masks_agree_with_direct_counting(real_data, case):
    folder = real_data / "slides" / "idc_pseudo_slides"
    with open_slide(folder / f"{case}.tif") as slide:
        mask = read_mask(folder / f"{case}_mask.tif", slide, values=IDC)
        width, height = slide.size
    labels = tifffile.imread(folder / f"{case}_mask.tif")
    xy = np.random.default_rng(0).integers(0, (width - 77, height - 50), (500, 2))
    counted = [(labels[y : y + 50, x : x + 77] == 2).mean() for x, y in xy]
    np.testing.assert_allclose(mask.fraction(xy, (77, 50)), counted, atol=1e-6)


@pytest.mark.real_data
@pytest.mark.parametrize("case", ["14082", "14306"])
def test_real_polygons_agree_with_the_real_mask(real_data, case):
    folder = real_data / "slides" / "idc_pseudo_slides"
    with open_slide(folder / f"{case}.tif") as slide:
        mask = read_mask(folder / f"{case}_mask.tif", slide, values=IDC)
        polygon = read_mask(folder / f"{case}.xml", slide)
        width, height = slide.size
    grid = np.meshgrid(np.arange(0, width, 50), np.arange(0, height, 50))
    xy = np.stack(grid, axis=-1).reshape(-1, 2)
    fractions = polygon.fraction(xy, 50)
    assert set(fractions) == {0, 1}
    assert fractions.sum() > 100
    np.testing.assert_array_equal(fractions, mask.fraction(xy, 50))
    np.testing.assert_array_equal(
        polygon.read_patches(xy, 50, 50) == 1, mask.read_patches(xy, 50, 50) == 2
    )
