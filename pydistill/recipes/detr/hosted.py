"""transformers' detectors by queries behind one call: all stages, the neck's maps, and queries lent by a teacher."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pydistill.losses.detr.prediction import SetPrediction
from pydistill.recipes.dense.backbone import Compact
from pydistill.recipes.detr.lending import Auxiliary, Call, DetrOutput, Queries, recorded
from pydistill.recipes.resnet import ResNet

_EPS = 1e-5  # of transformers' inverse sigmoid


class HostedDetector(nn.Module):
    """A detector of transformers that also says what it would find with a teacher's queries.

    The decoder is called a second time on the same memory: backbone and encoder run once.

    Args:
        host: transformers' detector; its backbone's convolutions are ``host.model.backbone.model.network``.
        channels: D of its queries.
        multiple: heights and widths of pictures that it takes.
    """

    def __init__(self, host: nn.Module, channels: int, multiple: int = 1):
        super().__init__()
        self.host: Any = host
        self.channels = channels
        self.multiple = multiple

    @property
    def backbone(self) -> Compact | ResNet:
        """The network of ``load_backbone`` and ``ResNet.freeze``."""
        network: Compact | ResNet = self.host.model.backbone.model.network
        return network

    def forward(self, pictures: Tensor, *, lent: Queries | None = None) -> DetrOutput:
        """What it says of normalised pictures (B, 3, H, W), and with ``lent`` what it says by those queries.

        Raises:
            ValueError: for pictures or queries of another shape.
        """
        if pictures.dim() != 4 or pictures.shape[1] != 3 or any(n % self.multiple for n in pictures.shape[2:]):
            raise ValueError(
                f"{type(self).__name__}: expected pictures of shape (B, 3, H, W), "
                f"H and W multiples of {self.multiple}, got {list(pictures.shape)}"
            )
        with recorded([self.host.model.decoder]) as calls, recorded(self.necks()) as features:
            outputs = self.host.model(pictures)
        maps = tuple(call.result for call in features)
        prediction, group = self.predict(calls[0], maps), None
        if lent is not None:
            keywords = calls[0].keywords | self.borrowed(lent, pictures.shape[0])
            group = self.predict(Call(keywords, self.host.model.decoder(**keywords)), ())
        return DetrOutput(prediction, self.queries(calls[0]), group, self.auxiliary(outputs))

    def necks(self) -> Sequence[nn.Module]:
        """The modules that give the maps (B, D, h, w) of the feature term, fine to coarse."""
        return [self.host.model.input_projection]

    def queries(self, call: Call) -> Queries:
        """What the decoder's ``call`` started from."""
        position = self.host.model.query_position_embeddings.weight
        return Queries(torch.zeros_like(position), position)

    def borrowed(self, lent: Queries, pictures: int) -> dict[str, Tensor | None]:
        """The decoder's arguments for ``lent``, in place of those for its own queries."""
        own = lent.expanded(pictures, self.channels, position=self.channels, reference=None)
        return {"inputs_embeds": own.content, "object_queries_position_embeddings": own.position}

    def predict(self, call: Call, features: Sequence[Tensor]) -> SetPrediction:
        """All stages of the decoder's ``call``."""
        states = call.result.intermediate_hidden_states[:-1]
        states = torch.cat([states, call.result.last_hidden_state[None]])  # the last one is normalised twice, as there
        boxes = self.host.bbox_predictor(states)
        centres = call.result.get("reference_points")  # (Q, B, 2) of Conditional DETR
        if centres is not None:
            boxes = _moved(boxes, centres.transpose(0, 1))
        return SetPrediction(self.host.class_labels_classifier(states), boxes.sigmoid(), states, features)

    def auxiliary(self, outputs: Any) -> tuple[Auxiliary, ...]:
        """What else has a loss, of the ``outputs`` of the whole model."""
        return ()


class HostedDeformableDetr(HostedDetector):
    """Deformable DETR: learned queries, of which its own layer makes the reference points."""

    def necks(self) -> Sequence[nn.Module]:
        """The projections of the backbone's stages, as in DETRDistill's released code."""
        return list(self.host.model.input_proj)

    def queries(self, call: Call) -> Queries:
        """The learned states and position embeddings."""
        position, content = self.host.model.query_position_embeddings.weight.split(self.channels, dim=1)
        return Queries(content, position)

    def borrowed(self, lent: Queries, pictures: int) -> dict[str, Tensor | None]:
        """The teacher's embeddings, and the reference points that the student's layer makes of them, as released."""
        arguments = super().borrowed(lent, pictures)
        points = self.host.model.reference_points(arguments["object_queries_position_embeddings"])
        return arguments | {"reference_points": points.sigmoid()}

    def predict(self, call: Call, features: Sequence[Tensor]) -> SetPrediction:
        """All stages; each moves the boxes of the stage before if the detector refines them, else its first points."""
        states = call.result.intermediate_hidden_states.transpose(0, 1)
        starts = [call.keywords["reference_points"], *call.result.intermediate_reference_points.unbind(1)[:-1]]
        logits = torch.stack([head(x) for head, x in zip(self.host.class_embed, states)])
        boxes = [_moved(head(x), start) for head, x, start in zip(self.host.bbox_embed, states, starts)]
        return SetPrediction(logits, torch.stack(boxes).sigmoid(), states, features)


class HostedRTDetr(HostedDetector):
    """RT-DETR: queries that its encoder selects for each picture, lent with the boxes it saw there (as logits)."""

    def necks(self) -> Sequence[nn.Module]:
        """The projections of the backbone's stages, before the hybrid encoder."""
        return list(self.host.model.encoder_input_proj)

    def queries(self, call: Call) -> Queries:
        """The selected states (B, Q, D) and the logits of their boxes (B, Q, 4)."""
        return Queries(call.keywords["inputs_embeds"], reference=call.keywords["reference_points"])

    def borrowed(self, lent: Queries, pictures: int) -> dict[str, Tensor | None]:
        """The teacher's states and boxes."""
        own = lent.expanded(pictures, self.channels, position=None, reference=4)
        return {"inputs_embeds": own.content, "reference_points": own.reference, "encoder_attention_mask": None}

    def predict(self, call: Call, features: Sequence[Tensor]) -> SetPrediction:
        """All stages, as the decoder's own heads give them."""
        result = call.result
        stages = (result.intermediate_logits, result.intermediate_reference_points, result.intermediate_hidden_states)
        logits, boxes, states = (x.transpose(0, 1) for x in stages)
        return SetPrediction(logits, boxes, states, features)

    def auxiliary(self, outputs: Any) -> tuple[Auxiliary, ...]:
        """What the encoder said of the locations that it selected."""
        return (Auxiliary(SetPrediction(outputs.enc_topk_logits[None], outputs.enc_topk_bboxes[None])),)


def _moved(offsets: Tensor, start: Tensor) -> Tensor:
    """Logits of boxes (..., Q, 4), ``offsets`` from ``start``: boxes (..., Q, 4) or centres (..., Q, 2) in [0, 1]."""
    logits = torch.log(start.clamp(_EPS, 1) / (1 - start).clamp(_EPS, 1))
    return offsets + nn.functional.pad(logits, (0, 4 - start.shape[-1]))
