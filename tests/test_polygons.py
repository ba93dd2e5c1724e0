from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from matplotlib.path import Path as Curve

from kit import polygons
from kit.errors import MaskError
from kit.polygons import Polygon, outlines, rasterise, read, to_geojson

SQUARE = [(10, 20), (30, 20), (30, 40), (10, 40)]


def asap(*annotations: str, groups: str = "") -> str:
    return (
        f'<?xml version="1.0"?><ASAP_Annotations><Annotations>{"".join(annotations)}'
        f"</Annotations><AnnotationGroups>{groups}</AnnotationGroups></ASAP_Annotations>"
    )


def drawn(points, group="Tumor", kind="Polygon", order=None) -> str:
    numbers = order or range(len(points))
    corners = "".join(
        f'<Coordinate Order="{n}" X="{x}" Y="{y}"/>'
        for n, (x, y) in zip(numbers, points, strict=True)
    )
    return (
        f'<Annotation Name="A1" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">'
        f"<Coordinates>{corners}</Coordinates></Annotation>"
    )


def layer(name: str, *regions: str) -> str:
    return (
        f'<Annotation LineColor="65535" Name="{name}" Visible="True">'
        f"<Regions>{''.join(regions)}</Regions></Annotation>"
    )


def region(points, kind="Polygon", negative=0) -> str:
    corners = "".join(f'<V X="{x}" Y="{y}" />' for x, y in points)
    return (
        f'<Region Type="{kind}" HasEndcaps="0" NegativeROA="{negative}">'
        f"<Vertices>{corners}</Vertices></Region>"
    )


def halo(*layers: str) -> str:
    return f"<Annotations>{''.join(layers)}</Annotations>"


def box(left, top, right, bottom):
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def closed(points):
    return [*map(list, points), list(points[0])]


def feature(kind, coordinates, classification=None):
    properties = {"objectType": "annotation"}
    if classification is not None:
        properties["classification"] = classification
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "id": "x", "geometry": geometry, "properties": properties}


def save(folder, content, name=None):
    path = folder / (name or ("a.xml" if isinstance(content, str) else "a.geojson"))
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def area(ring) -> float:
    x, y = np.asarray(ring).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


# Reading


def test_asap_gives_its_groups_with_the_corners_in_their_order(tmp_path):
    mixed = [SQUARE[2], SQUARE[0], SQUARE[3], SQUARE[1]]
    path = save(tmp_path, asap(
        drawn(mixed, "_0", order=[2, 0, 3, 1]), drawn([(0.5, 1), (2, 1), (2, 3.25)], "_2"),
        groups='<Group Name="_0" PartOfGroup="None" Color="#64FE2E"><Attributes/></Group>',
    ))  # fmt: skip
    first, second = read(path)
    assert (first.name, first.shell.tolist()) == ("_0", [list(map(float, p)) for p in SQUARE])
    assert (second.name, second.shell.tolist()) == ("_2", [[0.5, 1], [2, 1], [2, 3.25]])
    assert first.holes == ()


def test_shapes_without_an_area_are_counted_in_one_line(tmp_path, caplog):
    point = drawn([(1, 1)], kind="Dot")
    assert len(read(save(tmp_path, asap(point, drawn(SQUARE), point)))) == 1
    assert caplog.messages == ["a.xml: shapes without an area are ignored: 2 Dot"]


def test_halo_gives_its_layers_and_cuts_negative_regions_out_of_those_around_them(tmp_path):
    path = save(tmp_path, halo(
        layer("Tumor", region(box(0, 0, 100, 100)), region(box(200, 0, 300, 100)),
              region(box(20, 20, 80, 80), negative=1), region(box(40, 40, 60, 60))),
        layer("Stroma", region(box(0, 0, 90, 90))),
    ), "a.annotations")  # fmt: skip
    around, beside, island, stroma = read(path)
    assert [p.name for p in (around, beside, island, stroma)] == ["Tumor"] * 3 + ["Stroma"]
    assert [hole.tolist() for hole in around.holes] == [[list(p) for p in box(20, 20, 80, 80)]]
    assert beside.holes == island.holes == stroma.holes == ()
    mask = rasterise([around, beside, island], (100, 300), downsample=(1, 1))
    assert mask.sum() == 100 * 100 + 100 * 100 - 60 * 60 + 20 * 20


