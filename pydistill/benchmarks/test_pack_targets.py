"""pack_targets: boxes of 64 pictures, up to 20 each. Plain PyTorch, against its own padding.

Operations: none. The floor reads the boxes and fills the room.
"""

import torch

from pydistill.benchmarks.cases import agree, times
from pydistill.benchmarks.timing import rotate
from pydistill.ops import pack_targets


def padded(*boxes):
    counts = torch.tensor([len(b) for b in boxes], device=boxes[0].device)
    return torch.nn.utils.rnn.pad_sequence(boxes, batch_first=True), counts


def test_boxes(compare, device, scale):
    rng = torch.Generator().manual_seed(0)
    counts = torch.randint(1, 21, (times(scale, 64),), generator=rng).tolist()
    boxes = [torch.rand(n, 4, generator=rng).to(device) for n in counts]
    agree("ours", pack_targets(boxes), padded(*boxes))
    room = len(counts) * max(counts) * 4
    compare(
        ours=rotate(lambda *b: pack_targets(b), *boxes),
        eager=rotate(padded, *boxes),
        floor=rotate(lambda *b: (torch.cat(b), b[0].new_zeros(room)), *boxes),
        bytes_moved=4 * (sum(x.numel() for x in boxes) + room) + 8 * len(counts),
        operations=0,
        iterations=10,
    )
