"""Valid calls of what lanes need: attention maps, energies and the IoU of lanes."""

import torch

from fuzz_cases.values import Arguments, Cases, Random, real


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


VALID: Cases = {
    "attention_map": _attention_map,
    "attention_distillation_loss": _attention_distillation_loss,
    "channel_energy": _channel_energy,
    "energy_distillation_loss": _energy_distillation_loss,
    "soft_iou_loss": _soft_iou_loss,
}
