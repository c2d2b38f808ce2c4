"""mmdetection's LD head with the whole objective of Localization Distillation."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import LDHead as _LDHead
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmdet.models.utils import unpack_gt_instances
from torch import Tensor

from pydistill.hosts.mmdet._registry import get_box_tensor
from pydistill.losses import DensePrediction, LDLoss
from pydistill.ops import pack_targets

_KL = "KnowledgeDistillationKLDivLoss"
_NAMES = {
    "classification": "loss_cls",
    "box": "loss_bbox",
    "dfl": "loss_dfl",
    "main_ld": "loss_ld",
    "vlr_ld": "loss_ld_vlr",
    "main_kd": "loss_kd",
    "vlr_kd": "loss_kd_neg",
    "imitation": "loss_im",
}
_REGIONS = {"gibox": "general_instance", "finegrained": "fine_grained", "fitnet": "inside"}  # the released code's names


class LDHead(_LDHead):
    """GFL's head, trained by :class:`pydistill.losses.LDLoss`: its own objective, and all that a teacher can say.

    The layers are mmdet's, so checkpoints fit both. The losses are computed at once for all levels and images, without
    waiting for the device, and each is one tensor instead of a list over the levels. A term of weight 0 is not there.

    The options have the names of the released code. None: as ``reference`` has it.

    Args:
        num_classes: C.
        in_channels: of the feature maps.
        loss_ld: main LD, a ``KnowledgeDistillationKLDivLoss`` with ``loss_weight`` and ``T``.
        loss_ld_vlr: LD in the valuable localization region; the released code divides it by 16 where main LD is divided
            by 4, and so is it here: 0.25 is a quarter of the weight that 0.25 is in ``loss_ld``. The same ``T``.
        loss_kd: KD of the class logits at positive anchors.
        loss_kd_neg: KD of the class logits in the region. The same ``T``.
        loss_im: ``dict(loss_weight=...)``: imitation of the feature maps.
        imitation_method: ``"gibox"`` (general instances), ``"finegrained"`` or ``"fitnet"`` (inside the boxes), or the
            names of ``LDLoss``.
        reference: ``"paper"``; ``"released"`` or ``"mmdet"`` reproduce those codes. Of ``"mmdet"`` the loss is that of
            mmdet's own head, which has main LD only.
        gamma: lower end of the region's band as a part of its upper end.
        kwargs: mmdet's, for the layers and the detector's own losses: ``QualityFocalLoss``, ``GIoULoss``,
            ``DistributionFocalLoss`` of this package or of mmdet.

    Raises:
        ValueError: for an option of a loss, the assigner or the sampler that ``LDLoss`` does not have.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        loss_ld: Any = None,
        loss_ld_vlr: Any = None,
        loss_kd: Any = None,
        loss_kd_neg: Any = None,
        loss_im: Any = None,
        imitation_method: Any = "gibox",
        reference: Any = "paper",
        gamma: float = 0.25,
        **kwargs: Any,
    ):
        loss_ld = dict(type=f"pydistill.{_KL}", loss_weight=0.25, T=10) if loss_ld is None else loss_ld
        super().__init__(num_classes=num_classes, in_channels=in_channels, loss_ld=loss_ld, **kwargs)
        self._check_own()
        vlr, weight = _weight("loss_ld_vlr", loss_ld_vlr), _weight("loss_ld", loss_ld)
        self.distillation = LDLoss(
            [stride for stride, _ in self.prior_generator.strides],
            reference=reference,
            classification=self.loss_cls.loss_weight,
            box=self.loss_bbox.loss_weight,
            dfl=self.loss_dfl.loss_weight,
            main_ld=weight,
            vlr_ld=None if vlr is None else vlr / 4,
            main_kd=_weight("loss_kd", loss_kd),
            vlr_kd=_weight("loss_kd_neg", loss_kd_neg),
            imitation=None if loss_im is None else loss_im["loss_weight"],
            temperature=_temperature("LD", 10.0, loss_ld, loss_ld_vlr),
            kd_temperature=_temperature("KD", 2.0, loss_kd, loss_kd_neg),
            imitation_region=_REGIONS.get(imitation_method, imitation_method),
            gamma=gamma,
            ignore_threshold=self.assigner.ignore_iof_thr if self.train_cfg else -1.0,
        )

    def loss(self, x: Sequence[Tensor], out_teacher: Sequence[Any], batch_data_samples: Any) -> dict[str, Tensor]:
        """The terms; ``out_teacher``: class logits, box logits and, for imitation, feature maps, lists over levels."""
        objects, ignored, metas = unpack_gt_instances(batch_data_samples)
        scores, sides, *features = out_teacher
        own_scores, own_sides = self(x)
        maps = (x, features[0]) if features else None
        return self.loss_by_feat(own_scores, own_sides, objects, metas, sides, ignored, scores, maps)

    def loss_by_feat(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        batch_gt_instances: Any,
        batch_img_metas: Any,
        soft_targets: Sequence[Tensor],
        batch_gt_instances_ignore: Any = None,
        teacher_scores: Sequence[Tensor] | None = None,
        features: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None,
    ) -> dict[str, Tensor]:
        """The terms, from the arguments of mmdet, the class logits of the teacher for KD and both feature maps."""
        shapes = [scores.shape[-2:] for scores in cls_scores]
        levels, flags = self.get_anchors(shapes, batch_img_metas, device=cls_scores[0].device)
        anchors = torch.cat(levels[0])
        border = self.train_cfg["allowed_border"]
        valid = [
            anchor_inside_flags(anchors, torch.cat(flag), meta["img_shape"][:2], border)
            for flag, meta in zip(flags, batch_img_metas)
        ]
        boxes, counts = pack_targets([get_box_tensor(objects.bboxes) for objects in batch_gt_instances])
        labels, _ = pack_targets([objects.labels for objects in batch_gt_instances])
        ignore_boxes = ignore_counts = None
        if batch_gt_instances_ignore is not None and self.distillation.ignore_threshold > 0:
            nothing = boxes.new_zeros(0, 4)
            ignored = [nothing if i is None else get_box_tensor(i.bboxes) for i in batch_gt_instances_ignore]
            ignore_boxes, ignore_counts = pack_targets(ignored)
        on = self.distillation.settings.weights
        if teacher_scores is None:
            if on["main_kd"] or on["vlr_kd"]:
                raise ValueError("LDHead: expected the teacher's class logits for loss_kd, got none")
            teacher_scores = [scores.detach() for scores in cls_scores]
        if on["imitation"] and features is None:
            expected = "the teacher's feature maps for loss_im, from pydistill.KnowledgeDistillationSingleStageDetector"
            raise ValueError(f"LDHead: expected {expected}, got none")
        terms = self.distillation(
            DensePrediction.from_levels(cls_scores, bbox_preds),
            DensePrediction.from_levels(teacher_scores, soft_targets),
            anchors,
            [h * w for h, w in shapes],
            boxes,
            labels,
            counts,
            valid=torch.stack(valid),
            features=features,
            ignore_boxes=ignore_boxes,
            ignore_counts=ignore_counts,
        )
        return {_NAMES[name]: term for name, term in terms.items()}

    def _check_own(self) -> None:
        """Refuse what the configuration asks of the detector's own losses and ``LDLoss`` does not do."""
        for name, kind, options in (
            ("loss_cls", "QualityFocalLoss", {"beta": 2.0, "activated": False}),
            ("loss_bbox", "GIoULoss", {"eps": 1e-6}),
            ("loss_dfl", "DistributionFocalLoss", {}),
            ("loss_ld", _KL, {}),
        ):
            loss = getattr(self, name)
            _expect(name, kind, type(loss).__name__)
            for option, value in {**options, "reduction": "mean"}.items():
                _expect(f"{option} of {name}", value, getattr(loss, option))
        if self.train_cfg:
            _expect("assigner", "ATSSAssigner", type(self.assigner).__name__)
            _expect("alpha of the assigner", None, getattr(self.assigner, "alpha", None))
            _expect("topk of the assigner", 9, self.assigner.topk)
            _expect("sampler", "PseudoSampler", type(self.sampler).__name__)
            if self.train_cfg["pos_weight"] > 0:
                _expect("pos_weight", -1, self.train_cfg["pos_weight"])


def _expect(name: str, expected: Any, got: Any) -> None:
    if got != expected:
        raise ValueError(f"LDHead: expected {name} {expected}, got {got}")


def _weight(name: str, config: Any) -> float | None:
    if config is None:
        return None
    _expect(f"type of {name}", _KL, config["type"].rpartition(".")[2])
    _expect(f"reduction of {name}", "mean", config.get("reduction", "mean"))
    return float(config.get("loss_weight", 1.0))


def _temperature(kind: str, default: float, *configs: Any) -> float:
    """The one temperature of the losses that are given, mmdet's default of 10 where one of them does not say."""
    given = sorted({float(config.get("T", 10)) for config in configs if config is not None})
    if len(given) > 1:
        raise ValueError(f"LDHead: expected one T for all of {kind}, got {given}")
    return given[0] if given else default
