"""Calls every public op with wrong arguments: each call must return, or raise ValueError or TypeError.

    python tools/fuzz.py [--seconds 60] [--seed N] [--case N] [--op NAME]

A case is a valid call with up to three of its arguments replaced: tensors by tensors of other shapes, dtypes, strides,
devices and layouts, with NaN and infinity, and with sizes of 2^42; options by anything. The calls run in a child; a
signal, a hang or another exception is a fault, and is printed with the case that repeats it.
"""

import argparse
import faulthandler
import inspect
import itertools
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

import pydistill.ops

HANG_SECONDS = 30
MEMORY_BYTES = 16 << 30
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8]
DTYPES += [torch.bool, torch.complex64]
SCALARS: list[Any] = [0, 1, -1, 2, 3, 255, 2**31, 2**63 - 1, 0.0, -0.5, 1e-300, 1e300, float("nan"), float("inf")]
SCALARS += [True, None, "", "mean", "sum", "none", [], [1], (4, 5), (0, 0), (-1, 3), (2**40, 2), {}, object()]

Random = random.Random
Arguments = dict[str, Any]


def real(*shape: int) -> torch.Tensor:
    """A float32 tensor that asks for a gradient."""
    return torch.randn(shape).requires_grad_()


def boxes(*shape: int) -> torch.Tensor:
    """Boxes x1, y1, x2, y2 with positive sides."""
    corner = torch.rand(*shape, 2) * 50
    return torch.cat([corner, corner + 1 + torch.rand(*shape, 2) * 50], -1)


def _attention_options(rng: Random) -> Arguments:
    return {
        "size": rng.choice([None, (8, 10), (3, 3)]),
        "mapping": rng.choice(["sum_power", "max_power"]),
        "power": rng.choice([1.0, 2.0, 3.0]),
        "normalize": rng.choice([None, "mean", "standardize"]),
        "temperature": 0.5,
        "align_corners": rng.random() < 0.5,
    }


def _attention_map(rng: Random) -> Arguments:
    return {"features": real(2, 3, 4, 5), **_attention_options(rng)}


def _attention_distillation_loss(rng: Random) -> Arguments:
    return {
        "shallow": real(2, 3, 8, 10),
        "deep": rng.choice([real(2, 4, 4, 5), real(2, 3, 8, 10)]),
        **_attention_options(rng),
        "size": None,
        "reduction": rng.choice(["batchmean", "mean", "sum"]),
        "detach_target": rng.random() < 0.5,
    }


def _channel_energy(rng: Random) -> Arguments:
    return {"features": real(2, 3, 4, 5), "mapping": rng.choice(["sum_power", "max_power"]), "power": 2.0}


def _energy_distillation_loss(rng: Random) -> Arguments:
    arguments = _attention_distillation_loss(rng)
    del arguments["mapping"], arguments["power"]
    return {**arguments, "shallow": real(2, 8, 10), "deep": real(2, 4, 5)}


def _soft_iou_loss(rng: Random) -> Arguments:
    form = rng.choice(["lanes", "port", "port0", "binary", "paper_literal"])
    classes = 1 if form == "binary" else rng.choice([2, 5])
    return {
        "logits": real(2, classes, 4, 5),
        "labels": torch.randint(max(classes, 2), (2, 4, 5)),
        "form": form,
        "absent": rng.choice([None, "skip", "one"]),
        "ignore_index": rng.choice([255, 0, -100]),
    }


def _softmax_kl(rng: Random) -> Arguments:
    return {
        "student": real(6, 17),
        "teacher": real(6, 17),
        "temperature": 10.0,
        "dim": -1,
        "weight": rng.choice([None, torch.rand(6)]),
        "bins": rng.choice(["sum", "mean"]),
        "reduction": rng.choice(["none", "mean", "sum"]),
        "detach_target": rng.random() < 0.5,
    }


def _masked_feature_loss(rng: Random) -> Arguments:
    return {
        "student": real(2, 3, 4, 5),
        "teacher": torch.randn(2, 3, 4, 5),
        "mask": rng.choice([torch.rand(2, 4, 5), torch.rand(2, 4, 5) > 0.5]),
        "norm": rng.choice([1, 2]),
        "mask_power": rng.choice([1, 2]),
        "channels": rng.choice(["mean", "sum"]),
        "normalizer": rng.choice(["elements", "mask", 2.0, torch.tensor([3.0])]),
    }


