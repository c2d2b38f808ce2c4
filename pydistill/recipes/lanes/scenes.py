"""Road scenes drawn by a program: pictures whose lanes are known exactly, as a pure function of (seed, index).

They come in the nine categories of CULane's test set. Evidence is taken away on purpose (dashes, wear, vehicles,
shadows, night, glare): the lane is still labelled there, as an annotator would, and only its context tells where it is.
"""

from dataclasses import dataclass

import numpy as np

from pydistill.recipes.lanes.canvas import Bytes, Canvas
from pydistill.recipes.lanes.paint import paint
from pydistill.recipes.lanes.road import (
    FARTHEST,
    LANE_WIDTH,
    TUSIMPLE,
    Crossing,
    Floats,
    Mark,
    Road,
    Setting,
    View,
    World,
    random_crossers,
    random_marks,
    random_queues,
    random_road,
    random_vehicles,
)

CATEGORIES = {  # in the order of CULane's lists
    "normal": Setting(share=0.50),
    "crowded": Setting(share=0.12, crowd=True),
    "dazzle": Setting(share=0.04, light="dazzle"),
    "shadow": Setting(share=0.07, shade=True),
    "no line": Setting(share=0.05, contrast=(0.0, 0.04), wheels=(0.03, 0.08)),
    "arrow": Setting(share=0.05, arrows=True),
    "curve": Setting(share=0.03, bend=(0.0045, 0.009)),
    "crossroad": Setting(share=0.02, crossing=True),
    "night": Setting(share=0.12, light="night"),
}
_MIN_POINTS = 12  # a lane seen on fewer rows is not labelled


@dataclass(frozen=True)
class Scene:
    """A picture (h, w, 3) uint8 BGR, its lanes, its category.

    ``lanes`` has for each class, 1 to 4 from left to right, points (P, 2) float32 (x, y) in pixels of the view's frame,
    from top to bottom. Classes 2 and 3 bound the ego lane.
    """

    picture: Bytes
    lanes: dict[int, Floats]
    category: str


def generate_scene(seed: int, index: int, category: str | None = None, view: View = TUSIMPLE) -> Scene:
    """Draws scene ``index`` of the world ``seed``; the same arguments always give the same bytes.

    Args:
        seed: names the world, >= 0.
        index: names the scene in it, >= 0.
        category: one of ``CATEGORIES``; None takes that of ``draw_category``.
        view: the camera and what labels cover.

    Raises:
        ValueError: for a category that there is not.
    """
    category = draw_category(seed, index) if category is None else category
    rng = np.random.default_rng((seed, index))
    world = random_world(rng, category, view)
    picture = paint(Canvas(rng, world.road, view), world)
    if world.crossing:
        return Scene(picture, {}, category)
    lanes = {round(mark.position / LANE_WIDTH + 2.5): label_lane(world.road, mark, view) for mark in world.marks}
    return Scene(picture, {lane: points for lane, points in lanes.items() if len(points)}, category)


def draw_category(seed: int, index: int, without: tuple[str, ...] = ()) -> str:
    """The category of scene ``index`` in the mix of all, by their shares.

    Args:
        seed: names the world, >= 0.
        index: names the scene in it, >= 0.
        without: categories that the mix leaves out.
    """
    names = [name for name in CATEGORIES if name not in without]
    shares = np.array([CATEGORIES[name].share for name in names])
    rng = np.random.default_rng((seed, index, 1))  # another stream than the scene's
    return names[int(rng.choice(len(names), p=shares / shares.sum()))]


def random_world(rng: np.random.Generator, category: str, view: View) -> World:
    """What a scene of a category consists of."""
    if category not in CATEGORIES:
        raise ValueError(f"generate_scene: expected a category of {', '.join(CATEGORIES)}, got {category!r}")
    setting = CATEGORIES[category]
    road, marks = random_road(rng, view, setting.bend), random_marks(rng, setting.contrast)
    vehicles = random_queues(rng) if setting.crowd else random_vehicles(rng)
    if not setting.crossing:
        return World(setting, road, marks, vehicles)
    near = rng.uniform(4.5, 6)
    crossing = Crossing(near, near + rng.uniform(14, 24), stop_line=bool(rng.random() < 0.6))
    crossers = random_crossers(rng, (crossing.near + 4, crossing.far - 4))
    beyond = [vehicle for vehicle in vehicles if vehicle.depth > crossing.far]
    return World(setting, road, marks, beyond + crossers, crossing)


def label_lane(road: Road, mark: Mark, view: View) -> Floats:
    """Points (P, 2) of a lane as (x, y), from top to bottom; none for a lane that is hardly in the picture at all."""
    rows = np.array(view.rows, np.float32)
    depth = road.depth(rows)
    columns = road.column(mark.position, depth)
    near = (rows > road.horizon) & (depth < FARTHEST)
    inside = near & (columns >= 0) & (columns <= view.frame[1] - 1)
    labelled = near & (columns >= -view.outside) & (columns <= view.frame[1] - 1 + view.outside)
    points = np.stack([columns, rows], 1)[labelled]
    return np.asarray(points if inside.sum() >= _MIN_POINTS else points[:0], np.float32)
