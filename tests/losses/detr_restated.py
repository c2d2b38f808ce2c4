"""The paper's objective of DETRDistill, stage by stage, image by image and query by query, in float64 with SciPy."""

import torch
from scipy.optimize import linear_sum_assignment
from torch.nn.functional import cosine_similarity, normalize

OWN = {"detr": (1, 5, 2), "rt_detr": (1, 5, 2), "d_fine": (1, 5, 2)}


def corners(b):
    return torch.cat([b[..., :2] - b[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2], -1)


def overlap(a, b):
    """IoU and GIoU of boxes."""
    a, b = corners(a), corners(b)
    inter = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - inter
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    return inter / union, inter / union - (hull - union) / hull


def cut(b):
    b = corners(b).clamp(0, 1)
    return torch.cat([(b[..., :2] + b[..., 2:]) / 2, b[..., 2:] - b[..., :2]], -1)


def distance(a, b, detector):
    if detector == "adamixer":
        a, b = corners(a), corners(b)
    return (a - b).abs().sum(-1)


def solve(cost):
    """{row: column}"""
    rows, columns = linear_sum_assignment(cost.numpy())
    return dict(zip(rows.tolist(), columns.tolist()))


@torch.no_grad()
def match_boxes(logits, boxes, labels, truths, detector):
    """{query: box}"""
    p = (logits.softmax(1) if detector == "detr" else logits.sigmoid())[:, labels]
    focal = -0.25 * (1 - p) ** 2 * (p + 1e-8).log() + 0.75 * p**2 * (1 - p + 1e-8).log()
    far = 5 * distance(boxes[:, None], truths, detector) - 2 * overlap(boxes[:, None], truths)[1]
    return solve(far + (-p if detector == "detr" else 2 * focal))


@torch.no_grad()
def match_queries(logits, boxes, teacher_logits, teacher_boxes, detector):
    """{student's query: teacher's query}"""
    b, c = boxes[:, None], cut(teacher_boxes)
    if detector == "detr":
        of_class = -(logits.softmax(1) @ teacher_logits.softmax(1).T)
    else:
        of_class = soft(logits[:, None], teacher_logits)
    return solve(of_class + 5 * (b - c).abs().sum(-1) - 2 * overlap(b, c)[1])


def soft(x, t):
    p = t.sigmoid()
    return -(p * x.sigmoid().log() + (1 - p) * (1 - x.sigmoid()).log()).sum(-1)


def classification(x, label, detector, iou):
    """Weight and loss of one query; ``label`` None is background."""
    if detector == "detr":
        weight = 0.1 if label is None else 1.0
        return weight, -weight * x.log_softmax(0)[-1 if label is None else label]
    p, varifocal = x.sigmoid(), detector in ("rt_detr", "d_fine")
    rows = -0.75 * (p.detach() if varifocal else p) ** 2 * (1 - p).log()
    if label is None:
        return 0.0, rows.sum()
    q, others = p[label], rows.sum() - rows[label]
    if varifocal:
        y = iou.detach()
        return 0.0, others - y * (y * q.log() + (1 - y) * (1 - q).log())
    return 0.0, others - 0.25 * (1 - q) ** 2 * q.log()


def own_terms(p, targets, matches, detector):
    """The detector's own terms of a prediction whose {query: box} of each stage and image is given."""
    terms, boxes = dict.fromkeys(("classification", "l1", "giou"), 0.0), max(int(targets.counts.sum()), 1)
    for stage, of_images in enumerate(matches):
        total, weights = 0.0, 0.0
        for i, match in enumerate(of_images):
            for q in range(p.logits.shape[2]):
                b, g = p.boxes[stage, i, q], match.get(q)
                truth = None if g is None else targets.boxes[i, g]
                iou, giou = (None, None) if g is None else overlap(b, truth)
                label = None if g is None else int(targets.labels[i, g])
                weight, loss = classification(p.logits[stage, i, q], label, detector, iou)
                total, weights = total + loss, weights + weight
                if g is not None:
                    terms["l1"] = terms["l1"] + distance(b, truth, detector) / boxes
                    terms["giou"] = terms["giou"] + (1 - giou) / boxes
        terms["classification"] = terms["classification"] + total / (weights if detector == "detr" else boxes)
    return {name: w * terms[name] for name, w in zip(terms, OWN.get(detector, (2, 5, 2)))}


def mask(stage, i, features, teacher, targets, detector, region, gamma, topk):
    """(h, w) of one image, level and stage."""
    _, h, w = features.shape
    truths = targets.boxes[i, : targets.counts[i]]
    if region == "none":
        return torch.ones(h, w, dtype=torch.float64)
    if region == "boxes":
        y, x = torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")
        hit = [(c[0] < x) & (x < c[2]) & (c[1] < y) & (y < c[3]) for c in map(corners, truths)]
        return sum(hit, torch.zeros(h, w)).clamp(max=1).double()
    logits = teacher.logits[stage, i]
    scores = logits.softmax(1)[:, :-1] if detector == "detr" else logits.sigmoid()
    best = scores.max(1).values
    m = torch.zeros(h, w, dtype=torch.float64)
    for q in best.argsort(descending=True)[: None if region == "query" else topk].tolist():
        iou = max((overlap(teacher.boxes[stage, i, q], g)[0] for g in truths), default=torch.ones(()).double())
        quality = 1.0 if region == "query" else best[q] ** gamma * iou ** (1 - gamma)
        m = m + quality * cosine_similarity(teacher.queries[stage, i, q][:, None, None], features, dim=0)
    m = m.clamp(min=0.01)
    return m / m.max()


TAUGHT = {"all": (1, 1), "positives": (1, 0), "negatives": (0, 1)}


def objective(student, teacher, targets, group, *, detector="deformable_detr", stages, paired=None,
              pairs=("positives", "all"), region="quality", assignment="teacher", gamma=0.5, topk=100,
              divisor="pairs"):  # fmt: skip
    """The weighted terms; ``stages`` and ``paired`` are the teacher's stage for each of the student's."""
    paired, images, layers = paired or stages, range(len(targets.counts)), range(len(stages))
    truths = [(targets.labels[i, :n].tolist(), targets.boxes[i, :n]) for i, n in enumerate(targets.counts.tolist())]

    def annotated(p, stage):
        return [match_boxes(p.logits[stage, i], p.boxes[stage, i], *truths[i], detector) for i in images]

    terms = own_terms(student, targets, [annotated(student, k) for k in layers], detector)
    learned = [annotated(teacher, stages[k]) if assignment == "teacher" else annotated(group, k) for k in layers]
    terms |= {f"group_{name}": x for name, x in own_terms(group, targets, learned, detector).items()}
    sums, relation = dict.fromkeys(("instance_class", "instance_l1", "instance_giou"), 0.0), 0.0
    for k in layers:
        positive, stage, of_stage, count = annotated(teacher, paired[k]), paired[k], dict.fromkeys(sums, 0.0), 0
        queries = [], []
        for i in images:
            there = teacher.logits[stage, i], teacher.boxes[stage, i]
            found = match_queries(student.logits[k, i], student.boxes[k, i], *there, detector)
            for q, j in found.items():
                queries[0].append(normalize(student.queries[k, i, q], dim=0))
                queries[1].append(normalize(teacher.queries[stage, i, j], dim=0))
                kind = 0 if j in positive[i] else 1
                count += kind == 0
                x, t, b, c = student.logits[k, i, q], there[0][j], student.boxes[k, i, q], cut(there[1][j])
                kl = (t.softmax(0) * (t.log_softmax(0) - x.log_softmax(0))).sum()
                values = kl if detector == "detr" else soft(x, t), 5 * (b - c).abs().sum(), 2 * (1 - overlap(b, c)[1])
                shares = [TAUGHT[pairs[n > 0]][kind] for n in range(3)]
                for name, value, share in zip(sums, values, shares):
                    of_stage[name] = of_stage[name] + share * value
        n = len(images) * min(student.logits.shape[2], teacher.logits.shape[2])
        n = max(count, 1) if divisor == "positives" else n
        sums = {name: sums[name] + of_stage[name] / n for name in sums}
        similar = torch.stack(queries[1]) @ torch.stack(queries[0]).T / 0.07
        relation = relation - similar.log_softmax(1).diagonal().mean()
    terms |= sums | {"relation": relation}
    feature = 0.0
    for s, t in zip(student.features, teacher.features):
        for k in layers:
            for i in images:
                m = mask(stages[k], i, t[i], teacher, targets, detector, region, gamma, topk)
                feature = feature + (m**2 * (s[i] - t[i]) ** 2).mean() / len(images)
    return terms | {"feature": feature}