def test_halo_writes_rectangles_and_ellipses_as_two_corners(tmp_path, caplog):
    path = save(tmp_path, halo(layer(
        "a", region([(10, 20), (30, 60)], "Rectangle"), region([(10, 20), (30, 60)], "Ellipse"),
        region([(0, 0), (1, 1)], "Ruler"), region([(0, 0)], "Pin"),
        region(box(500, 500, 510, 510), negative=1),
    )))  # fmt: skip
    rectangle, ellipse = read(path)
    assert area(rectangle.shell) == 20 * 40
    assert area(ellipse.shell) == pytest.approx(np.pi * 10 * 20, rel=2e-4)
    assert ellipse.shell.min(axis=0).tolist() == pytest.approx([10, 20])
    assert ellipse.shell.max(axis=0).tolist() == pytest.approx([30, 60])
    (line,) = caplog.messages
    assert line.endswith("1 Ruler, 1 Pin, 1 NegativeROA outside every region")


def test_qupath_gives_its_classes_with_holes_and_parts(tmp_path, caplog):
    hole = closed(box(15, 25, 20, 30))
    features = [
        feature("Polygon", [closed(SQUARE), hole], {"name": "Tumor", "colorRGB": -3670016}),
        feature("MultiPolygon", [[closed(SQUARE)], [closed(box(50, 50, 60, 60))]], "Stroma"),
        feature("Polygon", [closed(SQUARE)], {"names": ["Tumor", "Positive"]}),
        feature("Polygon", [closed(SQUARE)]),
        feature("Point", [1, 2]), feature("LineString", [[1, 2], [3, 4]]),
    ]  # fmt: skip
    found = read(save(tmp_path, {"type": "FeatureCollection", "features": features}))
    assert [polygon.name for polygon in found] == [
        "Tumor", "Stroma", "Stroma", "Tumor: Positive", "Unclassified",
    ]  # fmt: skip
    assert found[0].shell.tolist() == [list(p) for p in SQUARE]
    assert [h.tolist() for h in found[0].holes] == [[list(p) for p in box(15, 25, 20, 30)]]
    assert area(found[2].shell) == 100
    assert caplog.messages == [
        "a.geojson: shapes without an area are ignored: 1 Point, 1 LineString"
    ]


def test_qupath_may_write_one_feature_or_a_bare_list(tmp_path):
    one = feature("Polygon", [closed(SQUARE)], {"name": "Tumor"})
    for content, count in ((one, 1), ([one, one], 2)):
        assert [p.name for p in read(save(tmp_path, content, "a.json"))] == ["Tumor"] * count


