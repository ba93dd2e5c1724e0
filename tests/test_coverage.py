import numpy as np

from kit import coverage


def test_area_fractions_are_exact_to_parts_of_a_pixel():
    random = np.random.default_rng(0)
    mask = random.random((23, 31)) < 0.4
    fine = np.kron(mask, np.ones((4, 4)))  # a mask pixel is 4 x 4 level-0 pixels
    xy = random.integers(-5, 120, (200, 2))
    padded = np.zeros((400, 400))
    padded[100 : 100 + fine.shape[0], 100 : 100 + fine.shape[1]] = fine
    counted = [padded[y + 100 : y + 107, x + 100 : x + 109].mean() for x, y in xy]
    found = coverage.area_fraction(coverage.integral(mask), xy, (9, 7), downsample=(4, 4))
    np.testing.assert_allclose(found, counted, atol=1e-6)


def test_area_fractions_of_none_and_all_are_exactly_0_and_1():
    mask = np.zeros((50, 50), dtype=bool)
    mask[:, 25:] = True
    found = coverage.area_fraction(
        coverage.integral(mask), [[0, 0], [173, 3], [80, 0]], 23.7, downsample=(4.016, 4.0)
    )
    assert found[0] == 0.0
    assert found[1] == 1.0
    assert 0 < found[2] < 1


def test_area_fractions_know_the_masks_origin():
    table = coverage.integral(np.ones((10, 10), dtype=bool))
    found = coverage.area_fraction(
        table, [[100, 200], [80, 200]], 40, downsample=(4, 4), origin_level0=(100, 200)
    )
    assert found.tolist() == [1.0, 0.5]
