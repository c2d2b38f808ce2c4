"""Small data sets in COCO's layout, for the tests."""

import json

import cv2
import numpy as np


def write_dataset(root, sizes, annotations, *, split="val", categories=((1, "a"), (2, "b")), pictures=None):
    """Pictures of some (height, width), ids from 1 on, and annotations (image_id, category_id, bbox, iscrowd)."""
    folder = root / split
    folder.mkdir(parents=True)
    for number, (h, w) in enumerate(sizes, 1):
        picture = np.full((h, w, 3), 40 * number % 256, np.uint8) if pictures is None else pictures[number - 1]
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": h, "width": w} for i, (h, w) in enumerate(sizes, 1)],
        "annotations": [
            dict(id=i, image_id=image, category_id=category, bbox=list(box), area=box[2] * box[3], iscrowd=crowd)
            for i, (image, category, box, crowd) in enumerate(annotations, 1)
        ],
        "categories": [{"id": id, "name": name} for id, name in categories],
    }
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root