def _integral(rng: Random) -> Arguments:
    return {
        "logits": real(2, 5, 4, 17),
        "bins": rng.choice([None, torch.rand(17)]),
        "mask": rng.choice([None, torch.rand(2, 5, 1) > 0.5]),
    }


def _row_options(rng: Random) -> Arguments:
    return {"weight": rng.choice([None, torch.rand(6)]), "reduction": rng.choice(["none", "mean", "sum"])}


def _quality_focal_loss(rng: Random) -> Arguments:
    activated = rng.random() < 0.5
    return {
        "logits": torch.rand(6, 5).requires_grad_() if activated else real(6, 5),
        "labels": torch.randint(-1, 6, (6,)),
        "scores": torch.rand(6),
        "beta": rng.choice([0.0, 1.0, 1.5, 2.0]),
        "activated": activated,
        **_row_options(rng),
    }


def _sigmoid_focal_loss(rng: Random) -> Arguments:
    return {
        "logits": real(6, 5),
        "targets": rng.choice([torch.randint(-1, 6, (6,)), torch.rand(6, 5).round()]),
        "alpha": rng.choice([0.25, -1.0]),
        "gamma": rng.choice([0.0, 1.0, 1.5, 2.0]),
        **_row_options(rng),
    }


def _distribution_focal_loss(rng: Random) -> Arguments:
    return {"logits": real(6, 17), "target": 20 * torch.rand(6) - 2, **_row_options(rng)}


def _pairwise_iou(rng: Random) -> Arguments:
    aligned = rng.random() < 0.5
    mode = rng.choice(["iou", "iof", "giou", "diou", "ciou", "diou_released"])
    return {"a": boxes(5), "b": boxes(5 if aligned else 3), "mode": mode, "aligned": aligned, "eps": 1e-6}


def _box_iou(rng: Random) -> Arguments:
    return {"boxes1": boxes(5), "boxes2": boxes(3)}


def _box_loss(rng: Random) -> Arguments:
    return {
        "prediction": boxes(2, 5).requires_grad_(),
        "target": boxes(2, 5),
        "weight": rng.choice([None, torch.rand(2, 5), torch.rand(5) > 0.5]),
        "reduction": rng.choice(["none", "mean", "sum"]),
        "eps": 1e-6,
    }


def _distance_to_box(rng: Random) -> Arguments:
    return {"points": torch.rand(5, 2), "distances": real(2, 5, 4), "scale": rng.choice([None, torch.rand(5)])}


def _box_to_distance(rng: Random) -> Arguments:
    return {
        "points": torch.rand(5, 2),
        "boxes": boxes(2, 5),
        "min_distance": rng.choice([None, 0.0]),
        "max_distance": rng.choice([None, 16]),
        "margin": 0.1,
        "scale": rng.choice([None, torch.rand(5)]),
    }


def _assign_atss(rng: Random) -> Arguments:
    return {
        "anchors": boxes(21),
        "level_sizes": [16, 4, 1],
        "boxes": boxes(2, 3),
        "counts": torch.tensor([3, 1]),
        "topk": rng.choice([1, 9]),
        "valid": rng.choice([None, torch.rand(2, 21) > 0.2]),
    }


def _valuable_localization_region(rng: Random) -> Arguments:
    return {
        "anchors": boxes(21),
        "boxes": boxes(2, 3),
        "counts": torch.tensor([3, 1]),
        "threshold": rng.choice([0.5, torch.rand(2, 3)]),
        "gamma": 0.25,
        "measure": rng.choice(["diou", "diou_released"]),
        "upper": rng.choice(["closed", "open"]),
        "weight": rng.choice(["iou", "one"]),
        "valid": rng.choice([None, torch.rand(2, 21) > 0.2]),
    }


def _inside_region(rng: Random) -> Arguments:
    return {
        "points": torch.rand(21, 2) * 50,
        "boxes": boxes(2, 3),
        "counts": torch.tensor([3, 1]),
        "valid": rng.choice([None, torch.rand(2, 21) > 0.2]),
    }