APERIO = '<Annotations><Annotation><Regions><Region><Vertices><Vertex X="1" Y="2"/>'
APERIO += "</Vertices></Region></Regions></Annotation></Annotations>"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not valid XML"),
        (asap(drawn(SQUARE))[:-20], "not valid XML"),
        ("<Mask><a/></Mask>", "unknown dialect.*ASAP.*HALO.*Received: Mask"),
        (APERIO, "unknown dialect.*QuPath"),
        (asap(), "holds no polygon"),
        (halo(layer("a")), "holds no polygon"),
        (asap(drawn([(1, 1)], kind="Dot")), "holds no polygon"),
        (asap(drawn(SQUARE[:2])), "annotation A1 has fewer than three corners. Received: 2"),
        (asap(drawn([*SQUARE[:2], SQUARE[0]])), "fewer than three corners. Received: 2"),
        (asap(drawn([*SQUARE, ("nan", 1)])), "not finite"),
        (asap(drawn([*SQUARE, ("inf", 1)])), "not finite"),
        (asap(drawn([*SQUARE, ("1,5", 1)])), "no pair of numbers.*1,5"),
        (asap(drawn(SQUARE, order=["", 1, 2, 3])), "without a whole Order"),
        (halo(layer("a", region(SQUARE[:1]))), "region 0 of layer a has fewer than three"),
        ({"type": "Topology"}, "no GeoJSON of features"),
        ({"type": "FeatureCollection", "features": 3}, "no GeoJSON of features"),
        ([[1, 2], [3, 4]], "feature 0 is no GeoJSON"),
        ([feature("GeometryCollection", [])], "unknown geometry.*GeometryCollection"),
        ([feature("Polygon", [])], "feature 0 has no outline"),
        ([feature("MultiPolygon", [7])], "feature 0 has no outline"),
        ([feature("Polygon", [[[1, 2], [3, 4]]])], "fewer than three corners"),
        ([feature("Polygon", [[[1, 2], [3, float("nan")], [5, 6]]])], "not finite"),
        ([feature("Polygon", [[[1, 2], 3, [5, 6]]])], "no pair of numbers"),
    ],
)
def test_a_bad_annotation_is_told_in_one_line(tmp_path, content, said):
    with pytest.raises(MaskError, match=said) as found:
        read(save(tmp_path, content))
    assert str(tmp_path) in str(found.value)


def test_broken_json_and_a_missing_file_are_told(tmp_path):
    with pytest.raises(MaskError, match=r"not valid JSON.*a\.geojson"):
        read(save(tmp_path, "{", "a.geojson"))
    with pytest.raises(MaskError, match=r"cannot be read.*b\.xml"):
        read(tmp_path / "b.xml")


# Polygons to masks


def test_a_square_covers_exactly_its_pixels():
    mask = rasterise([Polygon("a", np.array(box(1, 2, 4, 6)))], (8, 8), downsample=(1, 1))
    wanted = np.zeros((8, 8), bool)
    wanted[2:6, 1:4] = True
    np.testing.assert_array_equal(mask, wanted)


def test_a_pixel_belongs_where_its_centre_lies():
    half = Polygon("a", np.array(box(0, 0, 1.5, 1.4)))
    assert rasterise([half], (3, 3), downsample=(1, 1)).sum() == 1  # (1.5, .) is outside
    assert rasterise([half], (3, 3), downsample=(0.5, 0.5)).sum() == 9
    assert rasterise([half], (3, 3), downsample=(1, 1), origin_level0=(1, 1)).sum() == 0
    assert rasterise([half], (3, 3), downsample=(1, 1), origin_level0=(-1.2, 0)).sum() == 2


@pytest.mark.parametrize("seed", range(40))
def test_random_polygons_are_filled_as_matplotlib_says(seed):
    random = np.random.default_rng(seed)
    ring = random.uniform(-20, 80, (random.integers(3, 12), 2))  # most cross themselves
    hole = random.uniform(0, 40, (random.integers(3, 6), 2))
    downsample, origin = random.uniform(0.3, 3, 2), random.uniform(-10, 10, 2)
    height, width = random.integers(1, 60, 2)
    rows, columns = np.mgrid[:height, :width]
    centres = (np.stack([columns, rows], axis=-1).reshape(-1, 2) + 0.5) * downsample + origin
    inside, cut = (Curve(closed(r), closed=True).contains_points(centres) for r in (ring, hole))
    mask = rasterise(
        [Polygon("a", ring, (hole,))], (height, width),
        downsample=tuple(downsample), origin_level0=tuple(origin),
    )  # fmt: skip
    np.testing.assert_array_equal(mask, (inside & ~cut).reshape(height, width))


