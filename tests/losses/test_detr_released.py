"""DETRDistillLoss against what the released code computed, in value and gradient."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import softplus

from pydistill.losses import DETRDistillLoss, SetPrediction, SetTargets
from tests.conformance import assert_close, relative_error
from tests.golden import golden

G = {name: torch.from_numpy(x) for name, x in golden("detr_distill").items() if x.dtype.kind in "fi"}
NAMES = golden("detr_distill")
TERMS = {"classification": "cls", "l1": "bbox", "giou": "iou"}
INSTANCE = {"instance_class": "cls_distill", "instance_l1": "bbox_distill", "instance_giou": "iou_distill"}
FLOAT32 = 2e-6  # the reference's class costs and class targets


def targets():
    """The annotated boxes of both images, padded with what must not be read."""
    sizes = G["dd_img_hw"]
    boxes, labels = torch.full((2, 6, 4), torch.nan, dtype=torch.float64), torch.full((2, 6), 99)
    for i in range(2):
        low, high = G[f"dd_gt_boxes_{i}"].split(2, 1)
        n, whole = len(low), sizes[i].flip(0)
        boxes[i, :n] = torch.cat([(low + high) / 2 / whole, (high - low) / whole], 1)
        labels[i, :n] = G[f"dd_gt_labels_{i}"]
    return SetTargets(labels, boxes, torch.tensor([5, 3]), sizes)


def released(**options):
    off = dict(classification=0.0, l1=0.0, giou=0.0, instance=0.0, feature=0.0, relation=0.0, group=0.0)
    return DETRDistillLoss(reference="released", **{**off, **options})


def sums(prefix, names):
    """What the code reports for each of ``names``, added up over its stages."""
    found = {name: torch.zeros((), dtype=torch.float64) for name in names}
    for name, value in zip(NAMES[f"{prefix}_names"], NAMES[f"{prefix}_values"], strict=True):
        key = str(name).rpartition("loss_")[2]
        if key in found:
            found[key] += float(value)
    return found


def student():
    return SetPrediction(
        G["dd_student_logits"].clone().requires_grad_(), G["dd_student_boxes"].clone().requires_grad_()
    )


def teacher():
    return SetPrediction(G["dd_teacher_logits"], G["dd_teacher_boxes"])


def gradients(loss, prediction):
    inputs = (prediction.logits, prediction.boxes)
    grads = torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, grads, strict=True)]


def test_the_detector_and_its_instances():
    s = student()
    own = dict(classification=None, l1=None, giou=None)
    got = released(instance=1.0, **own)(s, teacher(), targets())
    want = sums("dd_loss", [*TERMS.values(), *INSTANCE.values()])
    for name, theirs in {**TERMS, **INSTANCE}.items():
        assert relative_error(got[name], want[theirs]) < FLOAT32, name
    for name, theirs in INSTANCE.items():
        want = [G[f"dd_grad_{x}_{theirs}"] for x in ("logits", "boxes")]
        assert_close(gradients(got[name], s), want, FLOAT32)
    assert_close(
        gradients(sum(got[name] for name in TERMS), s), [G["dd_grad_logits_det"], G["dd_grad_boxes_det"]], 1e-6
    )


def test_the_teachers_last_stage():
    got = released(instance=1.0, instance_stage="last")(student(), teacher(), targets())
    want = sums("dd_last_loss", INSTANCE.values())
    for name, theirs in INSTANCE.items():
        assert relative_error(got[name], want[theirs]) < FLOAT32, name


def test_fewer_queries_of_the_teacher():
    """Over the pairs, as released. Its defect, which makes of a class loss of 3 one of 47, is that queries without a
    partner have the target C."""
    s, pairs = student(), 2 * 18
    t = SetPrediction(teacher().logits[:, :, :18], teacher().boxes[:, :, :18])
    got = released(instance=1.0)(s, t, targets())
    want = sums("dd_fewer_loss", INSTANCE.values())
    for name in ("instance_l1", "instance_giou"):
        assert relative_error(got[name], want[INSTANCE[name]]) < FLOAT32, name
    alone = (gradients(got["instance_class"], s)[0] == 0).all(-1)
    assert alone.sum() == 3 * 2 * 6
    x = s.logits.detach()[alone]
    defect = (softplus(x) - x.shape[1] * x).sum() / pairs
    assert relative_error(got["instance_class"].detach() + defect, want["cls_distill"]) < FLOAT32


def feature_scene(grad=False):
    maps = [[G[f"tf_{whose}_feat_{n}"].clone() for n in range(3)] for whose in ("student", "teacher")]
    for x in maps[0]:
        x.requires_grad_(grad)
    s = SetPrediction(G["dd_student_logits"], G["dd_student_boxes"], G["cl_student_hs"], maps[0])
    return s, SetPrediction(G["tf_cls_logits"], G["tf_boxes"], G["tf_hs"], maps[1])


def test_features():
    s, t = feature_scene(grad=True)
    got = released(feature=1.0, topk=10)(s, t, targets())["feature"]
    assert relative_error(got, G["tf_feat_loss"].sum()) < 1e-9
    assert_close(torch.autograd.grad(got, s.features), [G[f"tf_grad_student_feat_{n}"] for n in range(3)], 1e-9)
    plain = released(feature=1.0, feature_region="none")(s, t, targets())["feature"]
    assert relative_error(plain, G["tf_feat_loss_zeroscore"].sum()) < 1e-9
    no_overlap = SetTargets(**{**vars(targets()), "boxes": targets().boxes + 9})
    zero = released(feature=1.0, topk=10)(s, t, no_overlap)["feature"]
    assert relative_error(zero, G["tf_feat_loss_zeroscore"].sum()) < 1e-9


def head_of(loss):
    """Puts the released head's parameters into ``loss``."""
    places = {"img_projs__0__0": 0, "encoder_img__0": 1, "encoder_img__1": 2, "encoder_img__3": 4}
    for own, theirs in (("student", "img"), ("teacher", "pts")):
        for place, index in places.items():
            for name, tensor in getattr(loss.head, own)[index].state_dict().items():
                tensor.copy_(G[f"cl_w_{place.replace('img', theirs)}__{name}"])
    return loss