def _fine_grained_region(rng: Random) -> Arguments:
    arguments = _inside_region(rng)
    del arguments["points"]
    return {"anchors": boxes(21), **arguments, "factor": 0.5}


def _assign_max_iou(rng: Random) -> Arguments:
    arguments = _fine_grained_region(rng)
    del arguments["factor"]
    ignored = rng.random() < 0.5
    return {
        **arguments,
        "positive": 0.5,
        "negative": 0.4,
        "min_positive": rng.choice([0.0, 0.3]),
        "match_low_quality": rng.random() < 0.5,
        "ignore_boxes": boxes(2, 2) if ignored else None,
        "ignore_counts": torch.tensor([2, 1]) if ignored else None,
        "ignore_threshold": 0.5,
    }


def _assign_points(rng: Random) -> Arguments:
    return {
        **_inside_region(rng),
        "strides": [8.0, 16.0, 32.0],
        "level_sizes": [16, 4, 1],
        "regress_ranges": [(-1.0, 20.0), (20.0, 30.0), (30.0, float("inf"))],
        "center_sampling": rng.choice([None, 1.5]),
    }


def _general_instance_region(rng: Random) -> Arguments:
    return {
        "student_scores": torch.randn(2, 21, 5),
        "teacher_scores": torch.randn(2, 21, 5),
        "student_boxes": boxes(2, 21),
        "teacher_boxes": boxes(2, 21),
        "level_sizes": [16, 4, 1],
        "top": rng.choice([1, 10]),
        "iou": 0.3,
        "scope": rng.choice(["image", "batch"]),
        "activated": rng.random() < 0.5,
        "valid": rng.choice([None, torch.rand(2, 21) > 0.2]),
    }


def _match_cost(rng: Random) -> Arguments:
    class_cost = rng.choice(["focal", "softmax", "binary_focal", "soft_bce", "none"])
    masks = rng.random() < 0.5
    points = masks and rng.random() < 0.5
    where = (4, 3) if points else (6,)
    return {
        "logits": torch.randn(2, 7, 5),
        "boxes": torch.rand(2, 7, 4),
        "target_labels": torch.randint(5, (2, 3)),
        "target_boxes": torch.rand(2, 3, 4),
        "counts": torch.tensor([3, 1]),
        "class_cost": class_cost,
        "target_scores": torch.rand(2, 3, 5) if class_cost in ("binary_focal", "soft_bce") else None,
        "mask_logits": torch.randn(2, 7, *where) if masks else None,
        "target_masks": torch.rand(2, 3, *where) if masks else None,
        "points": torch.rand(2, 6, 2) if points else None,
        "weights": {"mask": 5.0, "dice": 5.0} if masks else None,
        "mask_cost": rng.choice(["bce", "focal"]),
        "dice_eps": 1.0,
        "dice_squared": rng.random() < 0.5,
    }


def _linear_sum_assignment(rng: Random) -> Arguments:
    return {
        "cost": torch.randn(4, 5, 3).to(rng.choice(DTYPES[:6])),
        "rows": rng.choice([None, torch.tensor([5, 4, 0, 1])]),
        "columns": rng.choice([None, torch.tensor([3, 0, 2, 1])]),
        "maximize": rng.random() < 0.5,
        "nonfinite": rng.choice(["forbid", "raise", "clamp", "finfo_max"]),
    }


def _hungarian_match(rng: Random) -> Arguments:
    return {**_match_cost(rng), "groups": 1, "nonfinite": "forbid"}


def _hungarian_match_all(rng: Random) -> Arguments:
    return {"problems": [pydistill.ops.MatchProblem(**_hungarian_match(rng)) for _ in range(rng.randrange(4))]}


def _query_quality(rng: Random) -> Arguments:
    return {
        "scores": torch.randn(3, 2, 7, 5),
        "boxes": torch.rand(3, 2, 7, 4),
        "target_boxes": torch.rand(2, 3, 4),
        "counts": rng.choice([None, torch.tensor([3, 1])]),
        "gamma": rng.choice([0.0, 0.5, 1.0]),
        "topk": rng.choice([1, 7, 100]),
        "form": rng.choice(["paper", "released"]),
        "activated": rng.random() < 0.5,
        "image_sizes": rng.choice([None, torch.tensor([[480, 640], [200, 300]])]),
    }


