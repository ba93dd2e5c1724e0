from __future__ import annotations

import numpy as np
import pytest

from kit import geometry
from kit.errors import SlideError

TCGA = [1.0, 2.0005]


def test_level_and_level0_are_inverse_with_a_non_integer_downsample():
    xy = np.array([[0, 0], [4443, 3567], [1001, 7]])
    there = geometry.level0_to_level(xy, 4.016129)
    np.testing.assert_allclose(geometry.level_to_level0(there, 4.016129), xy)
    assert there[1, 0] == pytest.approx(1106.289166)


def test_downsamples_may_differ_by_axis():
    assert geometry.level_to_level0((10, 10), (2.0, 3.0)).tolist() == [20.0, 30.0]


def test_a_request_by_level_keeps_the_stored_pixels_and_a_float_footprint():
    found = geometry.request(256, downsamples=TCGA, level=1)
    assert (found.level, found.size_output, found.size_read) == (1, (256, 256), (256, 256))
    assert found.size_level0 == pytest.approx((512.128, 512.128))
    assert not found.enlarges


def test_without_mpp_or_level_the_finest_level_is_read():
    found = geometry.request((30, 20), downsamples=TCGA)
    assert (found.level, found.size_level0) == (0, (30.0, 20.0))


def test_the_footprint_of_a_request_by_mpp_does_not_depend_on_the_levels():
    for downsamples in ([1.0], TCGA, [1.0, 2.0, 4.016, 8.086]):
        found = geometry.request(100, downsamples=downsamples, mpp=1.75, slide_mpp=0.5)
        assert found.size_level0 == pytest.approx((350.0, 350.0))


@pytest.mark.parametrize(
    ("mpp", "level", "read"),
    [(0.5, 0, 64), (0.75, 0, 96), (1.0, 1, 64), (1.9, 1, 122), (2.0, 2, 64), (4.0, 2, 127)],
)
def test_the_coarsest_level_with_enough_pixels_is_read(mpp, level, read):
    found = geometry.request(64, downsamples=[1.0, 2.0005, 4.016], mpp=mpp, slide_mpp=0.5)
    assert (found.level, found.size_read) == (level, (read, read))
    assert not found.enlarges


def test_an_integer_downsample_would_have_read_a_footprint_a_third_off():
    found = geometry.request(90, downsamples=[1.0, 2.999], mpp=3.0, slide_mpp=1.0)
    assert (found.level, found.size_read) == (1, (90, 90))


def test_finer_than_level_0_enlarges_and_says_so():
    found = geometry.request(64, downsamples=TCGA, mpp=0.25, slide_mpp=0.5)
    assert (found.level, found.size_read, found.enlarges) == (0, (32, 32), True)


@pytest.mark.parametrize("size", [0, -1, (10, 0), 2.5, (4, 4, 4), True, (1.0, 2)])
def test_a_size_that_is_no_size_is_refused_with_the_file(size):
    with pytest.raises(SlideError, match=r"size must be whole.*File: a\.svs"):
        geometry.request(size, downsamples=TCGA, path="a.svs")


@pytest.mark.parametrize("level", [2, -1, 0.5, True])
def test_a_level_that_is_not_there_is_refused(level):
    with pytest.raises(SlideError, match=r"no such level\. Expected: 0 to 1"):
        geometry.request(8, downsamples=TCGA, level=level)


def test_mpp_and_level_together_are_refused():
    with pytest.raises(SlideError, match="exclude each other"):
        geometry.request(8, downsamples=TCGA, level=0, mpp=1.0, slide_mpp=0.5)


@pytest.mark.parametrize("mpp", [0, -1.0, float("nan")])
def test_an_mpp_that_is_not_above_0_is_refused(mpp):
    with pytest.raises(SlideError, match="mpp must be above 0"):
        geometry.request(8, downsamples=TCGA, mpp=mpp, slide_mpp=0.5)


def test_coordinates_are_whole_and_may_be_negative():
    assert geometry.as_xy([[-5, 3]]).dtype == np.int64
    assert geometry.as_xy([]).shape == (0, 2)
    with pytest.raises(SlideError, match="whole level-0 pixels"):
        geometry.as_xy([[1.0, 2.0]])
    with pytest.raises(SlideError, match="pairs"):
        geometry.as_xy([1, 2])


@pytest.mark.parametrize(
    ("mask", "slide", "expected"),
    [
        ((2900, 2350), (2900, 2350), (1, 1)),
        ((362, 293), (2900, 2350), (8, 8)),  # halved and rounded down three times
        ((5316, 10007), (85052, 160111), (16, 16)),  # HeLP's Slide001, cropped to its bounds
        ((100, 60), (250, 150), (2.5, 2.5)),
        ((5316, 10007), (93970, 234042), None),
        ((293, 362), (2900, 2350), None),
        ((5800, 4700), (2900, 2350), None),
    ],
)
def test_a_mask_fits_if_one_downsample_explains_both_sides(mask, slide, expected):
    assert geometry.common_downsample(mask, slide) == expected