def test_relation():
    """The head on rows that are matched already, and in the whole step, where it is added to the features."""
    loss = head_of(released(feature=1.0, relation=0.2, projection=(16, 12), topk=10).double())
    s, t = feature_scene()
    rows = G["cl_student_query"].clone().requires_grad_()
    one = SetPrediction(s.logits[:1, :, :24], s.boxes[:1], rows.view(1, 2, 24, 16))
    same = SetPrediction(one.logits, one.boxes, G["cl_teacher_query"].view(1, 2, 24, 16))
    alone = head_of(released(relation=0.2, projection=(16, 12)).double())
    got = alone(one, same, targets())["relation"]
    assert relative_error(got, G["cl_loss"]) < 1e-9
    assert_close(torch.autograd.grad(got, rows), [G["cl_grad_student_query"]], 1e-9)
    match = torch.stack([torch.stack([G[f"cl_pos_inds_{k}_{i}"] for i in range(2)]) for k in range(3)]).unsqueeze(-1)
    s = replace(s, logits=t.logits.take_along_dim(match, 2), boxes=t.boxes.take_along_dim(match, 2))
    terms = loss(s, t, targets())
    assert relative_error(terms["feature"] + terms["relation"], G["tf_feat_plus_cl_loss"].sum()) < 1e-9


@pytest.mark.parametrize(("assignment", "name"), [("teacher", "fixed"), ("rematch", "rematch")])
def test_group(assignment, name):
    """The released code re-matches the group; what it would have done with the teacher's assignment was run too."""
    group = SetPrediction(G["tg_cls_logits"].clone().requires_grad_(), G["tg_boxes"].clone().requires_grad_())
    _, t = feature_scene()
    got = released(group=1.0, assignment=assignment)(student(), t, targets(), group=group)
    want = sums(f"tg_{name}", TERMS.values())
    for term, theirs in TERMS.items():
        assert relative_error(got[f"group_{term}"], want[theirs]) < 1e-6, term
    want = [G[f"tg_{name}_grad_{x}"] for x in ("logits", "boxes")]
    assert_close(gradients(sum(got.values()), group), want, 1e-6)
