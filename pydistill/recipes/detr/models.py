"""Detectors by queries from random weights, from a toy's size to the papers'."""

from importlib.util import find_spec
from typing import Any, Literal, get_args

from torch import Tensor, nn

from pydistill.recipes.dense.backbone import Backbone, Compact, build_backbone
from pydistill.recipes.detr.adamixer import AdaMixer
from pydistill.recipes.detr.hosted import HostedDeformableDetr, HostedDetector, HostedRTDetr
from pydistill.recipes.detr.starts import restart
from pydistill.recipes.resnet import ResNet

Model = Literal["detr", "conditional_detr", "deformable_detr", "rt_detr", "adamixer"]
MODELS: tuple[Model, ...] = get_args(Model)
_SIDE = -2.0  # logit of the width and height of Deformable DETR's first boxes: an eighth of the picture


def build(
    name: Model,
    classes: int,
    *,
    backbone: Backbone = "compact",
    width: float = 0.25,
    blocks: int = 1,
    strides: tuple[int, ...] | None = None,
    channels: int = 64,
    queries: int = 20,
    layers: int = 3,
    encoder_layers: int = 1,
    heads: int | None = None,
    feedforward: int | None = None,
    points: int | None = None,
    dropout: float = 0.0,
    refine: bool = True,
) -> HostedDetector | AdaMixer:
    """A detector with random weights.

    The published Deformable DETR, which takes torchvision's weights by ``load_backbone``, is ``build("deformable_detr",
    80, backbone="resnet50", width=1, strides=(8, 16, 32, 64), channels=256, queries=300, layers=6, encoder_layers=6,
    feedforward=1024, dropout=0.1, refine=False)``. A teacher may differ from its student in everything but ``name``,
    ``classes``, ``strides`` and ``channels``.

    Args:
        name: one of ``MODELS``.
        classes: C; ``"detr"`` has one more logit, for no object.
        backbone, width, blocks: of ``build_backbone``. Its batch norms learn, unless ``ResNet.freeze`` is called.
        strides: of the maps that the detector reads, in pixels, each twice the one before.
            ``"detr"`` and ``"conditional_detr"`` read the last one, 32 at most; beyond 32 the others make their own.
            A ResNet's reach 32 at least. None: 8, 16 and 32; for those two 16, with a ResNet 32.
        channels: D, a multiple of 32.
        queries: Q.
        layers: stages of the decoder, L.
        encoder_layers: of the encoder; of ``"rt_detr"``, on the backbone's coarsest map. ``"adamixer"`` has none.
        heads: of attention; None: one for 32 channels, 4 at least.
        feedforward: hidden units; None: twice ``channels``.
        points: that a head of the deformable ones samples on each map; None: 4. Of ``"adamixer"``, that a group of
            channels samples; None: 8, the published one has 32.
        dropout: in the transformer.
        refine: stages of ``"deformable_detr"`` move the boxes of the stage before. ``"rt_detr"`` always does.

    Raises:
        ValueError: for another name, other strides or channels.
        ImportError: without transformers, which all but ``"adamixer"`` come from.
    """
    if name not in MODELS:
        raise ValueError(f"build: expected name in {MODELS}, got {name!r}")
    single = name in ("detr", "conditional_detr")
    lowest = 4 if backbone == "compact" else 32
    if strides is None:
        strides = (max(lowest, 16),) if single else (8, 16, 32)
    doubling = bool(strides) and all(b == 2 * a for a, b in zip(strides, strides[1:]))
    if not doubling or strides[0] not in (4, 8, 16, 32) or (single and strides[-1] > 32):
        raise ValueError(f"build: expected strides that double, from 4 to 32 on, got {list(strides)}")
    if strides[-1] < lowest:
        raise ValueError(f"build: expected strides to 32 or more for {backbone}, got {list(strides)}")
    if channels < 32 or channels % 32:
        raise ValueError(f"build: expected channels a multiple of 32, got {channels}")
    used = [s for s in strides if s <= 32]
    last = (4, 8, 16, 32).index(used[-1])
    stages = range(last, last + 1) if single else range(last + 1 - len(used), last + 1)
    features = build_backbone(backbone, width, blocks, last + 1)
    heads, feedforward = heads or max(4, channels // 32), feedforward or 2 * channels
    if name == "adamixer":
        return AdaMixer(
            classes, features, strides, channels=channels, queries=queries, layers=layers, heads=heads,
            feedforward=feedforward, points=points or 8, dropout=dropout,
        )  # fmt: skip
    if find_spec("transformers") is None:
        raise ImportError(f"build: expected transformers for {name}, not installed; pip install 'pydistill[train]'")
    network = _Stages(features, stages)
    common = {
        "backbone_config": network.config(),
        "num_labels": classes,
        "num_queries": queries,
        "d_model": channels,
        "encoder_layers": encoder_layers,
        "decoder_layers": layers,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": feedforward,
        "decoder_ffn_dim": feedforward,
        "dropout": dropout,
    }
    detector: HostedDetector
    if name == "rt_detr":
        detector = _rt_detr(common, strides, network.channels, points or 4)
    elif name == "deformable_detr":
        detector = _deformable_detr(common, len(strides), points or 4, refine)
    else:
        detector = _single(name, common)
    detector.host.model.backbone.model = network  # after the new start of what is around it
    return detector


def _rt_detr(common: dict[str, Any], strides: tuple[int, ...], inputs: list[int], points: int) -> HostedRTDetr:
    from transformers import RTDetrConfig, RTDetrForObjectDetection

    channels = common["d_model"]
    config = RTDetrConfig(
        **common,
        encoder_hidden_dim=channels,
        encoder_in_channels=inputs,
        feat_strides=[s for s in strides if s <= 32],
        encode_proj_layers=[len(inputs) - 1],
        hidden_expansion=0.5 if channels < 256 else 1.0,
        decoder_in_channels=[channels] * len(inputs),
        num_feature_levels=len(strides),
        decoder_n_points=points,
        num_denoising=0,
    )
    host = RTDetrForObjectDetection(config)
    model, decoder = host.model, host.model.decoder
    restart(host, (*decoder.class_embed, model.enc_score_head), (*decoder.bbox_embed, model.enc_bbox_head))
    return HostedRTDetr(host, channels, multiple=min(strides[-1], 32))


def _deformable_detr(common: dict[str, Any], levels: int, points: int, refine: bool) -> HostedDeformableDetr:
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection

    config = DeformableDetrConfig(
        **common,
        use_timm_backbone=False,
        num_feature_levels=levels,
        encoder_n_points=points,
        decoder_n_points=points,
        with_box_refine=refine,
        auxiliary_loss=True,
    )
    host: Any = DeformableDetrForObjectDetection(config)
    restart(host, host.class_embed, host.bbox_embed)
    nn.init.constant_(host.bbox_embed[0].layers[-1].bias.data[2:], _SIDE)
    return HostedDeformableDetr(host, common["d_model"])


def _single(name: Model, common: dict[str, Any]) -> HostedDetector:
    from transformers import (
        ConditionalDetrConfig,
        ConditionalDetrForObjectDetection,
        DetrConfig,
        DetrForObjectDetection,
    )

    options = common | {"use_timm_backbone": False, "auxiliary_loss": True}
    host: Any
    if name == "detr":
        host = DetrForObjectDetection(DetrConfig(**options))
        restart(host)
    else:
        host = ConditionalDetrForObjectDetection(ConditionalDetrConfig(**options))
        restart(host, [host.class_labels_classifier], [host.bbox_predictor])
    return HostedDetector(host, common["d_model"])


class _Stages(nn.Module):
    """The features of a backbone that the host reads, as it wants to be given them.

    Args:
        network: the backbone.
        stages: of its features.
    """

    def __init__(self, network: Compact | ResNet, stages: range):
        super().__init__()
        self.network = network
        self.stages = stages
        self.channels = [network.channels[i] for i in stages]

    def config(self) -> Any:
        """A configuration of transformers' with these channels, for the host to be built around."""
        from transformers import ResNetConfig

        every = self.network.channels[: self.stages.stop]
        names = [f"stage{i + 1}" for i in self.stages]
        return ResNetConfig(
            embedding_size=8,
            hidden_sizes=list(every),
            depths=[1] * len(every),
            layer_type="bottleneck",
            out_features=names,
        )

    def forward(self, pictures: Tensor) -> Any:
        from transformers.modeling_outputs import BackboneOutput

        features = self.network(pictures)
        return BackboneOutput(feature_maps=tuple(features[i] for i in self.stages))