def _query_feature_mask(rng: Random) -> Arguments:
    return {
        "queries": torch.randn(3, 2, 7, 5),
        "quality": torch.rand(3, 2, 7),
        "features": [torch.randn(2, 5, 4, 6), torch.randn(2, 5, 2, 3)],
        "index": rng.choice([None, torch.randint(7, (3, 2, 7))]),
        "floor": 1e-2,
        "normalize": rng.choice(["max", "none"]),
    }


def _pairs(rng: Random) -> Arguments:
    """What the losses of matched pairs share: 3 stages, 2 images, 7 queries, 4 targets."""
    return {
        "target_of_query": torch.randint(-1, 5, (3, 2, 7)),
        "weight": rng.choice([None, torch.rand(3, 2, 7), torch.rand(7)]),
        "reduction": rng.choice(["stages", "none"]),
    }


def _matched_box_options(rng: Random) -> Arguments:
    return {
        "image_sizes": rng.choice([None, torch.tensor([[480, 640], [200, 300]])]),
        "clamp_targets": rng.random() < 0.5,
        "giou_eps": rng.choice([0.0, 1e-6]),
        "box_format": rng.choice(["cxcywh", "xyxy"]),
    }


def _matched_box_loss(rng: Random) -> Arguments:
    l1_format = rng.choice([None, "cxcywh", "xyxy"])
    targets = rng.choice([torch.rand(2, 4, 4), torch.rand(3, 2, 4, 4)])
    options = {**_pairs(rng), **_matched_box_options(rng), "l1_format": l1_format}
    return {"boxes": real(3, 2, 7, 4), "target_boxes": targets, **options}


def _matched_class_loss(rng: Random) -> Arguments:
    soft, lead = rng.random() < 0.5, rng.choice([(2, 4), (3, 2, 4)])
    targets = torch.randn(*lead, 5) if soft else torch.randint(5, lead)
    options = {"form": "soft_bce" if soft else "focal", "alpha": 0.25, "gamma": rng.choice([1.0, 2.0])}
    return {"logits": real(3, 2, 7, 5), "targets": targets, **_pairs(rng), **options}


def _matched_distillation_loss(rng: Random) -> Arguments:
    return {
        "student_logits": real(3, 2, 7, 5),
        "student_boxes": real(3, 2, 7, 4),
        "teacher_logits": torch.randn(3, 2, 4, 5),
        "teacher_boxes": torch.rand(3, 2, 4, 4),
        "target_of_query": torch.randint(-1, 5, (3, 2, 7)),
        "pairs": rng.choice(["all", "positives", "negatives", "pos_neg"]),
        "positive": torch.rand(3, 2, 4) < 0.5,
        "normalizer": rng.choice([None, 3.0, torch.rand(3)]),
        **_matched_box_options(rng),
    }


def _matched_labels(rng: Random) -> Arguments:
    labels = rng.choice([torch.randint(5, (2, 4)), torch.randint(5, (3, 2, 4))])
    return {"target_labels": labels, "target_of_query": torch.randint(-1, 5, (3, 2, 7)), "background": 5}


def _info_nce_loss(rng: Random) -> Arguments:
    return {
        "student": real(6, 5),
        "teacher": real(6, 5),
        "temperature": 0.07,
        "detach_target": rng.random() < 0.5,
        "valid": rng.choice([None, torch.rand(6) < 0.5]),
    }


def _pack_targets(rng: Random) -> Arguments:
    return {"targets": [boxes(3), boxes(2), boxes(1)], "max_targets": rng.choice([None, 3, 5])}


