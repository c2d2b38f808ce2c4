"""Small data sets in COCO's layout and a training of seconds, for the tests."""

import json

import cv2
import numpy as np
import torch

from pydistill.recipes.dense.config import DenseConfig
from pydistill.recipes.dense.training import build_model


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


TINY = DenseConfig(
    width=0.125, strides=(8, 16), fpn_channels=8, convolutions=1, steps=4, batch=2, warmup=2,
    log_every=1, evaluate_every=4, probe=2, save_every=2, lr=1e-3,
)  # fmt: skip


def make_teacher(config=TINY, classes=3):
    """A teacher of the same shape with weights of its own."""
    torch.manual_seed(77)
    return build_model(config, classes).eval()
