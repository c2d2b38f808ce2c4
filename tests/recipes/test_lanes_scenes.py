"""Scenes: what each category shows, and where its lanes are."""

from functools import cache

import numpy as np
import pytest

from pydistill.recipes.lanes import culane, paint
from pydistill.recipes.lanes.canvas import Canvas
from pydistill.recipes.lanes.road import CULANE, FARTHEST, LANE_WIDTH, TUSIMPLE, Road
from pydistill.recipes.lanes.scenes import CATEGORIES, draw_category, generate_scene, random_world
from pydistill.recipes.lanes.tusimple import Record, assign_classes

VIEWS = {"tusimple": TUSIMPLE, "culane": CULANE}
views = pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)


@cache
def scenes(category, view, count=6):
    return [generate_scene(0, index, category, view) for index in range(count)]


def worlds(category, count=30):
    return [random_world(np.random.default_rng((0, index)), category, TUSIMPLE) for index in range(count)]


def road_part(scene):
    """The lower two fifths of a picture in float64, in 0..1."""
    return scene.picture[3 * scene.picture.shape[0] // 5 :].astype(np.float64) / 255


@views
def test_scene_is_a_function_of_its_arguments(view):
    first, again = (generate_scene(1, 5, "normal", view) for _ in range(2))
    assert first.picture.shape == (*view.picture, 3) and first.picture.dtype == np.uint8
    assert np.array_equal(first.picture, again.picture)
    assert first.lanes.keys() == again.lanes.keys()
    assert all(np.array_equal(first.lanes[lane], again.lanes[lane]) for lane in first.lanes)
    for other in (generate_scene(1, 6, "normal", view), generate_scene(2, 5, "normal", view)):
        assert not np.array_equal(first.picture, other.picture)
        assert not np.array_equal(first.lanes[2], other.lanes[2])


def test_category_of_the_mix():
    drawn = generate_scene(0, 7)
    assert drawn.category == draw_category(0, 7)
    assert np.array_equal(drawn.picture, generate_scene(0, 7, drawn.category).picture)
    with pytest.raises(ValueError, match="expected a category of normal, crowded, .*, got 'fog'"):
        generate_scene(0, 7, "fog")


def test_shares_of_the_mix():
    assert list(CATEGORIES) == list(culane.CATEGORIES.values())
    assert sum(setting.share for setting in CATEGORIES.values()) == pytest.approx(1)
    drawn = [draw_category(0, index) for index in range(3000)]
    for name, setting in CATEGORIES.items():  # within four standard deviations
        assert abs(drawn.count(name) / 3000 - setting.share) < 4 * np.sqrt(setting.share / 3000)
    assert "crossroad" not in {draw_category(0, index, ("crossroad",)) for index in range(300)}


def test_lanes_follow_the_projection():
    road = Road(offset=0.3, heading=0.01, bend=0.002, horizon=250)
    rows = np.array([700.0, 400.0], np.float32)
    depth = 1000 * 1.5 / (rows - 250.0)
    expected = 640 + 1000 * (0.3 + 0.01 * depth + 0.001 * depth**2 + 1.8) / depth
    np.testing.assert_allclose(road.column(1.8, road.depth(rows)), expected, rtol=1e-5)
    wide = Road(offset=0.3, heading=0.01, bend=0.002, horizon=250, middle=820)
    np.testing.assert_allclose(wide.column(1.8, road.depth(rows)), expected + 180, rtol=1e-5)


@views
def test_views_keep_proportions(view):
    assert view.picture[0] * view.frame[1] == view.picture[1] * view.frame[0]
    assert VIEWS["culane"].frame == culane.FRAME


@views
@pytest.mark.parametrize("category", CATEGORIES)
def test_lanes_lie_within_the_view(category, view):
    for scene in scenes(category, view):
        assert (len(scene.lanes) == 0) if category == "crossroad" else (2 <= len(scene.lanes) <= 4)
        for points in scene.lanes.values():
            x, y = points.T
            assert set(y.astype(int)) <= set(view.rows) and (np.diff(y) > 0).all()
            assert (x >= -view.outside).all() and (x <= view.frame[1] - 1 + view.outside).all()
            assert ((x >= 0) & (x < view.frame[1])).sum() >= 12


@views
def test_classes_by_angle_are_those_of_the_scene(view):
    """TuSimple's readers find classes from the angles of lanes, in bends too; CULane's files state them."""
    for category in ("normal", "curve"):
        for index in range(12):
            world = random_world(np.random.default_rng((5, index)), category, view)
            depth = world.road.depth(np.array(view.rows, np.float32))
            lanes = []
            for mark in world.marks:
                x = world.road.column(mark.position, depth)
                lanes.append(np.where((depth < FARTHEST) & (x >= 0) & (x < view.frame[1]), x, -2).tolist())
            classes = assign_classes(Record("x", list(view.rows), lanes))
            expected = {round(m.position / LANE_WIDTH + 2.5): max(lane) for m, lane in zip(world.marks, lanes)}
            assert {2, 3} <= set(classes)
            for lane, points in classes.items():
                assert points[:, 0].max() == pytest.approx(expected[lane], rel=1e-5)


@views
def test_lanes_run_from_left_to_right(view):
    for category in ("normal", "curve", "crowded"):
        for scene in scenes(category, view):
            lanes = [scene.lanes[lane] for lane in sorted(scene.lanes)]
            for left, right in zip(lanes, lanes[1:]):
                rows = np.intersect1d(left[:, 1], right[:, 1])
                assert len(rows) and all(left[left[:, 1] == y, 0] < right[right[:, 1] == y, 0] for y in rows)


@views
def test_paint_lies_where_the_label_says(view):
    """Over many scenes, the label's pixels are brighter than the road 0.6 metres beside them."""
    on, beside = [], []
    for scene in scenes("normal", view, 16):
        grey = scene.picture.mean(2)
        for points in scene.lanes.values():
            for x, y in points[-25:]:
                column, row = int(x * view.scale), int(y * view.scale)
                shift = round(0.6 * (y - np.mean(view.horizon)) / 1.5 * view.scale)
                if row < view.picture[0] and shift <= column < view.picture[1] - shift:
                    on.append(grey[row, column])
                    beside.append((grey[row, column - shift] + grey[row, column + shift]) / 2)
    assert len(on) > 300 and np.mean(on) > 1.15 * np.mean(beside)


def paint_contrast(category):
    """How much brighter labelled pixels are than the road beside them, as a share of it."""
    ratios = []
    for scene in scenes(category, TUSIMPLE, 12):
        grey = scene.picture.astype(np.float64).mean(2) + 1
        for points in scene.lanes.values():
            x, y = (points[-20:].T * TUSIMPLE.scale).astype(int)
            shift = np.round(0.6 * (points[-20:, 1] - 250) / 1.5 * TUSIMPLE.scale).astype(int)
            keep = (x >= shift) & (x < grey.shape[1] - shift)
            x, y, shift = x[keep], y[keep], shift[keep]
            ratios.append(grey[y, x] * 2 / (grey[y, x - shift] + grey[y, x + shift]) - 1)
    return np.concatenate(ratios).mean()


def test_no_line_has_next_to_no_paint():
    assert paint_contrast("normal") > 0.15
    assert paint_contrast("no line") < 0.02


@views
def test_night_is_dark(view):
    brightness = {name: np.mean([s.picture.mean() for s in scenes(name, view)]) for name in ("normal", "night")}
    assert brightness["night"] < 0.35 * brightness["normal"]


@views
def test_dazzle_saturates(view):
    share = {
        name: np.mean([(s.picture.min(2) == 255).mean() for s in scenes(name, view)]) for name in ("normal", "dazzle")
    }
    assert share["dazzle"] > 0.01 and share["dazzle"] > 5 * share["normal"]


def hidden(world):
    """The share of the points of lanes that are behind a vehicle."""
    rows = np.array(TUSIMPLE.rows, np.float32)
    depth = world.road.depth(rows)
    behind, total = 0, 0
    for mark in world.marks:
        x = world.road.column(mark.position, depth)
        seen = (depth < FARTHEST) & (x >= 0) & (x < TUSIMPLE.frame[1])
        covered = np.zeros_like(seen)
        for vehicle in world.vehicles:
            left, bottom, width, height = world.road.box(vehicle)
            covered |= (x > left) & (x < left + width) & (rows < bottom) & (rows > bottom - height)
        behind, total = behind + (covered & seen).sum(), total + seen.sum()
    return behind / total


def test_crowded_hides_lines():
    share = {name: np.mean([hidden(world) for world in worlds(name)]) for name in ("normal", "crowded")}
    assert share["crowded"] > 3 * share["normal"]
    count = {name: np.mean([len(world.vehicles) for world in worlds(name)]) for name in ("normal", "crowded")}
    assert count["crowded"] > 5 * count["normal"]


def test_curve_bends():
    bends = {name: np.array([abs(w.road.bend) for w in worlds(name)]) for name in ("normal", "curve")}
    assert bends["curve"].min() >= 0.0045 and bends["curve"].mean() > 3 * bends["normal"].mean()
    signs = {np.sign(world.road.bend) for world in worlds("curve")}
    assert signs == {-1, 1}


def test_shadow_darkens_the_road():
    """The darkest tenth of the road against its brightest one."""
    ratio = {}
    for name in ("normal", "shadow"):
        tenths = [np.quantile(road_part(s).mean(2), (0.1, 0.9)) for s in scenes(name, TUSIMPLE, 12)]
        ratio[name] = np.mean([low / high for low, high in tenths])
    assert ratio["shadow"] < 0.7 * ratio["normal"]


def test_arrows_lie_within_the_lanes():
    for index in range(8):
        rng = np.random.default_rng((0, index))
        world = random_world(rng, "arrow", TUSIMPLE)
        canvas = Canvas(rng, world.road, TUSIMPLE)
        paint.paint_arrows(canvas, world.marks)
        painted = canvas.image.min(2) > 0.3
        assert painted.mean() > 0.003
        from_centre = abs((canvas.u[painted] + LANE_WIDTH / 2) % LANE_WIDTH - LANE_WIDTH / 2)
        assert from_centre.max() < 1.6  # the lines are at 1.8
        assert (canvas.u[painted] > world.marks[0].position).all()
        assert (canvas.u[painted] < world.marks[-1].position).all()


def test_arrows_are_in_arrow_scenes_only(monkeypatch):
    painted = []
    monkeypatch.setattr(paint, "paint_arrows", lambda canvas, marks: painted.append(len(marks)))
    for category in CATEGORIES:
        painted.clear()
        generate_scene(0, 0, category)
        assert len(painted) == (category == "arrow")


def test_crossroad_has_a_zebra_and_no_lane():
    for index, scene in enumerate(scenes("crossroad", TUSIMPLE)):
        world = random_world(np.random.default_rng((0, index)), "crossroad", TUSIMPLE)
        assert scene.lanes == {} and world.crossing.far - world.crossing.near >= 14
        row = int((world.road.horizon + 1500 / (world.crossing.near + 1.5)) * TUSIMPLE.scale)
        grey = scene.picture[row - 1 : row + 2].mean((0, 2))
        assert np.quantile(grey, 0.9) > 1.15 * np.quantile(grey, 0.3)