VALID: dict[str, Callable[[Random], Arguments]] = {
    "attention_map": _attention_map,
    "attention_distillation_loss": _attention_distillation_loss,
    "channel_energy": _channel_energy,
    "energy_distillation_loss": _energy_distillation_loss,
    "soft_iou_loss": _soft_iou_loss,
    "softmax_kl": _softmax_kl,
    "masked_feature_loss": _masked_feature_loss,
    "integral": _integral,
    "quality_focal_loss": _quality_focal_loss,
    "sigmoid_focal_loss": _sigmoid_focal_loss,
    "distribution_focal_loss": _distribution_focal_loss,
    "pairwise_iou": _pairwise_iou,
    "box_iou": _box_iou,
    "generalized_box_iou": _box_iou,
    "distance_box_iou": _box_iou,
    "complete_box_iou": _box_iou,
    "giou_loss": _box_loss,
    "diou_loss": _box_loss,
    "ciou_loss": _box_loss,
    "distance_to_box": _distance_to_box,
    "box_to_distance": _box_to_distance,
    "assign_atss": _assign_atss,
    "valuable_localization_region": _valuable_localization_region,
    "inside_region": _inside_region,
    "fine_grained_region": _fine_grained_region,
    "assign_max_iou": _assign_max_iou,
    "assign_points": _assign_points,
    "general_instance_region": _general_instance_region,
    "match_cost": _match_cost,
    "linear_sum_assignment": _linear_sum_assignment,
    "hungarian_match": _hungarian_match,
    "hungarian_match_all": _hungarian_match_all,
    "matched_box_loss": _matched_box_loss,
    "matched_class_loss": _matched_class_loss,
    "matched_distillation_loss": _matched_distillation_loss,
    "matched_labels": _matched_labels,
    "info_nce_loss": _info_nce_loss,
    "query_quality": _query_quality,
    "query_feature_mask": _query_feature_mask,
    "pack_targets": _pack_targets,
}


def available() -> list[str]:
    """The ops of the table that this version has."""
    return [name for name in VALID if hasattr(pydistill.ops, name)]


def strange(rng: Random, value: Any, tensor: bool) -> Any:
    """Something else in the place of ``value``: a tensor where one belongs, anything for anything else."""
    if isinstance(value, list) and value and isinstance(value[0], torch.Tensor) and rng.random() < 0.8:
        changed = rng.randrange(len(value))
        return [strange(rng, x, True) if i == changed else x for i, x in enumerate(value)]
    if not isinstance(value, torch.Tensor):
        return torch.randn(rng.choice([(), (2,), (4,), (2, 3)])) if tensor else rng.choice(SCALARS)
    x = value.detach()
    shape = [rng.choice([0, 1, 2, 3, 17]) for _ in range(rng.randrange(6))]
    kind = rng.randrange(8)
    if kind == 0:
        return torch.randn(shape).to(x.dtype)
    if kind == 1:
        return x.to(rng.choice(DTYPES))
    if kind == 2:
        return x.transpose(0, -1) if x.ndim else x[None]
    if kind == 3 and x.is_floating_point():  # one value that no arithmetic likes
        x = x.clone()
        x.view(-1)[rng.randrange(x.numel())] = rng.choice([float("nan"), float("inf"), -float("inf"), 1e38])
        return x
    if kind == 4:  # a size no buffer has, in no memory of its own
        return x.flatten()[:1].expand(*[rng.choice([2**25, 2**17]) for _ in range(2)], *x.shape[2:])
    if kind == 5:
        return x[..., :0] if rng.random() < 0.5 else x[:0]
    if kind == 6:
        return torch.stack([x, x], -1)[..., 0].requires_grad_(x.is_floating_point())
    return rng.choice([x.to("meta"), x.to_sparse(), x * 1e30, -x if x.dtype != torch.bool else x, x[None]])


def make_case(seed: int, index: int, names: list[str]) -> tuple[str, Arguments]:
    """Case ``index`` of ``seed``: the op's name and its arguments; every fifth call is a valid one."""
    rng = random.Random(f"{seed} {index}")
    torch.manual_seed(rng.randrange(2**31))
    name = rng.choice(names)
    arguments = VALID[name](rng)
    parameters = inspect.signature(getattr(pydistill.ops, name)).parameters
    if index % 5:
        for key in rng.sample(list(arguments), rng.randint(1, min(3, len(arguments)))):
            arguments[key] = strange(rng, arguments[key], "Tensor" in str(parameters[key].annotation))
    return name, arguments


