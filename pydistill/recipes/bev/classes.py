"""What nuScenes' detection task knows: classes, the groups that share a head, and how far each counts."""

CLASSES = (
    "car", "truck", "construction_vehicle", "bus", "trailer", "barrier", "motorcycle", "bicycle", "pedestrian",
    "traffic_cone",
)  # fmt: skip
TASKS = (
    (0,),
    (1, 2),
    (3, 4),
    (5,),
    (6, 7),
    (8, 9),
)  # of classes that look alike: one head each, as CenterPoint has them
RANGES = (
    50.0,
    50.0,
    50.0,
    50.0,
    50.0,
    30.0,
    40.0,
    40.0,
    40.0,
    30.0,
)  # metres from the ego within which a class is scored

# Category of an annotation -> class; what is not here is not detected.
CATEGORIES = {
    "vehicle.car": "car",
    "vehicle.truck": "truck",
    "vehicle.construction": "construction_vehicle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.trailer": "trailer",
    "movable_object.barrier": "barrier",
    "vehicle.motorcycle": "motorcycle",
    "vehicle.bicycle": "bicycle",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "movable_object.trafficcone": "traffic_cone",
}
CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_FRONT_LEFT")
LIDAR = "LIDAR_TOP"