def test_neighbours_neither_share_nor_lose_a_pixel():
    random = np.random.default_rng(0)
    centre = random.uniform(20, 30, 2)
    rim = np.array([(0, 0), (25, 0), (50, 0), (50, 30), (50, 50), (10, 50), (0, 50), (0, 20)])
    slices = [
        Polygon("a", np.array([rim[n], rim[(n + 1) % len(rim)], centre])) for n in range(len(rim))
    ]
    masks = [rasterise([one], (50, 50), downsample=(1, 1)) for one in slices]
    assert (np.sum(masks, axis=0) == 1).all()
    assert rasterise(slices, (50, 50), downsample=(1, 1)).all()


def test_a_hole_is_cut_out_of_its_own_polygon_only():
    pierced = Polygon("a", np.array(box(0, 0, 10, 10)), (np.array(box(2, 2, 8, 8)),) * 2)
    other = Polygon("a", np.array(box(4, 4, 6, 6)))
    assert rasterise([pierced], (10, 10), downsample=(1, 1)).sum() == 100 - 36
    for both in ([pierced, other], [other, pierced]):
        assert rasterise(both, (10, 10), downsample=(1, 1)).sum() == 100 - 36 + 4


def test_what_lies_outside_the_mask_is_cut_off():
    huge = Polygon("a", np.array(box(-1e9, -1e9, 1e9, 1e9)), (np.array(box(-5, -5, 2, 2)),))
    assert rasterise([huge], (4, 5), downsample=(1, 1)).sum() == 20 - 4
    away = Polygon("a", np.array(box(90, 90, 99, 99)))
    assert not rasterise([away], (4, 5), downsample=(1, 1)).any()


# Masks to polygons


@pytest.mark.parametrize("share", [0, 0.05, 0.3, 0.5, 0.7, 0.95, 1])
@pytest.mark.parametrize("shape", [(1, 1), (1, 17), (23, 1), (31, 37)])
def test_outlines_give_the_mask_back_and_have_its_area(shape, share):
    random = np.random.default_rng(7)
    mask = random.random(shape) < share
    downsample, origin = (16.03, 15.98), (7756, 39069)
    found = outlines(mask, "tissue", downsample=downsample, origin_level0=origin)
    again = rasterise(found, shape, downsample=downsample, origin_level0=origin)
    np.testing.assert_array_equal(again, mask)
    covered = sum(area(p.shell) - sum(map(area, p.holes)) for p in found)
    assert covered == pytest.approx(mask.sum() * 16.03 * 15.98)
    assert {polygon.name for polygon in found} == ({"tissue"} if mask.any() else set())


def test_an_outline_runs_along_the_edges_of_its_pixels_without_spare_corners():
    mask = np.zeros((9, 9), bool)
    mask[1:8, 1:8] = True
    mask[2:7, 2:7] = False
    mask[4, 4] = True
    ring, island = sorted(outlines(mask, "a", downsample=(2, 2)), key=lambda p: -area(p.shell))
    (hole,) = ring.holes
    for outline, low, high in ((ring.shell, 2, 16), (hole, 4, 14), (island.shell, 8, 10)):
        assert sorted(map(tuple, outline.tolist())) == sorted(box(low, low, high, high))
    assert island.holes == ()


def test_pixels_that_touch_at_a_corner_belong_together():
    mask = np.array([[1, 0], [0, 1]], bool)
    (both,) = outlines(mask, "a", downsample=(1, 1))
    assert area(both.shell) == 2


def test_geojson_is_read_back_as_it_was_written(tmp_path):
    mask = np.random.default_rng(1).random((20, 30)) < 0.6
    found = outlines(mask, "tissue", downsample=(4.016, 4.016), origin_level0=(100, 200))
    written = to_geojson(found)
    assert written["type"] == "FeatureCollection"
    ring = written["features"][0]["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1]
    again = read(save(tmp_path, written))
    assert [p.name for p in again] == [p.name for p in found]
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one.shell, other.shell)
        for hole, same in zip(one.holes, other.holes, strict=True):
            np.testing.assert_array_equal(hole, same)


def test_reading_is_quiet_about_plain_polygons(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    assert polygons.read(save(tmp_path, asap(drawn(SQUARE))))
    assert caplog.messages == []
