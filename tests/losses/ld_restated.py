"""The objectives of LD once more, image by image and level by level, in plain float64 torch, for the tests alone."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pydistill.ops.assign_atss import assign_atss_reference

EPS32 = 2.0**-23


@dataclass
class Scene:
    anchors: torch.Tensor
    sizes: list
    strides: tuple
    boxes: torch.Tensor
    labels: torch.Tensor
    counts: torch.Tensor
    valid: torch.Tensor = None


def corners(a, b):
    """Intersection, areas, enclosing area, squared diagonal and centre distance of aligned boxes."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    area_a, area_b = (a[..., 2:] - a[..., :2]).prod(-1), (b[..., 2:] - b[..., :2]).prod(-1)
    rho = ((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2).square().sum(-1)
    return inter, area_a, area_b, hull.prod(-1), hull.square().sum(-1), rho


def iou(a, b):
    inter, area_a, area_b, *_ = corners(a, b)
    return inter / (area_a + area_b - inter)


def giou_rows(a, b):
    inter, area_a, area_b, hull, *_ = corners(a, b)
    union = area_a + area_b - inter
    return 1 - inter / union + (hull - union) / hull


def kl_rows(student, teacher, temperature):
    p, q = (teacher / temperature).log_softmax(-1), (student / temperature).log_softmax(-1)
    return temperature**2 * (p.exp() * (p - q)).mean(-1)


def quality_rows(x, label, score, activated):
    p = x if activated else x.sigmoid()
    y = torch.zeros_like(p)
    for row, (c, value) in enumerate(zip(label.tolist(), score)):
        if 0 <= c < x.shape[1]:
            y[row, c] = value
    bce = -(y * p.log() + (1 - y) * (1 - p).log())
    return ((y - p).abs().square() * bce).sum(1)


def focal_rows(x, label):
    p = x.sigmoid()
    rows = -0.75 * p.square() * (1 - p).log()
    target = 0.25 * (1 - p).square() * -p.log()
    chosen = F.one_hot(label.clamp(min=0), x.shape[1]).bool() & (label >= 0)[:, None]
    return torch.where(chosen, target, rows).sum(1)


def dfl_rows(z, target):
    low = target.floor().long()
    logp = z.log_softmax(-1)
    up = target - low
    return -(1 - up) * logp.gather(1, low[:, None])[:, 0] - up * logp.gather(1, low[:, None] + 1)[:, 0]


def assign(scene, i, assigner):
    """gt index of each anchor of image i (-1 background, -2 ignored) and ATSS' thresholds."""
    g = int(scene.counts[i])
    boxes = scene.boxes[i : i + 1, :g]
    valid = None if scene.valid is None else scene.valid[i : i + 1]
    atss = assign_atss_reference(scene.anchors, scene.sizes, boxes, torch.tensor([g]), valid=valid)
    if assigner == "atss" or g == 0:
        return atss.gt_index[0], atss.threshold[0]
    index = torch.full((len(scene.anchors),), -1)
    if assigner == "max_iou":
        overlap = iou(scene.anchors[:, None], boxes)
        best, which = overlap.max(1)
        index[best >= 0.4] = -2
        index[best >= 0.5] = which[best >= 0.5]
        for j in range(g):
            index[overlap[:, j] == overlap[:, j].max()] = j
        return index, atss.threshold[0]
    points = (scene.anchors[:, :2] + scene.anchors[:, 2:]) / 2
    starts = [-1, 64, 128, 256, 512]
    at = 0
    for level, (size, stride) in enumerate(zip(scene.sizes, scene.strides)):
        for a in range(at, at + size):
            smallest = 1e8
            for j, box in enumerate(boxes[0]):
                sides = torch.cat([points[a] - box[:2], box[2:] - points[a]])
                centre = (box[:2] + box[2:]) / 2
                central = (points[a] - centre).abs().max() < 1.5 * stride and sides.min() > 0
                high = starts[level + 1] if level + 1 < len(starts) else 1e8
                area = (box[2:] - box[:2]).prod()
                if central and starts[level] <= sides.max() <= high and area < smallest:
                    index[a], smallest = j, area
        at += size
    return index, atss.threshold[0]


def region(scene, i, index, threshold, preset, paper):
    """The valuable localization region of image i: IoU inside, 0 outside."""
    boxes, anchors = scene.boxes[i, : int(scene.counts[i])], scene.anchors
    value = anchors.new_zeros(len(anchors))
    for j, box in enumerate(boxes):
        inter, area, other, _, diagonal, rho = corners(anchors, box)
        if preset == "fcos":
            points = (anchors[:, :2] + anchors[:, 2:]) / 2
            value[((points > box[:2]) & (points < box[2:])).all(1)] = 1
            continue
        high = iou(anchors, box).max().clamp(max=0.5) if paper and preset == "retina" else threshold[j]
        x = inter / (area + other - inter if paper else area) - rho / diagonal
        band = (x >= 0.25 * high) & ((x <= high) if paper else (x < high))
        value = torch.where(band, torch.maximum(value, iou(anchors, box)), value)
    if paper or preset in ("fcos", "retina"):
        value[index >= 0] = 0
    if paper:
        value[index == -2] = 0
    if scene.valid is not None:
        value[~scene.valid[i]] = 0
    return value


def objective(preset, reference, student, teacher, scene, box_rows=giou_rows):
    """Each term, already weighted and added up over the levels; ``box_rows`` is the loss of predicted boxes."""
    paper = reference == "paper"
    eps = EPS32 if reference == "mmdet" else 0.0
    assigner = {"fcos": "points", "retina": "max_iou"}.get(preset, "atss")
    images, n = len(scene.boxes), student.sides.shape[2] // 4
    found = [assign(scene, i, assigner) for i in range(images)]
    regions = [region(scene, i, *found[i], preset, paper) for i in range(images)]
    in_region = sum((r > 0).sum().item() for r in regions)
    positives = [(index >= 0).sum().item() for index, _ in found]
    samples = max(sum(positives), 1) if preset == "fcos" and not paper else sum(max(k, 1) for k in positives)
    names = ("classification", "centerness", "box", "dfl", "pseudo_box", "main_ld", "vlr_ld", "main_kd", "vlr_kd")
    terms = dict.fromkeys(names, student.logits.sum() * 0)
    total = 0.0  # of the weights of the box loss
    at = 0
    for size, stride in zip(scene.sizes, scene.strides):
        part = slice(at, at + size)
        at += size

        def rows(x, part=part):
            return x[:, part].flatten(0, 1)

        index = torch.cat([i[part] for i, _ in found])
        vlr = torch.cat([r[part] for r in regions])
        image = torch.arange(images).repeat_interleave(size)
        x, z, tx, tz = (rows(v) for v in (student.logits, student.sides, teacher.logits, teacher.sides))
        probability = rows(student.scores) if preset == "gflv2" else x.sigmoid()
        w = probability.detach().amax(1)
        anchors = scene.anchors[part].repeat(images, 1)
        centre = (anchors[:, :2] + anchors[:, 2:]) / 2 / stride
        pos = (index >= 0).nonzero()[:, 0]
        label = torch.full_like(index, -1)
        label[pos] = scene.labels[image[pos], index[pos]]
        learns = (index != -2).double()
        target = scene.boxes[image[pos], index[pos]] / stride
        distance = (z[pos].view(-1, 4, n).softmax(-1) * torch.arange(n)).sum(-1)
        box = torch.cat([centre[pos] - distance[:, :2], centre[pos] + distance[:, 2:]], 1)
        score = torch.zeros(len(index), dtype=torch.float64)
        score[pos] = iou(box.detach(), target)

        if preset in ("gfl", "gflv2"):
            cls = quality_rows(probability if preset == "gflv2" else x, label, score, preset == "gflv2")
        else:
            cls = focal_rows(x, label)
        terms["classification"] = terms["classification"] + (cls * learns).sum() / (samples + eps)

        near, far = centre[pos] - target[:, :2], target[:, 2:] - centre[pos]
        central = (torch.minimum(near, far) / torch.maximum(near, far)).prod(1).sqrt()
        weight = {"gfl": w[pos], "gflv2": w[pos], "retina": torch.ones(len(pos))}.get(preset, central)
        total += weight.sum()
        theirs = (tz[pos].view(-1, 4, n).softmax(-1) * torch.arange(n)).sum(-1)
        theirs = torch.cat([centre[pos] - theirs[:, :2], centre[pos] + theirs[:, 2:]], 1)
        terms["pseudo_box"] = terms["pseudo_box"] + (box_rows(box, theirs) * weight).sum()
        loss = (box_rows(box, target) * weight).sum() / (1 + eps)
        terms["box"] = terms["box"] + (1 if preset == "fcos" else 2) * loss
        if preset in ("atss", "fcos"):
            bce = F.binary_cross_entropy_with_logits(rows(student.centerness)[pos], central, reduction="sum")
            terms["centerness"] = terms["centerness"] + bce / samples
        if preset in ("gfl", "gflv2"):
            sides = torch.cat([near, far], 1).clamp(0, n - 1 - 0.1).flatten()
            dfl = dfl_rows(z[pos].reshape(-1, n), sides) * weight.repeat_interleave(4)
            terms["dfl"] = terms["dfl"] + 0.25 * dfl.sum() / (4 + eps)

        rest = (vlr > 0).nonzero()[:, 0]
        value = w[rest] if preset == "fcos" else vlr[rest]
        if preset == "retina" and not paper:
            main, extra = (kl_rows(z[k], tz[k], 10) for k in (pos, rest))
        else:
            main, extra = (kl_rows(z[k].view(-1, 4, n), tz[k].view(-1, 4, n), 10).sum(1) for k in (pos, rest))
        of_main = (5 / 16 if paper else 5) if preset == "retina" else 0.25
        of_main, divisor = of_main * 2 / images if paper else of_main, 16 if preset in ("gfl", "gflv2") else 4
        factor = {"atss": 0.15, "fcos": 0.25, "retina": 0.03}.get(preset, 1)
        terms["main_ld"] = terms["main_ld"] + of_main * (main * w[pos]).sum() / (4 + eps)
        terms["vlr_ld"] = terms["vlr_ld"] + factor * of_main * (extra * value).sum() / divisor
        warm = 8 if preset == "retina" else 2
        for name, rows_of, count in (("main_kd", pos, sum(positives)), ("vlr_kd", rest, in_region)):
            if len(rows_of):
                kd = (kl_rows(x[rows_of], tx[rows_of], warm) * learns[rows_of]).sum()
                terms[name] = terms[name] + 10 * kd / (count if paper else len(rows_of))
    over = samples if preset == "retina" else total + 1e-6 * (not paper) if preset in ("gfl", "gflv2") else total
    if over:
        terms |= {name: terms[name] / over for name in ("box", "dfl", "pseudo_box")}
    return terms