def describe(value: Any) -> str:
    """A tensor by its shape, dtype and strides, anything else as it prints."""
    if isinstance(value, torch.Tensor):
        strides = value.stride() if value.layout == torch.strided else value.layout
        return f"{value.device.type}{list(value.shape)} {value.dtype} strides {strides}"
    if isinstance(value, list):
        return f"[{', '.join(map(describe, value))}]"[:240]
    return repr(value)[:80]


def call(name: str, arguments: Arguments) -> None:
    """Calls the op, and its gradient where it has one."""
    result = getattr(pydistill.ops, name)(**arguments)
    if isinstance(result, torch.Tensor) and result.requires_grad:
        torch.autograd.backward(result.sum())


def plain(value: Any) -> bool:
    """Whether ``value`` is a tensor in memory, or none at all: others may fail inside torch, as they do elsewhere."""
    if isinstance(value, list):
        return all(map(plain, value))
    return not isinstance(value, torch.Tensor) or (value.layout == torch.strided and not value.is_meta)


def fault_of(error: Exception, valid: bool, ordinary: bool = True) -> str | None:
    """Why ``error`` should not have been raised; None where it is what a user may see."""
    if valid:
        return f"a valid call raised {type(error).__name__}: {error}"
    refused = isinstance(error, (ValueError, TypeError)) or (not ordinary and isinstance(error, RuntimeError))
    out_of_memory = isinstance(error, (RuntimeError, MemoryError)) and re.search("allocate|Storage size", str(error))
    return None if refused or out_of_memory else f"{type(error).__name__}: {error}"


def work(seed: int, first: int, only: bool, names: list[str], seconds: float) -> None:
    """The child: runs cases from ``first`` on and prints each number before its call."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    end = time.monotonic() + seconds
    for index in itertools.count(first):
        if time.monotonic() > end:
            return
        name, arguments = make_case(seed, index, names)
        text = f"{name}({', '.join(f'{key}={describe(value)}' for key, value in arguments.items())})"
        print(f"case {index} {text}", flush=True)
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        try:
            call(name, arguments)
        except Exception as error:
            ordinary = all(map(plain, arguments.values()))
            if fault := fault_of(error, index % 5 == 0, ordinary):
                print(f"fault {fault}".replace("\n", " "), flush=True)
        faulthandler.cancel_dump_traceback_later()
        if only:
            return


def op_of(case: str) -> str:
    """The op's name in ``case 7 name(...)``."""
    return case.partition("(")[0].rpartition(" ")[2]


def watch(command: list[str]) -> tuple[int, dict[str, str]]:
    """Runs one child to its end: the number of its last case, and what it did wrong, with the first case of each."""
    last = ""
    faults: dict[str, str] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout or ():
            if line.startswith("case "):
                last = line.strip()
            elif line.startswith("fault "):
                faults.setdefault(f"{op_of(last)}: {line.strip()}", last)
    if child.returncode:
        ended = signal.Signals(-child.returncode).name if child.returncode < 0 else "a hang, or an exception: see above"
        faults[f"{op_of(last)}: ended by {ended}"] = last
    return int(last.split()[1]) if last else -1, faults


def main() -> int:
    """Fuzzes for a time; the exit status is 0 where nothing went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--case", type=int, help="run this case alone")
    parser.add_argument("--op", choices=sorted(VALID), help="fuzz this op alone")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = [options.op] if options.op else available()
    if options.worker is not None:
        work(options.seed, options.worker, options.case is not None, names, options.seconds)
        return 0
    print(f"seed {options.seed}: {', '.join(names)}", flush=True)
    faults: dict[str, str] = {}
    end, index = time.monotonic() + options.seconds, options.case or 0
    while (left := end - time.monotonic()) > 0:
        command = [
            sys.executable,
            __file__,
            "--seed",
            str(options.seed),
            "--worker",
            str(index),
            "--seconds",
            str(left),
        ]
        command += ["--op", options.op] if options.op else []
        command += ["--case", str(index)] if options.case is not None else []
        last, found = watch(command)
        faults = {**found, **faults}
        index = last + 1
        if options.case is not None or last < 0:
            break
    for fault, case in faults.items():
        print(f"{fault}\n  first in {case}")
    print(f"{index} cases of seed {options.seed}, {len(faults)} kinds of faults")
    return 1 if faults or not index else 0


if __name__ == "__main__":
    sys.exit(main())
