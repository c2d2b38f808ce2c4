"""Detectors of transformers, tiny and with random weights."""

import torch
from torch.nn import functional as F

CLASSES = 3


def detector(name):
    """One that trains in milliseconds a step; its loss is transformers'."""
    import transformers as t

    wide = dict(encoder_ffn_dim=32, decoder_ffn_dim=32, num_labels=CLASSES, auxiliary_loss=True, dropout=0.0)
    layers = dict(d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2)
    if name in ("detr", "conditional_detr"):
        config = dict(wide, **layers, num_queries=12, backbone_config=_backbone(1), use_pretrained_backbone=False)
        kind = {"detr": "Detr", "conditional_detr": "ConditionalDetr"}[name]
    elif name == "deformable_detr":
        own = dict(num_queries=12, backbone_config=_backbone(3), num_feature_levels=3, with_box_refine=True)
        config, kind = dict(wide, **layers, **own, use_pretrained_backbone=False), "DeformableDetr"
    elif name in ("rt_detr", "d_fine"):
        config = dict(
            wide, num_queries=12, d_model=32, encoder_hidden_dim=32, decoder_layers=2, backbone_config=_backbone(3),
            encoder_in_channels=[24, 32, 40], decoder_in_channels=[32, 32, 32], num_denoising=6,
            encoder_attention_heads=2, decoder_attention_heads=2, num_feature_levels=3, anchor_image_size=None,
            depth_mult=0.34,
        )  # fmt: skip
        kind = {"rt_detr": "RTDetr", "d_fine": "DFine"}[name]
    configuration = getattr(t, f"{kind}Config")(**config)
    return getattr(t, f"{kind}ForObjectDetection")(configuration)


def _backbone(levels):
    from transformers import ResNetConfig

    stages = [f"stage{i}" for i in (2, 3, 4)][-levels:]
    return ResNetConfig(
        embedding_size=8, hidden_sizes=[16, 24, 32, 40], depths=[1] * 4, layer_type="basic", out_features=stages
    )


def scenes(steps, pictures=2, size=32, seed=0):
    """Batches of pictures with one to three filled rectangles, a colour for each class."""
    g = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(steps):
        x, labels = 0.1 * torch.rand(pictures, 3, size, size, generator=g), []
        for picture in x:
            n = int(torch.randint(1, 4, (), generator=g))
            classes = torch.randint(CLASSES, (n,), generator=g)
            sides = 0.2 + 0.3 * torch.rand(n, 2, generator=g)
            centres = sides / 2 + (1 - sides) * torch.rand(n, 2, generator=g)
            for c, (u, v), (w, h) in zip(classes.tolist(), centres.tolist(), sides.tolist()):
                left, right = (int(size * (u + s * w / 2)) for s in (-1, 1))
                top, bottom = (int(size * (v + s * h / 2)) for s in (-1, 1))
                picture[:, top:bottom, left:right] = F.one_hot(torch.tensor(c), 3).view(3, 1, 1).to(x.dtype)
            labels.append({"class_labels": classes, "boxes": torch.cat([centres, sides], -1)})
        batches.append((x, labels))
    return batches
